// The bars above the text and the legend below it. Every control changes one field of the state and says what it is set to.
const MINIMUM_STEPS = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75];
const RATIO_STEPS = [1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000];

/** A slider over `steps`: a value between two steps is shown at the nearer one. `said` puts a value in words. */
function slider(css, name, steps, said, moved) {
  const output = make("output"), input = make(`input.${css}`, {
    "aria-label": name, type: "range", min: 0, max: steps.length - 1, step: 1, disabled: steps.length < 2,
    oninput: () => moved(steps[Number(input.value)]),
  });
  const show = (value) => {
    let best = 0;
    steps.forEach((step, i) => { if (Math.abs(step - value) < Math.abs(steps[best] - value)) best = i; });
    input.value = best;
    output.textContent = said(value);
    input.setAttribute("aria-valuetext", said(value));
  };
  return { input, output, show };
}

function numberField(css, name, [min, max, step], moved) {
  const take = () => { if (input.value !== "") moved(Number(input.value)); };
  const input = make(`input.${css}`, { "aria-label": name, type: "number", min, max, step, onchange: take });
  input.addEventListener("keydown", (event) => { // JupyterLab takes Enter before the field can tell of its change
    event.stopPropagation();
    if (event.key === "Enter") take();
  });
  return input;
}

/** Make the bars. `reach()` gives the last position, `set(patch)` changes the state, `step(n)` goes to the next match.
    Returns what the page puts where, and `show(facts)`, which brings every control in line. */
function makeControls(lens, { reach, set, step }) {
  const names = new Map(lens.responses), listed = (order) => (order ?? lens.responses.map(([r]) => r)).map((r) => [r, names.get(r)]);
  let order = lens.orders[0]?.[1] ?? lens.responses.map(([r]) => r);
  const response = chooser("wb-response", listed(order), (r) => set({ response: Number(r) }));
  const sort = chooser("wb-order", lens.orders.map(([title], i) => [i, title]), (i) => {
    order = lens.orders[i][1];
    const now = response.value;
    response.replaceChildren(...listed(order).map(([value, text]) => new Option(text, value)));
    response.value = now;
    set({ response: order[0] });
  });
  const turn = (css, sign, name, by) => make(`button.${css}`, sign, { "aria-label": name, onclick: () => {
    const at = order.indexOf(Number(response.value));
    set({ response: order[(at + by + order.length) % order.length] });
  } });
  const place = make("span.wb-of.wb-soft");
  const fill = chooser("wb-fill", lens.quantities.map((q) => [q.name, q.title]), (quantity) => set({ quantity }));
  const unit = chooser("wb-granularity", ["token", "word", "sentence"].map((name) => [name, name]), (granularity) => set({ granularity }));
  const mean = field("mean over a", unit);
  const top = make("div.wb-bar1", { role: "group", "aria-label": "What is shown" },
    lens.responses.length > 1 && (!lens.sealed || lens.orders.length) && [turn("wb-before", "‹", "previous response", -1),
      field("Response", response), turn("wb-after", "›", "next response", 1), place],
    lens.orders.length > 0 && field("Order", sort), field("Fill", fill), !lens.sealed && mean,
    lens.left_out > 0 && make("span.wb-soft", `${lens.left_out.toLocaleString("en")} more responses are in the run's records, not in this page.`));
  const range = () => {
    const low = Number(from.value) || 1, high = Number(to.value) || reach(); // the two in either order
    set({ span: [Math.max(1, Math.min(low, high)), Math.min(reach(), Math.max(low, high))] });
  };
  const from = numberField("wb-from", "first selected position", [1, 1, 1], range);
  const to = numberField("wb-to", "last selected position", [1, 1, 1], range);
  const all = make("button.wb-all", "all", { "aria-label": "select no positions in particular", onclick: () => set({ span: null }) });

  const ks = Array.from({ length: Math.max(1, lens.stored_k) }, (_, i) => i + 1);
  const sliders = {
    "p(base)": slider("wb-minimum-base", "least p(base) of an alternative that counts", MINIMUM_STEPS,
      (x) => (x ? `≥ ${x}` : "any"), (x) => set({ minimum_base: x }, true)),
    "p(base) / p(aligned)": slider("wb-ratio", "least ratio p(base) / p(aligned) of an alternative that counts", RATIO_STEPS,
      (x) => `> ${x}`, (x) => set({ ratio: x }, true)),
    likeliest: slider("wb-top-k", "among how many of either model's likeliest an alternative must be", ks,
      (k) => (k >= lens.stored_k ? `all ${lens.stored_k} stored` : `top ${k}`), (k) => set({ top_k: k >= lens.stored_k ? null : k }, true)),
  };
  const only = make("input.wb-only-sampled", { type: "checkbox", onchange: () => set({ only_sampled: only.checked }) });
  const temperature = numberField("wb-temperature", "temperature of the sampler", [0, 100, 0.1], (x) => set({ temperature: x }));
  const topP = numberField("wb-top-p", "top-p of the sampler", [0.01, 1, 0.05], (x) => set({ top_p: x }));
  const sampler = make("span.wb-sampler", field("temperature", temperature), field("top-p", topP));
  const bar = make("div.wb-bar2", { role: "group", "aria-label": "Which alternatives count as base-favored" },
    make("span.wb-bar-name", "Alternatives that count"), Object.entries(sliders).map(([name, { input, output }]) => field(name, input, output)),
    make("label.wb-field.wb-check", only, make("span", "only what aligned could sample")), sampler);
  const counted = make("p.wb-counted.wb-soft", { role: "status" });
  const tally = make("div.wb-tally", counted, make("span.wb-field", make("span", "Positions"), from, make("span", "to"), to, all));

  let typing = null;
  const look = () => { clearTimeout(typing); set({ search: search.value }, true); };
  const search = make("input.wb-search", {
    type: "search", spellcheck: false, autocomplete: "off", placeholder: "base p > 0.3 and aligned p < 0.05", maxLength: 500,
    oninput: () => { clearTimeout(typing); typing = setTimeout(look, 150); },
    onkeydown: (event) => {
      event.stopPropagation();
      if (event.key === "Enter") { look(); step(event.shiftKey ? -1 : 1, true); }
      if (event.key === "Escape" && search.value) { search.value = ""; look(); event.preventDefault(); }
    },
  });
  const error = make("p.wb-search-error", { id: `wb-error-${Math.random().toString(36).slice(2)}`, role: "alert" });
  const arrow = (css, sign, name, by) => make(`button.${css}`, sign, { "aria-label": name, onclick: () => step(by) });
  const arrows = [arrow("wb-previous", "‹", "previous match", -1), arrow("wb-next", "›", "next match", 1)];
  const found = make("span.wb-found.wb-soft", { role: "status" });
  const words = make("details.wb-words", make("summary", "what can be asked"),
    make("p.wb-note", `Values: ${Object.keys(lens.search_words).join(", ")}. Compare with > >= < <= = !=, join with and, or, not and brackets. ` +
      "Also base-favored, special, partial, given, and text contains \"…\" or text is \"…\"; a text in quotes alone is searched for."));
  const find = make("div.wb-bar3", { role: "search", "aria-label": "Tokens" }, field("Search", search), arrows, found, words, error);

  const show = (facts) => {
    const { state } = facts;
    response.value = String(state.response);
    place.textContent = `${order.indexOf(state.response) + 1} of ${order.length}`;
    fill.value = state.quantity;
    unit.value = state.granularity;
    unit.disabled = facts.covered;
    from.max = to.max = facts.reach;
    from.value = state.span ? state.span[0] : 1;
    to.value = state.span ? state.span[1] : facts.reach;
    all.disabled = !state.span;
    const values = [state.minimum_base, state.ratio, state.top_k ?? lens.stored_k];
    Object.values(sliders).forEach((made, i) => made.show(values[i]));
    only.checked = state.only_sampled;
    sampler.hidden = !state.only_sampled;
    temperature.value = state.temperature;
    topP.value = state.top_p;
    if (document.activeElement !== search) search.value = state.search;
    error.textContent = facts.searchError;
    error.hidden = !facts.searchError;
    search.setAttribute("aria-invalid", String(Boolean(facts.searchError)));
    if (facts.searchError) search.setAttribute("aria-describedby", error.id);
    else search.removeAttribute("aria-describedby");
    found.textContent = facts.found;
    for (const button of arrows) button.disabled = !facts.matching;
    counted.textContent = facts.counted;
  };
  return { top, bar, tally, find, mean, show };
}

/** Show a quantity's scale, and every sign of the text with what it means. */
function makeLegend(lens, quantity, { granularity, several }) {
  const mean = granularity === "token" ? "" : `, mean over each ${granularity}`;
  const units = { word: "tokens up to the next space or line break", sentence: "tokens up to . ! ? before a space, or a line break" };
  const signs = signList([
    ...lens.signs,
    ["wb-t wb-dim", "soft", "no stored alternative counts here under the thresholds"],
    ["wb-t wb-given", "dotted below", "given, not generated; ▸ marks where a model continues"],
    ["wb-t wb-match", "dashed frame", "matches the search"],
    ["wb-t wb-in", "line above", "in the selected positions"],
    ["wb-t wb-here", "framed", "the current token"],
    ["wb-t wb-pinned", "thick frame", "pinned: compared below the text"],
    ["wb-t wb-special", "boxed", "a special token, written out"],
    ["wb-break", "", "a line break in the text; where a line ends without it, it only wraps"],
    ["wb-tok", "·⇥⟨U+200B⟩", "in cards: a space, a tab, an invisible character by its number"],
    several
      ? ["wb-soft", "11", "left of a row: the position it begins with; every row has ten"]
      : ["wb-soft", "10", "small number above a token: its position; row t is the distribution that predicted token t"],
    ["wb-soft", "strip", "above the text: the quantity along all positions, below it how many alternatives count; drag selects positions"],
    ...(granularity === "token" ? [] : [["wb-soft", granularity, units[granularity]]]),
  ]);
  return make("div.wb-legends",
    make("div.wb-legend", make("b", quantity.title + mean), swatches(quantity.levels.map(([, ...level]) => level))),
    make("p.wb-note.wb-soft", quantity.means),
    make("details", make("summary", "Signs, keys and how to read this"), signs,
      make("p.wb-note", "Keys: arrows move from token to token and line to line, Home and End to the ends, Page keys by 50; Enter pins, Esc closes or unpins; " +
        `n and p go to the next and previous match; with Shift, arrows select positions.${several ? " c goes to the same position of the next response." : ""}`),
      make("p.wb-note", lens.reading)));
}
