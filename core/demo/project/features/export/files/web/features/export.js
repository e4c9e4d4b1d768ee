export function register(ui) {
  ui.tool("Export", "Save the list as a CSV file", async () => {
    const content = await (await fetch(ui.url("/api/export.csv"))).blob();
    const link = ui.make("a", { href: URL.createObjectURL(content), download: "todos.csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
