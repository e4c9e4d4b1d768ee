export function register(ui) {
  const bar = ui.make("progress", { max: 100 });
  const text = ui.make("span");
  ui.panel(ui.make("div", { className: "progress" }, bar, text));
  ui.onRefresh(async () => {
    const { total, done, percent } = await ui.call("GET", "/api/statistics");
    bar.value = percent;
    text.textContent = `${done} of ${total} done, ${percent} %`;
  });
}
