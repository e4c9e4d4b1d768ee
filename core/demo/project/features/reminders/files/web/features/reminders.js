export function register(ui) {
  const note = ui.panel(ui.make("span", { className: "badge" }));
  const names = (todos) => todos.map((todo) => todo.title).join(", ");
  ui.onRefresh(async () => {
    const today = new Date().toLocaleDateString("sv");
    const { late, soon } = await ui.call("GET", `/api/reminders?today=${today}`);
    note.textContent = [late.length && `Late: ${names(late)}`, soon.length && `Soon: ${names(soon)}`]
      .filter(Boolean).join(" · ");
    note.hidden = !note.textContent;
    note.className = late.length ? "badge alert" : "badge";
  });
}
