export function register(ui) {
  const show = ({ theme }) => { document.documentElement.dataset.theme = theme; };
  const other = () => (document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  ui.tool("◐", "Light or dark", async () => show(await ui.call("PUT", "/api/theme", { theme: other() })));
  ui.call("GET", "/api/theme").then(show);
}
