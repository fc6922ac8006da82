// The panel's controls, heat map and prompt list. What the page wants goes to Python as `asked`; what is selected comes
// back as `state`. Text is set as text.
let asks = 0;

const made = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

/** A control that takes the keyboard: the notebook's own shortcuts leave it alone. */
const control = (node, name) => {
  node.dataset.lmSuppressShortcuts = "true";
  if (name) node.setAttribute("aria-label", name);
  return node;
};

const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : Number(value).toPrecision(digits).replace("-", "−");

function labelled(text, field) {
  const label = made("label", "wb-field", text + " ");
  label.append(field);
  return label;
}

/** Move focus among `items` of which one takes Tab. */
function rove(items, to) {
  for (const item of items) if (item.tabIndex === 0) item.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

function drawBar(model, ask) {
  const panel = model.get("panel");
  const bar = made("div", "wb-tools");
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Curves and positions");
  const quantity = control(made("select", "wb-quantity"));
  for (const [name, title] of panel.quantities) quantity.append(new Option(title, name));
  quantity.addEventListener("change", () => ask({ do: "quantity", quantity: quantity.value }));
  bar.append(labelled("Curve", quantity));
  const prefix = control(made("select", "wb-prefix"));
  if (panel.prefixes.length > 1) {
    for (const k of panel.prefixes) prefix.append(new Option(k, k));
    prefix.addEventListener("change", () => ask({ do: "prefix", prefix: Number(prefix.value) }));
    bar.append(labelled("after given tokens", prefix));
  }
  const [from, to] = ["from", "to"].map((name) => {
    const field = control(made("input", `wb-${name}`));
    field.type = "number";
    field.min = field.step = 1;
    return field;
  });
  const send = (moved) => {
    moved.typed = false;
    const { last } = model.get("state");
    const [start, end] = [from, to].map((field, i) => Math.min(Math.max(Math.round(Number(field.value)) || [1, last][i], 1), last));
    // the other end follows, so that a person can type either one first
    ask({ do: "span", from: moved === to ? Math.min(start, end) : start, to: moved === from ? Math.max(start, end) : end });
  };
  for (const field of [from, to]) {
    field.addEventListener("input", () => { field.typed = true; });
    field.addEventListener("change", () => send(field));
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      field.blur(); // which is what sends it: the notebook takes Enter otherwise
      field.focus();
      event.preventDefault();
      event.stopPropagation();
    });
  }
  const all = control(made("button", "wb-all", "all positions"));
  all.type = "button";
  all.addEventListener("click", () => ask({ do: "all" }));
  const span = made("span", "wb-span");
  span.setAttribute("role", "group");
  span.setAttribute("aria-label", "Selected positions");
  span.append(labelled("Positions", from), labelled("to", to), all);
  bar.append(span);
  const show = () => {
    const state = model.get("state");
    quantity.value = state.quantity;
    if (panel.prefixes.length > 1) prefix.value = String(state.prefix);
    from.max = to.max = state.last;
    if (!from.typed) from.value = state.span ? state.span[0] : 1; // what is being typed is left alone
    if (!to.typed) to.value = state.span ? state.span[1] : state.last;
    all.disabled = !state.span;
  };
  return [bar, show];
}

function drawHeat(model, ask) {
  const heat = model.get("panel").heat;
  if (!heat) return [null, () => {}];
  const box = made("div", "wb-heat");
  box.append(made("p", "wb-title", "Retention by position and given tokens"));
  const where = made("p", "wb-soft wb-where");
  const hint = `Mean over ${heat.condition} prompts; 1 means that aligned still is base. Choose a cell to read the text there.`;
  where.textContent = hint;
  const scroll = made("div", "wb-scroll");
  const table = made("table", "wb-cells");
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", `Retention by position (columns) and given tokens (rows), ${heat.condition} prompts`);
  const head = table.createTHead().insertRow();
  const corner = made("th", "wb-corner", "given tokens");
  corner.scope = "col";
  head.append(corner);
  for (const p of heat.positions) {
    const th = made("th", "", p === 1 || p % 5 === 0 ? String(p) : "");
    th.scope = "col";
    if (!th.textContent) th.setAttribute("aria-label", `position ${p}`);
    head.append(th);
  }
  const body = table.createTBody();
  const rows = heat.prefixes.map((k, i) => {
    const row = body.insertRow();
    const th = made("th", "", String(k));
    th.scope = "row";
    row.append(th);
    return heat.positions.map((p, j) => {
      const value = heat.value[i][j], n = heat.n[i][j];
      const cell = row.insertCell();
      cell.setAttribute("role", "gridcell");
      cell.dataset.prefix = k;
      cell.dataset.position = p;
      cell.className = heat.css[i][j];
      if (p <= k) cell.classList.add("wb-fed");
      if (p === k + 1 && k > 0) cell.classList.add("wb-step");
      if (value === null) {
        cell.classList.add("wb-none");
        control(cell, `position ${p}, ${k} given tokens: no data`);
      } else {
        cell.textContent = value >= 0.995 ? "1" : String(Math.floor(value * 100)).padStart(2, "0");
        control(cell, `position ${p}, ${k} given tokens${p <= k ? ", given" : ""}: retention ${number(value)}, n = ${n}`);
      }
      cell.tabIndex = -1;
      return cell;
    });
  });
  const first = rows.flat().find((cell) => !cell.classList.contains("wb-none"));
  if (first) first.tabIndex = 0;
  const cellOf = (event) => event.target instanceof Element && event.target.closest("td");
  const open = (cell) => {
    if (cell.classList.contains("wb-none")) return;
    ask({ do: "cell", prefix: Number(cell.dataset.prefix), position: Number(cell.dataset.position) });
  };
  const tell = (cell) => { where.textContent = cell ? cell.getAttribute("aria-label") : hint; };
  table.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    rove(rows.flat(), cell);
    open(cell);
  });
  table.addEventListener("mouseover", (event) => tell(cellOf(event)));
  table.addEventListener("mouseleave", () => tell(null));
  table.addEventListener("focusin", (event) => tell(cellOf(event)));
  table.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    const i = rows.findIndex((row) => row.includes(cell)), j = rows[i].indexOf(cell);
    const width = rows[i].length;
    const to = {
      ArrowRight: [i, j + 1], ArrowLeft: [i, j - 1], ArrowDown: [i + 1, j], ArrowUp: [i - 1, j], Home: [i, 0], End: [i, width - 1],
    }[event.key];
    if (to) rove(rows.flat(), rows[Math.max(0, Math.min(rows.length - 1, to[0]))][Math.max(0, Math.min(width - 1, to[1]))]);
    else if (event.key === "Enter" || event.key === " ") open(cell);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  scroll.append(table);
  const key = made("p", "wb-legend");
  key.append(made("span", "wb-soft", "retention in hundredths, 1 is all of it:"));
  const swatches = made("span");
  for (const [css, said] of heat.legend) swatches.append(made("span", `wb-swatch ${css}`, said));
  key.append(swatches, made("span", "wb-soft", "dotted: given tokens; right of the line aligned continues"));
  const reading = "Where aligned is nearly certain of the next token (see the entropy curve) a retention near 1 means nothing.";
  box.append(where, scroll, key, made("p", "wb-soft", reading));
  const show = () => {
    const { span, position, opened_prefix } = model.get("state");
    rows.forEach((row, i) => row.forEach((cell, j) => {
      const p = heat.positions[j], here = p === position && heat.prefixes[i] === opened_prefix;
      cell.setAttribute("aria-selected", String(here));
      cell.classList.toggle("wb-in", Boolean(span) && p >= span[0] && p <= span[1]);
    }));
  };
  return [box, show];
}

function drawPrompts(model, ask) {
  const prompts = model.get("panel").prompts;
  const box = made("div", "wb-prompts");
  box.append(made("p", "wb-title", "Prompts on which the models differ most"));
  const labels = [...new Set(prompts.map((p) => p.label))];
  const filter = control(made("select", "wb-filter"));
  filter.append(new Option("all labels", ""));
  for (const label of labels) filter.append(new Option(label, label));
  const said = made("p", "wb-soft", "Ranked by KL(aligned ‖ base), mean over the response's tokens, nats. Choose one to read its response. ");
  if (labels.length > 1) said.append(labelled("Show", filter));
  const head = made("div", "wb-row wb-head");
  head.setAttribute("aria-hidden", "true");
  for (const name of ["", "prompts", "prompt", "given", "tokens, n", "mean KL", "peak KL", "text at the peak"]) head.append(made("span", "", name));
  const list = made("div", "wb-options");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Prompts ranked by divergence");
  const options = prompts.map((p) => {
    const option = made("div", "wb-row");
    option.setAttribute("role", "option");
    option.dataset.response = p.response;
    option.tabIndex = -1;
    control(option, `${p.rank}, ${p.label}: ${p.prompt}; ${p.prefix_tokens} given tokens, mean KL ${number(p.mean_kl_nats)} nats ` +
      `over ${p.tokens} tokens, peak ${number(p.peak_kl_nats)} nats at position ${p.peak_position}`);
    const tag = made("span");
    tag.append(made("span", `wb-tag wb-${p.label}`, p.label));
    option.append(
      made("span", "n", String(p.rank)), tag, made("span", "wb-asked", p.prompt), made("span", "n", String(p.prefix_tokens)),
      made("span", "n", String(p.tokens)), made("span", "n", number(p.mean_kl_nats)), made("span", "n", `${number(p.peak_kl_nats)} at ${p.peak_position}`),
      made("span", "wb-around", p.around),
    );
    list.append(option);
    return option;
  });
  if (options[0]) options[0].tabIndex = 0;
  const open = (option) => {
    const p = prompts[options.indexOf(option)];
    ask({ do: "open", response: p.response, position: p.peak_position });
  };
  const optionOf = (event) => event.target instanceof Element && event.target.closest("[role=option]");
  list.addEventListener("click", (event) => {
    const option = optionOf(event);
    if (!option) return;
    rove(options, option);
    open(option);
  });
  list.addEventListener("keydown", (event) => {
    const option = optionOf(event);
    if (!option) return;
    const there = options.filter((o) => !o.hidden), at = there.indexOf(option);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: there.length - 1 }[event.key];
    if (to !== undefined) rove(options, there[Math.max(0, Math.min(there.length - 1, to))]);
    else if (event.key === "Enter" || event.key === " ") open(option);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  filter.addEventListener("change", () => {
    prompts.forEach((p, i) => { options[i].hidden = Boolean(filter.value) && p.label !== filter.value; });
    const there = options.filter((o) => !o.hidden);
    if (!there.some((o) => o.tabIndex === 0)) {
      for (const o of options) o.tabIndex = -1;
      if (there[0]) there[0].tabIndex = 0;
    }
  });
  const table = made("div", "wb-list");
  table.append(head, list);
  box.append(said, table);
  const show = () => {
    const { response } = model.get("state");
    for (const option of options) option.setAttribute("aria-selected", String(Number(option.dataset.response) === response));
  };
  return [box, show];
}

function render({ model, el }) {
  const root = made("section", "wb wb-linked");
  root.setAttribute("aria-label", "Curves, heat map and prompts");
  const ask = (what) => {
    model.set("asked", { ...what, n: `${Date.now()} ${++asks}` }); // the same wish twice is two wishes
    model.save_changes();
  };
  const parts = [drawBar, drawHeat, drawPrompts].map((draw) => draw(model, ask));
  root.append(parts[0][0]);
  root.append(made("p", "wb-soft wb-hint", "Drag over the curves to select positions in the text; select in the text to mark the curves."));
  addAlert(model, root);
  for (const [part] of parts.slice(1)) if (part) root.append(part);
  const show = () => { for (const [, update] of parts) update(); };
  model.on("change:state", show);
  show();
  el.append(root);
  ask({ do: "hello" });
  // plotly fits its figure to the place it has when the window changes, and this place changes without it
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2) return;
    width = root.clientWidth;
    dispatchEvent(new Event("resize"));
  });
  observer.observe(root);
  return () => { model.off("change:state", show); observer.disconnect(); };
}

export default { render };
