// The bars above the text and the legend below it. Every control changes one field of the state and says what it is set to.
const MINIMUM_STEPS = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75];
const RATIO_STEPS = [1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100, 1000];

function field(text, node) {
  const label = make("label", "wb-field");
  label.append(make("span", "", text), node);
  return label;
}

function chooser(css, options, change) {
  const select = control(make("select", css));
  for (const [value, said] of options) select.append(new Option(said, value));
  select.addEventListener("change", () => change(select.value));
  return select;
}

/** A slider over `steps`: where the value lies between two, it stands at the nearer. `said` puts a value in words. */
function slider(css, name, steps, said, change) {
  const input = control(make("input", css), name), output = make("output");
  input.type = "range";
  input.min = 0;
  input.max = steps.length - 1;
  input.step = 1;
  const show = (value) => {
    let best = 0;
    steps.forEach((step, i) => { if (Math.abs(step - value) < Math.abs(steps[best] - value)) best = i; });
    input.value = best;
    output.textContent = said(value);
    input.setAttribute("aria-valuetext", said(value));
  };
  input.addEventListener("input", () => change(steps[Number(input.value)]));
  input.disabled = steps.length < 2;
  return { input, output, show };
}

function numberField(css, name, { min, max, step }, change) {
  const input = control(make("input", css), name);
  Object.assign(input, { type: "number", min, max, step });
  const take = () => { if (input.value !== "") change(Number(input.value)); };
  input.addEventListener("change", take);
  input.addEventListener("keydown", (event) => { // JupyterLab takes Enter before the field can tell of its change
    event.stopPropagation();
    if (event.key === "Enter") take();
  });
  return input;
}

/** Make the bars. `now()` gives the state, `set(patch)` changes it, `step(n)` goes to the next match. Returns what the page
    puts where, and `show(facts)`, which brings every control in line. */
function makeControls(lens, { now, set, step }) {
  const top = make("div", "wb-bar1");
  top.setAttribute("role", "group");
  top.setAttribute("aria-label", "What is shown");
  const response = chooser("wb-response", lens.responses.map(([r, said]) => [r, said]), (r) => set({ response: Number(r) }));
  if (lens.responses.length > 1 && !lens.sealed) top.append(field("Response", response));
  const fill = chooser("wb-fill", lens.quantities.map((q) => [q.name, q.title]), (quantity) => set({ quantity }));
  const unit = chooser("wb-granularity", [["token", "token"], ["word", "word"], ["sentence", "sentence"]], (granularity) => set({ granularity }));
  const reach = () => now().reach;
  const bounds = { min: 1, max: 1, step: 1 };
  const range = () => {
    const low = Number(from.value) || 1, high = Number(to.value) || reach(); // the two in either order
    set({ span: [Math.max(1, Math.min(low, high)), Math.min(reach(), Math.max(low, high))] });
  };
  const from = numberField("wb-from", "first selected position", bounds, range);
  const to = numberField("wb-to", "last selected position", bounds, range);
  const all = control(make("button", "wb-all", "all"), "select no positions in particular");
  all.type = "button";
  all.addEventListener("click", () => set({ span: null }));
  const span = make("span", "wb-field");
  span.append(make("span", "", "Positions"), from, make("span", "", "to"), to, all);
  top.append(field("Fill", fill), field("mean over a", unit));

  const bar = make("div", "wb-bar2");
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Which alternatives count as base-favored");
  const minimum = slider("wb-minimum-base", "least p(base) of an alternative that counts", MINIMUM_STEPS, (x) => (x ? `≥ ${x}` : "any"), (x) => set({ minimum_base: x }, true));
  const ratio = slider("wb-ratio", "least ratio p(base) / p(aligned) of an alternative that counts", RATIO_STEPS, (x) => `> ${x}`, (x) => set({ ratio: x }, true));
  const ks = Array.from({ length: Math.max(1, lens.stored_k) }, (_, i) => i + 1);
  const top_k = slider("wb-top-k", "among how many of either model's likeliest an alternative must be", ks, (k) => (k >= lens.stored_k ? `all ${lens.stored_k} stored` : `top ${k}`),
    (k) => set({ top_k: k >= lens.stored_k ? null : k }, true));
  bar.append(make("span", "wb-bar-name", "Alternatives that count"));
  for (const [name, made] of [["p(base)", minimum], ["p(base) / p(aligned)", ratio], ["likeliest", top_k]]) {
    const label = field(name, made.input);
    label.append(made.output);
    bar.append(label);
  }
  const only = control(make("input", "wb-only-sampled"));
  only.type = "checkbox";
  only.addEventListener("change", () => set({ only_sampled: only.checked }));
  const onlyField = make("label", "wb-field wb-check");
  onlyField.append(only, make("span", "", "only what aligned could sample"));
  const temperature = numberField("wb-temperature", "temperature of the sampler", { min: 0, max: 100, step: 0.1 }, (x) => set({ temperature: x }));
  const topP = numberField("wb-top-p", "top-p of the sampler", { min: 0.01, max: 1, step: 0.05 }, (x) => set({ top_p: x }));
  const sampler = make("span", "wb-sampler");
  sampler.append(field("temperature", temperature), field("top-p", topP));
  bar.append(onlyField, sampler);
  const counted = make("p", "wb-counted wb-soft");
  counted.setAttribute("role", "status");
  const tally = make("div", "wb-tally");
  tally.append(counted, span);

  const find = make("div", "wb-bar3");
  find.setAttribute("role", "search");
  find.setAttribute("aria-label", "Tokens");
  const search = control(make("input", "wb-search"));
  Object.assign(search, { type: "search", spellcheck: false, autocomplete: "off", placeholder: "base p > 0.3 and aligned p < 0.05", maxLength: 500 });
  const error = make("p", "wb-search-error");
  error.id = `wb-error-${Math.random().toString(36).slice(2)}`;
  error.setAttribute("role", "alert");
  const arrows = [["wb-previous", "‹", "previous match", -1], ["wb-next", "›", "next match", 1]].map(([css, sign, name, by]) => {
    const button = control(make("button", css, sign), name);
    button.type = "button";
    button.addEventListener("click", () => step(by));
    return button;
  });
  const found = make("span", "wb-found wb-soft");
  found.setAttribute("role", "status");
  let typing = null;
  const look = () => { clearTimeout(typing); set({ search: search.value }, true); };
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(look, 150); });
  search.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") { look(); step(event.shiftKey ? -1 : 1, true); }
    if (event.key === "Escape" && search.value) { search.value = ""; look(); event.preventDefault(); }
  });
  const words = make("details", "wb-words");
  words.append(control(make("summary", "", "what can be asked")));
  words.append(make("p", "wb-note", `Values: ${Object.keys(lens.search_words).join(", ")}. ` +
    "Compare with > >= < <= = !=, join with and, or, not and brackets. Also base-favored, special, partial, given, and text contains \"…\" or text is \"…\"; a text in quotes alone is searched for."));
  find.append(field("Search", search), ...arrows, found, words, error);

  const show = (facts) => {
    const { state } = facts;
    response.value = String(state.response);
    fill.value = state.quantity;
    unit.value = state.granularity;
    unit.disabled = facts.covered;
    from.max = to.max = facts.reach;
    from.value = state.span ? state.span[0] : 1;
    to.value = state.span ? state.span[1] : facts.reach;
    all.disabled = !state.span;
    minimum.show(state.minimum_base);
    ratio.show(state.ratio);
    top_k.show(state.top_k ?? lens.stored_k);
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
    for (const arrow of arrows) arrow.disabled = !facts.matching;
    counted.textContent = facts.counted;
  };
  return { top, bar, tally, find, show };
}

/** Show a quantity's scale, and every sign of the text with what it means. */
function makeLegend(lens, quantity, { granularity, several }) {
  const box = make("div", "wb-legends"), scale = make("div", "wb-legend");
  const mean = granularity === "token" ? "" : `, mean over each ${granularity}`;
  scale.append(make("b", "", `${quantity.title}${mean}`));
  const swatches = make("span");
  for (const [, css, said] of quantity.levels) swatches.append(make("span", `wb-swatch ${css}`, said));
  scale.append(swatches);
  box.append(scale, make("p", "wb-note wb-soft", quantity.means));
  const more = make("details"), list = make("dl", "wb-signs");
  more.append(control(make("summary", "", "Signs, keys and how to read this")));
  const sign = (css, sample, said) => {
    const dt = make("dt");
    dt.append(make("span", css, sample));
    list.append(dt, make("dd", "", said));
  };
  for (const [css, sample, said] of lens.signs) sign(css, sample, said);
  sign("wb-t wb-dim", "soft", "no stored alternative counts here under the thresholds");
  sign("wb-t wb-given", "dotted below", "given, not generated; ▸ marks where a model continues");
  sign("wb-t wb-match", "dashed frame", "matches the search");
  sign("wb-t wb-in", "line above", "in the selected positions");
  sign("wb-t wb-here", "framed", "the current token");
  sign("wb-t wb-pinned", "thick frame", "pinned: compared below the text");
  sign("wb-t wb-special", "boxed", "a special token, written out");
  sign("wb-break", "", "a line break in the text; where a line ends without it, it only wraps");
  sign("wb-tok", "·⇥⟨U+200B⟩", "in cards: a space, a tab, an invisible character by its number");
  if (several) sign("wb-soft", "11", "left of a row: the position it begins with; every row has ten");
  else sign("wb-soft", "10", "small number above a token: its position; row t is the distribution that predicted token t");
  sign("wb-soft", "strip", "above the text: the quantity along all positions, below it how many alternatives count; drag selects positions");
  if (granularity !== "token") {
    sign("wb-soft", granularity, granularity === "word" ? "tokens up to the next space or line break" : "tokens up to . ! ? before a space, or a line break");
  }
  more.append(list, make("p", "wb-note", "Keys: arrows move from token to token and line to line, Home and End to the ends, Page keys by 50; Enter pins, Esc closes or unpins; " +
    "n and p go to the next and previous match; with Shift, arrows select positions." + (several ? " c goes to the same position of the next response." : "")));
  more.append(make("p", "wb-note", lens.reading));
  box.append(more);
  return box;
}
