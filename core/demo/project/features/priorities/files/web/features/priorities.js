const RANKS = ["high", "normal", "low"];

export function register(ui) {
  const control = ui.make("select", {}, ...RANKS.map((rank) =>
    ui.make("option", { value: rank, textContent: rank, defaultSelected: rank === "normal" })));
  ui.field("priority", "Priority", control, (value) => value);
  ui.badge((todo) => todo.priority !== "normal" && { text: todo.priority, alert: todo.priority === "high" });
  ui.order((a, b) => RANKS.indexOf(a.priority) - RANKS.indexOf(b.priority));
}
