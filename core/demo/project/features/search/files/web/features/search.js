export function register(ui) {
  let found = null;
  const box = ui.make("input", { type: "search", placeholder: "Search tags", ariaLabel: "Search tags" });
  const look = async () => {
    const tag = box.value.trim();
    const todos = tag && (await ui.call("GET", `/api/search?tag=${encodeURIComponent(tag)}`));
    found = tag ? new Set(todos.map((todo) => todo.id)) : null;
    ui.draw();
  };
  box.oninput = look;
  ui.panel(box);
  ui.filter((todo) => found === null || found.has(todo.id));
  ui.onRefresh(look);
}
