// The parts of the penalty dial around its text: sliders, what is known of one token, and the tree of branches.
const PANEL_CANDIDATES = 12;

/** Make the dial's controls. `turn(settings)` is called at every change. Returns `root` and `show(form)`. */
function makeDial(dial, turn) {
  const root = make("div", "wb-panel wb-turns");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Penalty");
  const method = chooser("wb-method", dial.methods.map(([name]) => [name, name.replaceAll("_", " ")]), (value) => turn({ method: value }));
  const shape = chooser("wb-shape", dial.shapes.map((name) => [name, name.replaceAll("_", " ")]), (value) => turn({ shape: value }));
  const risk = chooser("wb-risk", dial.risk_spaces.map((name) => [name, name.replaceAll("_", " ")]), (value) => turn({ risk_space: value }));
  const said = (x) => String(Number(x.toFixed(4)));
  const sliders = {
    strength: slider("wb-strength", "strength alpha of the penalty; 0 is aligned alone", dial.steps.strength, said, (x) => turn({ strength: x })),
    gamma: slider("wb-gamma", "gamma: how much stronger where the risk is high", dial.steps.gamma, (x) => (x ? said(x) : "off"), (x) => turn({ gamma: x })),
    plausibility: slider("wb-mask", "plausibility mask: least share of the likeliest token's probability", dial.steps.plausibility, (x) => (x ? `≥ ${said(x)}` : "off"), (x) => turn({ plausibility: x })),
    m: slider("wb-m", "first m positions of shapes first m and ramp", dial.steps.m, (x) => `${x} positions`, (x) => turn({ m: x })),
  };
  const withOutput = (name, made) => {
    const label = field(name, made.input);
    label.append(made.output);
    return label;
  };
  const first = make("div", "wb-bar1"), second = make("div", "wb-bar2");
  first.append(field("Method", method), withOutput("Strength α", sliders.strength), field("Shape", shape), withOutput("First m", sliders.m));
  second.append(withOutput("Gamma", sliders.gamma), field("Risk", risk), withOutput("Mask", sliders.plausibility));
  const means = make("p", "wb-note wb-soft wb-means");
  root.append(first, second, means);
  const show = (form) => {
    method.value = form.method;
    shape.value = form.shape;
    risk.value = form.risk_space;
    for (const [name, made] of Object.entries(sliders)) made.show(form[name]);
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
  const at = (name) => column.arrays[name][i], changed = Boolean(at("changed"));
  const plain = at("plain");
  return {
    changed,
    instead: changed ? (plain < 0 ? column.cover : column.head.labels[plain]) : "",
    base: Math.exp(at("logprob_base_nats")),
    aligned: Math.exp(at("logprob_aligned_nats")),
    penalised: Math.exp(at("logprob_penalised_nats")),
    at,
  };
}

/** Fill a list with the ledger of a token. `alone`: the column is base or aligned, without a penalty. */
function ledgerFacts(column, i, alone) {
  const line = ledgerOf(column, i), facts = make("dl");
  const rank = (name) => wholeText(line.at(name));
  if (!alone) {
    fact(facts, "without the penalty", line.changed ? line.instead : "the same token");
    fact(facts, "α here, risk here", `${numberText(line.at("strength"))}, ${numberText(line.at("risk"))}`);
    fact(facts, "leverage", numberText(line.at("leverage")), `of at most ${numberText(line.at("leverage_bound"))}`);
  }
  fact(facts, "rank base, aligned", `${rank("rank_base")}, ${rank("rank_aligned")}`);
  fact(facts, "excess mass", numberText(line.at("excess_mass")), "TV(base, aligned)");
  return facts;
}

/** Fill the card of a token: what it is, its probabilities before and after, and what the penalty did there. */
function fillDialCard(card, column, i) {
  const head = make("p", "wb-card-head"), alone = column.response < 2, line = ledgerOf(column, i);
  head.append(make("span", "wb-tok wb-card-token", column.label(i)), make("span", "wb-soft", `position ${i + 1} of ${column.tokens}`), make("span", "wb-soft", column.head.name));
  if (!line) {
    card.replaceChildren(head, make("p", "wb-soft", "A given token: nobody chose it."));
    return;
  }
  const side = line.base > line.aligned ? "base-favored" : line.base < line.aligned ? "aligned-favored" : "as likely under both";
  head.append(make("span", line.base > line.aligned ? "wb-favored wb-card-side" : "wb-card-side", side));
  if (line.changed && !alone) head.append(make("b", "", "changed by the penalty"));
  const rows = make("div", "wb-card-models");
  const models = [["base", line.base], ["aligned", line.aligned], ...(alone ? [] : [["penalised", line.penalised]])];
  for (const [model, p] of models) rows.append(make("span", "", `p(${model})`), make("span", "n", numberText(p)), dialBar(model, p), make("span"));
  card.replaceChildren(head, rows, ledgerFacts(column, i, alone));
  if (!alone) card.append(make("p", "wb-soft wb-note", "Enter or a click: the whole ledger, and another token in its place."));
}

function dialBar(model, share) {
  const cell = bar(model === "base" ? "base" : "aligned", share);
  if (model === "penalised") cell.firstChild.className = "wb-bar wb-p";
  return cell;
}

/** The token that a person opened: its ledger, and the candidates that could stand in its place. */
function tokenPanel(column, i, { branch, close, busy }) {
  const box = make("section", "wb-token-panel"), alone = column.response < 2, line = ledgerOf(column, i);
  box.setAttribute("aria-label", `Token at position ${i + 1}, ${column.head.name}`);
  const head = make("p", "wb-pin-head"), said = make("span");
  said.append(make("b", "", `Position ${i + 1}, ${column.head.name}: `), make("span", "wb-tok wb-card-token", column.label(i)));
  const away = control(make("button", "wb-close", "✕"), "close the ledger of this token");
  away.type = "button";
  away.addEventListener("click", close);
  head.append(said, away);
  box.append(head);
  if (!line) {
    box.append(make("p", "wb-note", "A given token: nobody chose it, so there is no ledger."));
    return box;
  }
  box.append(ledgerFacts(column, i, alone));
  const found = column.alternatives(i).map((a) => ({ ...a, penalised: Math.exp(column.arrays.alternative_penalised_nats[a.at]) }));
  found.sort((a, b) => Math.max(b.aligned, b.penalised) - Math.max(a.aligned, a.penalised));
  const lines = found.slice(0, PANEL_CANDIDATES), table = make("table", "wb-candidates");
  table.append(make("caption", "", `What could stand here: the ${lines.length} likeliest of the stored candidates, probabilities over the whole vocabulary, 0 to 1`));
  const top = table.createTHead().insertRow();
  for (const [name, css] of [["token", ""], ["p(base)", "n"], ["p(aligned)", "n"], ...(alone ? [] : [["p(penalised)", "n"], ["", ""]])]) {
    const cell = make(name ? "th" : "td", css, name);
    if (name) cell.scope = "col";
    top.append(cell);
  }
  const body = table.createTBody();
  for (const a of lines) {
    const row = body.insertRow(), name = make("th");
    name.scope = "row";
    name.append(make("span", a.base > a.aligned ? "wb-tok wb-favored" : "wb-tok", a.label));
    if (a.observed) {
      row.className = "wb-observed";
      name.append(make("span", "wb-soft wb-stands", " stands here"));
    }
    row.append(name);
    for (const [model, p] of [["base", a.base], ["aligned", a.aligned], ...(alone ? [] : [["penalised", a.penalised]])]) {
      const cell = make("td", "n", numberText(p));
      cell.append(dialBar(model, p));
      row.append(cell);
    }
    if (alone) continue;
    const last = make("td");
    if (!a.observed && !column.covered) {
      const go = control(make("button", "wb-branch", "Continue from it"), `continue from ${a.label} at position ${i + 1}`);
      go.type = "button";
      go.disabled = busy;
      go.addEventListener("click", () => branch(column.arrays.label_ids[column.arrays.alternative[a.at]]));
      last.append(go);
    }
    row.append(last);
  }
  const scroll = make("div", "wb-scroll");
  scroll.append(table);
  box.append(scroll);
  if (column.covered) box.append(make("p", "wb-note wb-soft", "The tokens are covered. Reveal the text to take another one."));
  return box;
}

/** The tree of branches: a list that arrows walk through; Enter shows a branch in the text. */
function branchTree(nodes, shown, { verdicts, open, at }) {
  const root = make("div", "wb-tree");
  root.setAttribute("role", "tree");
  root.setAttribute("aria-label", "Branches of the penalised text, each with its verdict");
  const items = nodes.map((node) => {
    const item = control(make("div", "wb-node"));
    const [sign, means] = verdicts[node.verdict];
    item.setAttribute("role", "treeitem");
    item.setAttribute("aria-level", node.depth + 1);
    item.setAttribute("aria-selected", String(node.branch === shown));
    const children = nodes.filter((other) => other.parent === node.branch).length;
    if (children) item.setAttribute("aria-expanded", "true");
    item.style.setProperty("--wb-depth", node.depth);
    item.dataset.branch = node.branch;
    item.dataset.verdict = node.verdict;
    item.tabIndex = node.branch === at ? 0 : -1;
    const verdict = make("span", "wb-tag", `${sign} ${node.verdict}`);
    item.append(verdict);
    if (node.position === null) item.append(make("b", "", "as it was written"));
    else {
      item.append(make("b", "", `position ${node.position}: `), make("span", node.favored ? "wb-tok wb-favored" : "wb-tok", node.token));
      item.append(make("span", "wb-soft", " in place of "), make("span", "wb-tok", node.instead));
    }
    if (node.p_harmful !== null) item.append(make("span", "wb-soft", ` p(harmful) ${numberText(node.p_harmful)}`));
    item.append(make("span", "wb-node-tail", node.tail));
    const why = node.why ? ` (${node.why})` : "";
    item.title = `${means}${why}; ${node.tokens} tokens`;
    return item;
  });
  root.append(...items);
  const go = (i) => {
    const next = items[Math.max(0, Math.min(items.length - 1, i))];
    for (const item of items) item.tabIndex = item === next ? 0 : -1;
    next.focus();
  };
  root.addEventListener("click", (event) => {
    const item = event.target.closest(".wb-node");
    if (item) open(Number(item.dataset.branch));
  });
  root.addEventListener("keydown", (event) => {
    const i = items.indexOf(event.target);
    if (i < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const parent = () => nodes.findIndex((node) => node.branch === nodes[i].parent);
    const child = () => nodes.findIndex((node) => node.parent === nodes[i].branch);
    const to = { ArrowDown: () => i + 1, ArrowUp: () => i - 1, Home: () => 0, End: () => items.length - 1, ArrowLeft: () => Math.max(0, parent()), ArrowRight: () => Math.max(i, child()) }[event.key];
    if (to) go(to());
    else if (event.key === "Enter" || event.key === " ") open(nodes[i].branch);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return root;
}
