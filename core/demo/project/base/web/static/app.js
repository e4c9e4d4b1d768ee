// The page: asks its server where the API is, loads the features, draws the list.
// A feature exports register(ui) and uses nothing but the functions of `ui`.

const config = await (await fetch("/config.json", { cache: "no-store" })).json();
const $ = (id) => document.getElementById(id);

const fields = [];
const badges = [];
const filters = [];
const orders = [];
const listeners = [];
let todos = [];

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const ui = {
  make,
  url: (path) => config.api + path,
  todos: () => todos,
  banner(text) {
    $("banner").textContent = text;
    $("banner").hidden = !text;
  },
  // A field of the form; `read` turns the control's value into the API's.
  field(name, label, control, read) {
    control.name = name;
    $("fields").append(make("label", {}, label, control));
    fields.push({ name, control, read });
  },
  tool(label, title, act) {
    const button = make("button", { type: "button", textContent: label, title, onclick: act });
    $("tools").append(button);
    return button;
  },
  panel(element) {
    $("panels").append(element);
    return element;
  },
  // badge(todo) returns the text of a badge, {text, alert}, a list of them, or nothing.
  badge: (badge) => badges.push(badge),
  filter: (filter) => filters.push(filter),
  order: (order) => orders.push(order),
  onRefresh: (listener) => listeners.push(listener),
  draw,
  async call(method, path, body) {
    const options = { method };
    if (body !== undefined) {
      options.headers = { "Content-Type": "application/json" };
      options.body = JSON.stringify(body);
    }
    const answer = await fetch(config.api + path, options);
    const result = await answer.json();
    if (!answer.ok) throw new Error(result.error);
    return result;
  },
  async refresh() {
    todos = await ui.call("GET", "/api/todos");
    draw();
    for (const listener of listeners) await listener(todos);
  },
  // Do it, then show what has become of the list; a refusal becomes the banner and false.
  async change(method, path, body) {
    let refusal = "";
    try {
      await ui.call(method, path, body);
    } catch (error) {
      refusal = error.message;
    }
    ui.banner(refusal);
    await ui.refresh();
    return !refusal;
  },
};

function draw() {
  const shown = todos.filter((todo) => filters.every((filter) => filter(todo)));
  for (const order of orders) shown.sort(order);
  $("todos").replaceChildren(...shown.map(row));
  $("empty").hidden = shown.length > 0;
}

function row(todo) {
  const path = `/api/todos/${todo.id}`;
  const box = make("input", { type: "checkbox", checked: todo.done, ariaLabel: "done" });
  box.onchange = () => ui.change("PATCH", path, { done: box.checked });
  const remove = make("button", { type: "button", textContent: "✕", title: "Delete" });
  remove.onclick = () => ui.change("DELETE", path);
  const marks = badges.flatMap((badge) => badge(todo) || []).map((mark) =>
    make("span", {
      className: mark.alert ? "badge alert" : "badge",
      textContent: mark.text ?? mark,
    }));
  const item = make("li", { className: todo.done ? "done" : "" },
    box, make("span", { className: "title", textContent: todo.title }), ...marks, remove);
  item.dataset.id = todo.id;
  return item;
}

$("add").onsubmit = async (event) => {
  event.preventDefault();
  const todo = { title: event.target.elements.title.value };
  for (const { name, control, read } of fields) todo[name] = read(control.value);
  const form = event.target;
  form.reset();
  form.elements.title.focus();
  if (!(await ui.change("POST", "/api/todos", todo))) form.elements.title.value = todo.title;
};

$("where").textContent = config.agent ? `agent ${config.agent} · API ${config.api}` : `API ${config.api}`;
for (const path of config.styles) {
  document.head.append(make("link", { rel: "stylesheet", href: path }));
}
for (const path of config.modules) {
  (await import(path)).register(ui);
}
await ui.refresh();
