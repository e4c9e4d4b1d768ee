export function register(ui) {
  const text = ui.make("textarea", { rows: 5, placeholder: "One todo a line, [x] for those already done" });
  const dialog = ui.make("dialog", {},
    ui.make("form", { method: "dialog" }, text,
      ui.make("p", {},
        ui.make("button", { className: "main", value: "import", textContent: "Import" }),
        " ",
        ui.make("button", { value: "cancel", textContent: "Leave" }))));
  dialog.onclose = async () => {
    if (dialog.returnValue !== "import") return;
    await ui.change("POST", "/api/import", { text: text.value });
    text.value = "";
  };
  document.body.append(dialog);
  ui.tool("Import", "Turn a pasted list into todos", () => dialog.showModal());
}
