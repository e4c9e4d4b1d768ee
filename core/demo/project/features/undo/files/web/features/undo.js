export function register(ui) {
  ui.tool("Undo", "Bring back what was deleted last", () => ui.change("POST", "/api/undo"));
}
