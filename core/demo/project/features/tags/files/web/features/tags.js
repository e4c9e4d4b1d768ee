export function register(ui) {
  const control = ui.make("input", { placeholder: "home garden" });
  ui.field("tags", "Tags", control, (text) => text.split(/[\s,]+/).filter(Boolean));
  ui.badge((todo) => todo.tags.map((tag) => `#${tag}`));
}
