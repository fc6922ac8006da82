// What is known of one token: the card at it, and the pinned ones below the text with both distributions back to back.
const CARD_ALTERNATIVES = 5, PIN_ALTERNATIVES = 10;

/** Make the card that floats over the page beside one token at a time. */
function floatingCard() {
  const card = make("div", "wb-lens-card");
  card.id = `wb-lens-card-${Math.random().toString(36).slice(2)}`;
  card.setAttribute("role", "tooltip");
  card.hidden = true;
  if ("popover" in card) card.popover = "manual";
  return card;
}

function openCard(card) {
  card.hidden = false;
  if (card.popover && !card.matches(":popover-open")) card.showPopover();
}

function closeCard(card) {
  if (card.popover && card.matches(":popover-open")) card.hidePopover();
  card.hidden = true;
  card.replaceChildren();
}

/** Put a card below a token, or above where there is no room; tell whether the token is in sight inside `frame`. */
function putBeside(card, token, frame) {
  const view = frame.getBoundingClientRect(), box = card.getBoundingClientRect();
  const inSight = (spot) => spot.bottom >= Math.max(0, view.top) && spot.top <= Math.min(innerHeight, view.bottom);
  const spots = [...token.getClientRects()].filter(inSight), spot = spots[0];
  if (!spot) return false;
  const below = spots.at(-1).bottom + 8, above = spot.top - box.height - 10;
  const top = below + box.height < innerHeight || above < 0 ? below : above;
  card.style.left = `${Math.max(8, Math.min(spot.left, document.documentElement.clientWidth - box.width - 8))}px`;
  card.style.top = `${Math.max(8, Math.min(top, innerHeight - box.height - 8))}px`;
  return true;
}

/** A bar of a probability, in the colour of its model. */
function bar(model, share) {
  const cell = make("span", "wb-track"), fill = make("span", `wb-bar wb-${model === "base" ? "b" : "a"}`);
  fill.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`;
  cell.append(fill);
  return cell;
}

function numbers(column, i) {
  const at = (name) => column.values(name)[i];
  return {
    base: at("probability_base"),
    aligned: at("probability_aligned"),
    shift: at("logprob_shift_nats"),
    rankBase: at("rank_base"),
    rankAligned: at("rank_aligned"),
    at,
  };
}

/** Say a token in one sentence, for those who hear it. */
function spoken(column, i, look) {
  const n = numbers(column, i), q = look.quantity;
  const favored = n.shift < 0 ? ", base-favored" : "";
  const value = q.unit === "rank" || q.unit === "tokens" ? wholeText(n.at(q.name)) : numberText(n.at(q.name));
  const kind = column.covered ? "withheld token" : column.label(i);
  const counts = look.counts[look.columns.indexOf(column)];
  const count = counts ? `, ${counts[i]} alternatives count` : "";
  return `${kind}, position ${i + 1} of ${column.tokens}${favored}, ${q.short} ${value}${count}`;
}

function fact(list, name, value, unit = "") {
  const dt = make("dt", "", name), dd = make("dd", "", value);
  if (unit) dd.append(make("span", "wb-unit-name", ` ${unit}`));
  list.append(dt, dd);
}

/** Fill the card of a token. `counting` says which alternatives count, `narrowed` whether thresholds are set. */
function fillCard(card, column, i, { look, counting, isNarrowed, lens }) {
  const n = numbers(column, i);
  const head = make("p", "wb-card-head");
  head.append(make("span", "wb-tok wb-card-token", column.label(i)), make("span", "wb-soft", `position ${i + 1} of ${column.tokens}`));
  if (look.several) head.append(make("span", "wb-soft", column.head.name));
  const side = n.shift < 0 ? "base-favored" : n.shift > 0 ? "aligned-favored" : "as likely under both";
  head.append(make("span", n.shift < 0 ? "wb-favored wb-card-side" : "wb-card-side", side));
  const rows = make("div", "wb-card-models");
  for (const [model, p, rank] of [["base", n.base, n.rankBase], ["aligned", n.aligned, n.rankAligned]]) {
    rows.append(make("span", "", `p(${model})`), make("span", "n", numberText(p)), bar(model, p), make("span", "wb-soft", `rank ${wholeText(rank)}`));
  }
  const facts = make("dl");
  fact(facts, "shift, aligned − base", `${n.shift > 0 ? "+" : ""}${numberText(n.shift)}`, "nats");
  fact(facts, "KL(aligned ‖ base)", numberText(n.at("kl_aligned_base_nats")), "nats");
  const sure = !(n.at("entropy_aligned_nats") > lens.entropy_floor_nats);
  fact(facts, "excess mass, retention", `${numberText(n.at("excess_mass"))}, ${numberText(n.at("retention"))}`, sure ? "(both nearly certain: says nothing)" : "");
  fact(facts, "entropy base, aligned", `${numberText(n.at("entropy_base_nats"))}, ${numberText(n.at("entropy_aligned_nats"))}`, "nats");
  fact(facts, "base-favored tokens", wholeText(n.at("base_favored_count")), `in ${lens.count_space}`);
  if (look.granularity !== "token" && !column.covered) {
    const { of, starts } = column.units(look.granularity), unit = of[i];
    const size = (starts[unit + 1] ?? column.tokens) - starts[unit];
    fact(facts, `${look.granularity} mean, ${look.quantity.short}`, numberText(column.means(look.quantity.name, look.granularity)[unit]), `over ${size} token${size === 1 ? "" : "s"}`);
  }
  card.replaceChildren(head, rows, facts, alternativesOf(column, i, counting, isNarrowed));
  if (!column.covered && column.kind(i) !== 0) {
    const what = column.kind(i) === 1 ? "special token" : "its bytes make no whole character by themselves";
    card.append(make("p", "wb-soft wb-note", `${what}; id ${column.id(i)}`));
  }
}

/** The alternatives that count here, the most base-favored first, with a bar for each model. */
function alternativesOf(column, i, counting, isNarrowed) {
  const box = make("div", "wb-card-others");
  const found = column.alternatives(i).filter((a) => counting.flags[a.at]).sort((a, b) => b.base - b.aligned - (a.base - a.aligned));
  const shown = found.slice(0, CARD_ALTERNATIVES);
  const which = isNarrowed ? "count here" : "base-favored here";
  const said = found.length ? `${found.length} of ${column.alternatives(i).length} stored alternatives ${which}` : `No stored alternative ${isNarrowed ? "counts here" : "is base-favored here"}`;
  box.append(make("p", "wb-soft", shown.length < found.length ? `${said}; the ${shown.length} most:` : `${said}${found.length ? ":" : "."}`));
  for (const a of shown) {
    const row = make("div", "wb-other-row");
    row.append(make("span", "wb-tok", a.label), bar("base", a.base), make("span", "n", numberText(a.base)), bar("aligned", a.aligned), make("span", "n", numberText(a.aligned)));
    box.append(row);
  }
  return box;
}

/** The table of one position: base to the left, aligned to the right, the likeliest tokens of either. */
function distribution(column, i, lens) {
  const found = column.alternatives(i).sort((a, b) => Math.max(b.base, b.aligned) - Math.max(a.base, a.aligned));
  const lines = found.slice(0, PIN_ALTERNATIVES), n = numbers(column, i);
  if (!lines.some((line) => line.observed)) lines.push({ label: column.label(i), base: n.base, aligned: n.aligned, observed: true });
  const rest = (model) => Math.max(0, 1 - lines.reduce((sum, line) => sum + line[model], 0));
  lines.push({ label: "all other tokens", base: rest("base"), aligned: rest("aligned"), other: true });
  const table = make("table", "wb-topk");
  table.append(make("caption", "", `KL ${numberText(n.at("kl_aligned_base_nats"))} nats, retention ${numberText(n.at("retention"))} at aligned entropy ` +
    `${numberText(n.at("entropy_aligned_nats"))} nats; the ${Math.min(found.length, PIN_ALTERNATIVES)} likeliest of the stored top ${lens.stored_k} of either model`));
  const head = table.createTHead().insertRow();
  for (const [name, css] of [["p(base)", "n"], ["", ""], ["token", "wb-mid"], ["", ""], ["p(aligned)", "n"]]) {
    const cell = make(name ? "th" : "td", css, name);
    if (name) cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const line of lines) {
    const row = body.insertRow();
    row.className = line.observed ? "wb-observed" : line.other ? "wb-other" : "";
    const middle = make("th", "wb-mid");
    middle.scope = "row";
    middle.append(make("span", line.other ? "" : "wb-tok", line.label));
    if (line.observed) middle.append(make("span", "wb-soft wb-stands", " stands here"));
    const cells = [make("td", "n", numberText(line.base)), make("td", "wb-barcell"), middle, make("td", "wb-barcell"), make("td", "n", numberText(line.aligned))];
    cells[1].append(bar("base", line.base));
    cells[3].append(bar("aligned", line.aligned));
    row.append(...cells);
  }
  return table;
}

/** One pinned position: its token and distributions in every response shown. */
function pinned(columns, position, lens, { go, unpin }) {
  const box = make("article", "wb-pin");
  box.dataset.position = position;
  box.setAttribute("aria-label", `Pinned position ${position}`);
  const head = make("p", "wb-pin-head");
  const open = control(make("button", "wb-go", `position ${position}`), `go to position ${position} in the text`);
  const away = control(make("button", "wb-unpin", "✕"), `unpin position ${position}`);
  open.type = away.type = "button";
  open.addEventListener("click", () => go(position));
  away.addEventListener("click", () => unpin(position));
  head.append(open, away);
  box.append(head);
  const sides = make("div", "wb-pin-sides");
  for (const column of columns) {
    const side = make("div", "wb-pin-side");
    if (position > column.tokens) {
      side.append(make("p", "wb-soft", `${column.head.name} ends at ${column.tokens}.`));
    } else {
      const i = position - 1, n = numbers(column, i), said = make("p", "wb-pin-said");
      said.append(make("span", "wb-tok wb-card-token", column.label(i)));
      if (columns.length > 1) said.append(make("span", "wb-soft", column.head.name));
      said.append(make("span", "wb-soft", `rank ${wholeText(n.rankBase)} base, ${wholeText(n.rankAligned)} aligned; shift ${n.shift > 0 ? "+" : ""}${numberText(n.shift)} nats`));
      side.append(said, distribution(column, i, lens));
    }
    sides.append(side);
  }
  box.append(sides);
  return box;
}
