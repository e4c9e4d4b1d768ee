// The token comes behind the `#` of the address, which no server is sent, and stays with
// this page's own host and port: cookies would go to every port of the host, agents' included.
if (location.hash) {
  const [given, project] = location.hash.slice(1).split("/", 2);
  sessionStorage.setItem("token", given);
  sessionStorage.setItem("project", decodeURIComponent(project ?? ""));
  history.replaceState(null, "", location.pathname + location.search);
}
const token = sessionStorage.getItem("token");
// Another address pasted over this one differs only behind the `#`.
addEventListener("hashchange", () => location.reload());

const terminal = document.querySelector("#terminal");
const told = document.querySelector("#told span");

if (token) {
  document.title = `autocoder ${sessionStorage.getItem("project")}`;
  terminal.dataset.sessionWebsocketUrl = `ws://${location.host}/ws/${encodeURIComponent(token)}`;
  terminal.classList.add("textual-terminal");
} else {
  told.textContent = "Open the address that the panel named at its start, with all behind its #.";
  document.body.classList.add("-closed");
}

new MutationObserver(() => {
  const { classList } = document.body;
  if (classList.contains("-first-byte")) {
    // Keys belong to the panel as soon as it is drawn, without a click first.
    if (!classList.contains("-closed")) document.querySelector(".xterm-helper-textarea")?.focus();
    told.textContent = "This panel has ended; agents go on.";
  }
}).observe(document.body, { attributeFilter: ["class"] });
