export function register(ui) {
  ui.field("due", "Due", ui.make("input", { type: "date" }), (text) => text || null);
  const today = () => new Date().toLocaleDateString("sv");
  ui.badge((todo) => todo.due && { text: todo.due, alert: !todo.done && todo.due < today() });
}
