export function register(ui) {
  let chosen = -1;
  const rows = () => [...document.querySelectorAll("#todos li")];
  const choose = (index) => {
    chosen = Math.max(0, Math.min(index, rows().length - 1));
    rows().forEach((row, i) => row.classList.toggle("chosen", i === chosen));
    rows()[chosen]?.scrollIntoView({ block: "nearest" });
  };
  const press = (selector) => rows()[chosen]?.querySelector(selector).click();
  const help = async () => {
    const keys = await ui.call("GET", "/api/shortcuts");
    ui.banner(Object.entries(keys).map(([key, meaning]) => `${key} ${meaning}`).join(" · "));
  };
  const acts = {
    n: () => document.querySelector("#add input").focus(),
    j: () => choose(chosen + 1),
    k: () => choose(chosen - 1),
    x: () => press("input"),
    d: () => press("button"),
    "?": help,
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
  ui.onRefresh(() => chosen >= 0 && choose(chosen));
  ui.tool("?", "Show the keys", help);
}
