// The parts of the penalty dial around its text: sliders, what is known of one token, and the tree of branches.
const PANEL_CANDIDATES = 12;

/** Make the dial's controls. `turn(settings)` is called at every change. Returns `root` and `show(form)`. */
function makeDial(dial, turn) {
  const words = (names) => names.map((name) => [name, name.replaceAll("_", " ")]);
  const method = chooser("wb-method", words(dial.methods.map(([name]) => name)), (value) => turn({ method: value }));
  const shape = chooser("wb-shape", words(dial.shapes), (value) => turn({ shape: value }));
  const risk = chooser("wb-risk", words(dial.risk_spaces), (value) => turn({ risk_space: value }));
  const said = (x) => String(Number(x.toFixed(4)));
  const turned = (name, css, title, words) => slider(css, title, dial.steps[name], words, (x) => turn({ [name]: x }));
  const sliders = {
    strength: turned("strength", "wb-strength", "strength alpha of the penalty; 0 is aligned alone", said),
    gamma: turned("gamma", "wb-gamma", "gamma: how much stronger where the risk is high", (x) => (x ? said(x) : "off")),
    plausibility: turned("plausibility", "wb-mask", "plausibility mask: least share of the likeliest token's probability", (x) => (x ? `≥ ${said(x)}` : "off")),
    m: turned("m", "wb-m", "first m positions of shapes first m and ramp", (x) => `${x} positions`),
  };
  const labelled = (name, { input, output }) => field(name, input, output);
  const means = make("p.wb-note.wb-soft.wb-means");
  const root = make("div.wb-panel.wb-turns", { role: "group", "aria-label": "Penalty" },
    make("div.wb-bar1", field("Method", method), labelled("Strength α", sliders.strength), field("Shape", shape), labelled("First m", sliders.m)),
    make("div.wb-bar2", labelled("Gamma", sliders.gamma), field("Risk", risk), labelled("Mask", sliders.plausibility)), means);
  const show = (form) => {
    method.value = form.method;
    shape.value = form.shape;
    risk.value = form.risk_space;
    for (const [name, { show: set }] of Object.entries(sliders)) set(form[name]);
    sliders.m.input.disabled = !["first_m", "ramp"].includes(form.shape);
    sliders.plausibility.input.disabled = form.method === "safe_decoding";
    risk.disabled = !form.gamma;
    means.textContent = dial.methods.find(([name]) => name === form.method)?.[1] ?? "";
  };
  return { root, show };
}

/** Return what the ledger says of a token; null where it was given. */
function ledgerOf(column, i) {
  if (i < column.head.given) return null;
  const at = (name) => column.arrays[name][i], changed = Boolean(at("changed")), plain = at("plain");
  return {
    at, changed,
    instead: changed ? (plain < 0 ? column.cover : column.head.labels[plain]) : "",
    base: Math.exp(at("logprob_base_nats")),
    aligned: Math.exp(at("logprob_aligned_nats")),
    penalised: Math.exp(at("logprob_penalised_nats")),
  };
}

/** Make the ledger of a token as a list. `alone`: the column is base or aligned, without a penalty. */
function ledgerFacts(line, alone) {
  const said = (name) => numberText(line.at(name)), rank = (name) => wholeText(line.at(name));
  const penalty = [
    ["without the penalty", line.changed ? line.instead : "the same token"],
    ["α here, risk here", `${said("strength")}, ${said("risk")}`],
    ["leverage", said("leverage"), `of at most ${said("leverage_bound")}`],
  ];
  return facts([...(alone ? [] : penalty), ["rank base, aligned", `${rank("rank_base")}, ${rank("rank_aligned")}`],
    ["excess mass", said("excess_mass"), "TV(base, aligned)"]]);
}

/** Fill the card of a token: what it is, its probabilities before and after, and what the penalty did there. */
function fillDialCard(card, column, i) {
  const alone = column.response < 2, line = ledgerOf(column, i);
  const head = make("p.wb-card-head", shownToken(column, i), make("span.wb-soft", `position ${i + 1} of ${column.tokens}`), make("span.wb-soft", column.head.name));
  card.replaceChildren(head);
  if (!line) {
    card.append(make("p.wb-soft", "A given token: no model chose it."));
    return;
  }
  head.append(sideOf(line.base, line.aligned));
  if (line.changed && !alone) head.append(make("b", "changed by the penalty"));
  const models = ["base", "aligned", ...(alone ? [] : ["penalised"])];
  card.append(modelRows(models.map((model) => [model, line[model]])), ledgerFacts(line, alone));
  if (!alone) card.append(make("p.wb-soft.wb-note", "Enter or a click: the whole ledger, and another token in its place."));
}

/** The token that a person opened: its ledger, and the candidates that could replace it. */
function tokenPanel(column, i, { branch, close, busy }) {
  const alone = column.response < 2, line = ledgerOf(column, i), { name } = column.head;
  const box = make("section.wb-token-panel", { "aria-label": `Token at position ${i + 1}, ${name}` },
    make("p.wb-pin-head", make("span", make("b", `Position ${i + 1}, ${name}: `), shownToken(column, i)),
      make("button.wb-close", "✕", { "aria-label": "close the ledger of this token", onclick: close })));
  if (!line) {
    box.append(make("p.wb-note", "A given token: no model chose it, so it has no ledger."));
    return box;
  }
  const found = column.alternatives(i).map((a) => ({ ...a, penalised: Math.exp(column.arrays.alternative_penalised_nats[a.at]) }));
  found.sort((a, b) => Math.max(b.aligned, b.penalised) - Math.max(a.aligned, a.penalised));
  const lines = found.slice(0, PANEL_CANDIDATES), models = alone ? ["base", "aligned"] : ["base", "aligned", "penalised"];
  const take = (a) => make("td", !a.observed && !column.covered && make("button.wb-branch", "Continue from it", {
    "aria-label": `continue from ${a.label} at position ${i + 1}`, disabled: busy,
    onclick: () => branch(column.arrays.label_ids[column.arrays.alternative[a.at]]),
  }));
  const caption = `Candidates for this position: the ${lines.length} likeliest of the stored candidates, probabilities over the whole vocabulary, 0 to 1`;
  const table = make("table.wb-candidates", make("caption", caption),
    headRow([["token", ""], ...models.map((model) => [`p(${model})`, "n"]), ...(alone ? [] : [["", ""]])]),
    make("tbody", lines.map((a) => make("tr", { class: a.observed ? "wb-observed" : null }, rowToken("", a, a.base > a.aligned ? "wb-tok wb-favored" : "wb-tok"),
      models.map((model) => make("td.n", numberText(a[model]), bar(model, a[model]))), !alone && take(a)))));
  box.append(ledgerFacts(line, alone), make("div.wb-scroll", table));
  if (column.covered) box.append(make("p.wb-note.wb-soft", "The tokens are covered. Reveal the text to take another one."));
  return box;
}

/** The tree of branches: a list that arrows walk through; Enter shows a branch in the text. */
function branchTree(nodes, shown, { verdicts, open, at }) {
  const items = nodes.map((node) => {
    const [sign, means] = verdicts[node.verdict], why = node.why ? ` (${node.why})` : "";
    const place = node.position === null ? make("b", "as it was written") : [
      make("b", `position ${node.position}: `), make(node.favored ? "span.wb-tok.wb-favored" : "span.wb-tok", node.token),
      make("span.wb-soft", " in place of "), make("span.wb-tok", node.instead)];
    return make("div.wb-node", {
      role: "treeitem", "aria-level": node.depth + 1, "aria-selected": String(node.branch === shown),
      "aria-expanded": nodes.some((other) => other.parent === node.branch) ? "true" : null,
      "--wb-depth": node.depth, "data-branch": node.branch, "data-verdict": node.verdict,
      tabIndex: node.branch === at ? 0 : -1, title: `${means}${why}; ${node.tokens} tokens`,
    },
      make("span.wb-tag", `${sign} ${node.verdict}`), place, node.p_harmful !== null && make("span.wb-soft", ` p(harmful) ${numberText(node.p_harmful)}`),
      make("span.wb-node-tail", node.tail));
  });
  const root = make("div.wb-tree", { role: "tree", "aria-label": "Branches of the penalised text, each with its verdict" }, items);
  walk(root, items, (item) => open(Number(item.dataset.branch)), (key, i) => {
    if (key === "ArrowLeft") return Math.max(0, nodes.findIndex((node) => node.branch === nodes[i].parent));
    return key === "ArrowRight" ? Math.max(i, nodes.findIndex((node) => node.parent === nodes[i].branch)) : undefined;
  });
  return root;
}
