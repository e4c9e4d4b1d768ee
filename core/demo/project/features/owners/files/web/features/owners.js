export function register(ui) {
  ui.field("owner", "Owner", ui.make("input", { placeholder: "anyone" }), (text) => text);
  ui.badge((todo) => todo.owner && `@${todo.owner}`);

  const choice = ui.panel(ui.make("select", { ariaLabel: "Owner", onchange: ui.draw }));
  ui.filter((todo) => !choice.value || todo.owner === choice.value);
  ui.onRefresh(async () => {
    const chosen = choice.value;
    const owners = await ui.call("GET", "/api/owners");
    choice.replaceChildren(
      ui.make("option", { value: "", textContent: "All owners" }),
      ...owners.map((name) => ui.make("option", { value: name, textContent: name })));
    choice.value = owners.includes(chosen) ? chosen : "";
    ui.draw();
  });
}
