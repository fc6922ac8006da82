// What the modules of all widgets share. An ES module here cannot import another: `source` in window.py puts this first.
const NO_VALUE = "–";
const FORM_TAGS = ["button", "input", "select", "summary", "textarea"];

/**
 * Make an element: `make("button.wb-stop", "Stop", { onclick: stop })`. Strings are text whatever they say, objects are
 * attributes, properties, variables (--x) and listeners, null and false add nothing. Controls and what can have the focus
 * keep their keys from the notebook's shortcuts.
 */
function make(what, ...parts) {
  const [tag, ...classes] = what.split("."), node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  if (tag === "button") node.type = "button";
  if (FORM_TAGS.includes(tag)) node.dataset.lmSuppressShortcuts = "true";
  for (const part of parts.flat(Infinity)) {
    if (part === null || part === undefined || part === false) continue;
    if (part instanceof Node || typeof part !== "object") node.append(part);
    else change(node, part);
  }
  return node;
}

function change(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
    if (name === "tabIndex") node.dataset.lmSuppressShortcuts = "true";
  }
}

/** A control with its name before it. */
const field = (name, ...nodes) => make("label.wb-field", make("span", name), nodes);

function chooser(css, options, choose) {
  return make(`select.${css}`, options.map(([value, said]) => new Option(said, value)), { onchange: (event) => choose(event.target.value) });
}

/** The headings of a table, each [text, class]; one without text is an empty cell. */
const headRow = (heads) => make("thead", make("tr", heads.map(([name, css]) => (name ? make("th", name, { class: css, scope: "col" }) : make("td")))));

/** A quantity's levels, each [class, what it says]. */
const swatches = (levels) => make("span", levels.map(([css, said]) => make("span", said, { class: `wb-swatch ${css}` })));

/** The line that shows Python's errors, as text; it empties itself at the next success. */
function alertLine(model) {
  const line = make("p.wb-alert", { role: "alert" });
  const say = () => {
    line.textContent = model.get("error");
    line.hidden = !line.textContent;
  };
  model.on("change:error", say);
  say();
  return line;
}

let wishes = 0;

/** Ask Python for something: the same wish twice is two wishes. */
function wish(model, what) {
  model.set("asked", { ...what, n: `${Date.now()} ${++wishes}` });
  model.save_changes();
}

/** Call listeners of the model now and at every change; return what ends it. */
function follow(model, listeners) {
  for (const [name, listener] of Object.entries(listeners)) {
    model.on(`change:${name}`, listener);
    listener();
  }
  return () => { for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener); };
}

const plainKey = (event) => !(event.ctrlKey || event.metaKey || event.altKey);

function consume(event) {
  event.preventDefault();
  event.stopPropagation();
}

/** Let one of `items` take Tab. */
function rove(items, to) {
  for (const item of items) item.tabIndex = item === to ? 0 : -1;
}

/**
 * Let arrow keys walk through the items of a list, tree or grid, of which one takes Tab; Enter or a click opens one.
 * `next(key, i)` may say where a key leads.
 */
function walk(root, items, open, next = () => undefined) {
  const itemOf = (event) => items.find((item) => item.contains(event.target));
  root.addEventListener("click", (event) => {
    const item = itemOf(event);
    if (!item) return;
    rove(items, item);
    item.focus();
    open(item);
  });
  root.addEventListener("keydown", (event) => {
    const there = items.filter((item) => !item.hidden), i = there.indexOf(itemOf(event));
    if (i < 0 || !plainKey(event)) return;
    const to = next(event.key, i) ?? { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: there.length - 1 }[event.key];
    if (to !== undefined) {
      const item = there[Math.max(0, Math.min(there.length - 1, to))];
      rove(items, item);
      item.focus();
    } else if (event.key === "Enter" || event.key === " ") open(there[i]);
    else return;
    consume(event);
  });
}

/** Say a number as `number` of workbench/display/views/view.py does: about three digits, a true minus, a dash for none. */
function numberText(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NO_VALUE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e-4 && size < 1e6) {
    const order = Math.floor(Math.log10(size));
    let places = size >= 1 ? Math.max(0, digits - 1 - order) : digits;
    if (size < 0.01) places = Math.max(digits + 1, -order);
    return (value < 0 ? "−" : "") + grouped(size.toFixed(places));
  }
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${mantissa}e${Number(exponent)}`.replaceAll("-", "−");
}

const wholeText = (value) => grouped(String(value));

/** Put a comma before every third digit of the whole part. */
function grouped(digits) {
  const [whole, rest] = digits.split(".");
  const said = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return rest === undefined ? said : `${said}.${rest}`;
}

/** Render a view into a section; the static form shows as long as nothing is drawn. */
function mount(View, css, name) {
  return ({ model, el }) => {
    const root = make(`section.wb.${css}.mathjax_ignore.tex2jax_ignore`, { "aria-label": name });
    el.append(root);
    try {
      const view = new View(model, root);
      return () => view.stop();
    } catch (error) {
      root.remove();
      throw error;
    }
  };
}
