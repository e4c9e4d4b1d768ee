// Keys belong to the panel as soon as it is drawn, without a click first.
addEventListener("DOMContentLoaded", () => {
  const drawn = new MutationObserver(() => {
    if (document.body.classList.contains("-first-byte")) {
      document.querySelector(".xterm-helper-textarea")?.focus();
      drawn.disconnect();
    }
  });
  drawn.observe(document.body, { attributeFilter: ["class"] });
});
