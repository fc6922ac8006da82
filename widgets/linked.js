// The panel's controls, heat map and prompt list. What the page wants goes to Python as `asked`; what is selected comes
// back as `state`.

function drawBar(model, ask) {
  const { quantities, prefixes } = model.get("panel"), several = prefixes.length > 1;
  const quantity = chooser("wb-quantity", quantities, (name) => ask({ do: "quantity", quantity: name }));
  const prefix = chooser("wb-prefix", prefixes.map((k) => [k, k]), (k) => ask({ do: "prefix", prefix: Number(k) }));
  const send = (moved) => {
    moved.typed = false;
    const { last } = model.get("state");
    const [start, end] = [from, to].map((input, i) => Math.min(Math.max(Math.round(Number(input.value)) || [1, last][i], 1), last));
    // the other end follows, so that a person can type either one first
    ask({ do: "span", from: moved === to ? Math.min(start, end) : start, to: moved === from ? Math.max(start, end) : end });
  };
  const [from, to] = ["from", "to"].map((name) => make(`input.wb-${name}`, {
    type: "number", min: 1, step: 1,
    oninput: (event) => { event.target.typed = true; },
    onchange: (event) => send(event.target),
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.target.blur(); // which is what sends it: the notebook takes Enter otherwise
      event.target.focus();
      consume(event);
    },
  }));
  const all = make("button.wb-all", "all positions", { onclick: () => ask({ do: "all" }) });
  const bar = make("div.wb-tools", { role: "group", "aria-label": "Curves and positions" }, field("Curve", quantity),
    several && field("after given tokens", prefix),
    make("span.wb-span", { role: "group", "aria-label": "Selected positions" }, field("Positions", from), field("to", to), all));
  const show = (state) => {
    quantity.value = state.quantity;
    if (several) prefix.value = String(state.prefix);
    from.max = to.max = state.last;
    if (!from.typed) from.value = state.span ? state.span[0] : 1; // what is being typed is left alone
    if (!to.typed) to.value = state.span ? state.span[1] : state.last;
    all.disabled = !state.span;
  };
  return [bar, show];
}

function drawHeat(model, ask) {
  const { heat } = model.get("panel");
  if (!heat) return [null, () => {}];
  const hint = `Mean over ${heat.label} prompts; 1 means that aligned still is base. Choose a cell to read the text there.`;
  const where = make("p.wb-soft.wb-where", hint);
  const heads = heat.positions.map((p) => {
    const said = p === 1 || p % 5 === 0 ? String(p) : "";
    return make("th", said, { scope: "col", "aria-label": said ? null : `position ${p}` });
  });
  const rows = heat.prefixes.map((k, i) => heat.positions.map((p, j) => {
    const value = heat.value[i][j], name = `position ${p}, ${k} given tokens`;
    const cell = make("td", { role: "gridcell", "data-prefix": k, "data-position": p, class: heat.css[i][j], tabIndex: -1 });
    cell.classList.toggle("wb-fed", p <= k);
    cell.classList.toggle("wb-step", p === k + 1 && k > 0);
    cell.classList.toggle("wb-none", value === null);
    if (value !== null) cell.append(value >= 0.995 ? "1" : String(Math.floor(value * 100)).padStart(2, "0"));
    const said = `${p <= k ? ", given" : ""}: retention ${numberText(value)}, n = ${heat.n[i][j]}`;
    cell.setAttribute("aria-label", name + (value === null ? ": no data" : said));
    return cell;
  }));
  const cells = rows.flat(), width = heat.positions.length, first = cells.find((cell) => !cell.classList.contains("wb-none"));
  if (first) first.tabIndex = 0;
  const tell = (event) => {
    const cell = event.target instanceof Element && event.target.closest("td");
    where.textContent = cell ? cell.getAttribute("aria-label") : hint;
  };
  const table = make("table.wb-cells", {
    role: "grid", "aria-label": `Retention by position (columns) and given tokens (rows), ${heat.label} prompts`,
    onmouseover: tell, onfocusin: tell, onmouseleave: () => { where.textContent = hint; },
  },
    make("thead", make("tr", make("th.wb-corner", "given tokens", { scope: "col" }), heads)),
    make("tbody", rows.map((row, i) => make("tr", make("th", heat.prefixes[i], { scope: "row" }), row))));
  const open = (cell) => {
    if (!cell.classList.contains("wb-none")) ask({ do: "cell", prefix: Number(cell.dataset.prefix), position: Number(cell.dataset.position) });
  };
  walk(table, cells, open, (key, i) => {
    const start = i - (i % width), end = start + width - 1;
    return {
      ArrowRight: Math.min(i + 1, end), ArrowLeft: Math.max(i - 1, start), Home: start, End: end,
      ArrowDown: i + width < cells.length ? i + width : i, ArrowUp: i < width ? i : i - width,
    }[key];
  });
  const box = make("div.wb-heat", make("p.wb-title", "Retention by position and given tokens"), where, make("div.wb-scroll", table),
    make("p.wb-legend", make("span.wb-soft", "retention in hundredths, 1 is all of it:"), swatches(heat.legend),
      make("span.wb-soft", "dotted: given tokens; right of the line aligned continues")),
    make("p.wb-soft", "Where aligned is nearly certain of the next token (see the entropy curve) a retention near 1 means nothing."));
  const show = ({ span, position, opened_prefix }) => {
    cells.forEach((cell, n) => {
      const p = heat.positions[n % width], here = p === position && heat.prefixes[Math.floor(n / width)] === opened_prefix;
      cell.setAttribute("aria-selected", String(here));
      cell.classList.toggle("wb-in", Boolean(span) && p >= span[0] && p <= span[1]);
    });
  };
  return [box, show];
}

function drawPrompts(model, ask) {
  const { prompts } = model.get("panel"), labels = [...new Set(prompts.map((p) => p.label))];
  const options = prompts.map((p, i) => make("div.wb-row", {
    role: "option", "data-response": p.response, tabIndex: i ? -1 : 0,
    "aria-label": `${p.rank}, ${p.label}: ${p.prompt}; ${p.prefix_tokens} given tokens, mean KL ${numberText(p.mean_kl_nats)} nats ` +
      `over ${p.tokens} tokens, peak ${numberText(p.peak_kl_nats)} nats at position ${p.peak_position}`,
  },
    make("span.n", p.rank), make("span", make(`span.wb-tag.wb-${p.label}`, p.label)), make("span.wb-asked", p.prompt), make("span.n", p.prefix_tokens),
    make("span.n", p.tokens), make("span.n", numberText(p.mean_kl_nats)), make("span.n", `${numberText(p.peak_kl_nats)} at ${p.peak_position}`),
    make("span.wb-around", p.around)));
  const filter = chooser("wb-filter", [["", "all labels"], ...labels.map((label) => [label, label])], (label) => {
    prompts.forEach((p, i) => { options[i].hidden = Boolean(label) && p.label !== label; });
    const there = options.filter((option) => !option.hidden);
    if (!there.some((option) => option.tabIndex === 0)) rove(options, there[0]);
  });
  const list = make("div.wb-options", { role: "listbox", "aria-label": "Prompts ranked by divergence" }, options);
  walk(list, options, (option) => {
    const p = prompts[options.indexOf(option)];
    ask({ do: "open", response: p.response, position: p.peak_position });
  });
  const heads = ["", "prompts", "prompt", "given", "tokens, n", "mean KL", "peak KL", "text at the peak"];
  const box = make("div.wb-prompts", make("p.wb-title", "Prompts on which the models differ most"),
    make("p.wb-soft", "Ranked by KL(aligned ‖ base), mean over the response's tokens, nats. Choose one to read its response. ",
      labels.length > 1 && field("Show", filter)),
    make("div.wb-list", make("div.wb-row.wb-head", { "aria-hidden": "true" }, heads.map((name) => make("span", name))), list));
  const show = ({ response }) => {
    for (const option of options) option.setAttribute("aria-selected", String(Number(option.dataset.response) === response));
  };
  return [box, show];
}

function render({ model, el }) {
  const ask = (what) => wish(model, what);
  const [bar, heat, list] = [drawBar, drawHeat, drawPrompts].map((draw) => draw(model, ask));
  const root = make("section.wb.wb-linked", { "aria-label": "Curves, heat map and prompts" }, bar[0],
    make("p.wb-soft.wb-hint", "Drag over the curves to select positions in the text; select in the text to mark the curves."),
    alertLine(model), heat[0], list[0]);
  const end = follow(model, { state: () => { for (const [, show] of [bar, heat, list]) show(model.get("state")); } });
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
  return () => { end(); observer.disconnect(); };
}

export default { render };
