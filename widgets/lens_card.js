// The card beside one token, the bars and facts in it, and what is pinned below the text: both distributions back to back.
const CARD_ALTERNATIVES = 5, PIN_ALTERNATIVES = 10;

/** Make the card that floats over the page beside one token at a time. */
function floatingCard() {
  const card = make("div.wb-lens-card", { id: `wb-lens-card-${Math.random().toString(36).slice(2)}`, role: "tooltip", hidden: true });
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

const BAR_OF = { base: "b", aligned: "a", penalised: "p" };

/** A bar of a probability, in the colour of its model. */
function bar(model, share) {
  const fill = make(`span.wb-bar.wb-${BAR_OF[model]}`);
  fill.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`;
  return make("span.wb-track", fill);
}

/** A token of the text, as cards write it. */
const shownToken = (column, i) => make("span.wb-tok.wb-card-token", column.label(i));

/** Which model a token is likelier under, in words. */
function sideOf(base, aligned) {
  const favored = base > aligned;
  const said = favored ? "base-favored" : base < aligned ? "aligned-favored" : "as likely under both";
  return make(favored ? "span.wb-favored.wb-card-side" : "span.wb-card-side", said);
}

/** Rows of [model, probability, more]: each with its bar. */
const modelRows = (rows) => make("div.wb-card-models", rows.map(([model, p, more]) => [
  make("span", `p(${model})`), make("span.n", numberText(p)), bar(model, p), make("span.wb-soft", more ?? "")]));

/** Rows of [name, value, unit] as a list. */
const facts = (rows) => make("dl", rows.map(([name, value, unit]) => [
  make("dt", name), make("dd", value, unit && make("span.wb-unit-name", ` ${unit}`))]));

function numbers(column, i) {
  const at = (name) => column.values(name)[i];
  return {
    at, base: at("probability_base"), aligned: at("probability_aligned"), shift: at("logprob_shift_nats"),
    rankBase: at("rank_base"), rankAligned: at("rank_aligned"),
  };
}

const signed = (value) => `${value > 0 ? "+" : ""}${numberText(value)}`;

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

/** Fill the card of a token. `counting` says which alternatives count, `narrowed` whether thresholds are set. */
function fillCard(card, column, i, { look, counting, isNarrowed, lens }) {
  const n = numbers(column, i), said = (name) => numberText(n.at(name));
  const sure = n.at("retention") >= 0.5 && !(n.at("entropy_aligned_nats") > lens.entropy_floor_nats);
  const rows = [
    ["shift, aligned − base", signed(n.shift), "nats"],
    ["KL(aligned ‖ base)", said("kl_aligned_base_nats"), "nats"],
    ["excess mass, retention", `${said("excess_mass")}, ${said("retention")}`, sure ? "(both nearly certain: this says nothing)" : ""],
    ["entropy base, aligned", `${said("entropy_base_nats")}, ${said("entropy_aligned_nats")}`, "nats"],
    ["base-favored tokens", wholeText(n.at("base_favored_count")), `in ${lens.count_space}`],
  ];
  if (look.granularity !== "token" && !column.covered) {
    const { of, starts } = column.units(look.granularity), unit = of[i];
    const size = (starts[unit + 1] ?? column.tokens) - starts[unit], mean = column.means(look.quantity.name, look.granularity)[unit];
    rows.push([`${look.granularity} mean, ${look.quantity.short}`, numberText(mean), `over ${size} token${size === 1 ? "" : "s"}`]);
  }
  card.replaceChildren(
    make("p.wb-card-head", shownToken(column, i), make("span.wb-soft", `position ${i + 1} of ${column.tokens}`),
      look.several && make("span.wb-soft", column.head.name), sideOf(0, n.shift)),
    modelRows([["base", n.base, `rank ${wholeText(n.rankBase)}`], ["aligned", n.aligned, `rank ${wholeText(n.rankAligned)}`]]),
    facts(rows), alternativesOf(column, i, counting, isNarrowed));
  if (!column.covered && column.kind(i) !== 0) {
    const what = column.kind(i) === 1 ? "special token" : "its bytes make no whole character by themselves";
    card.append(make("p.wb-soft.wb-note", `${what}; id ${column.id(i)}`));
  }
}

/** The alternatives that count here, the most base-favored first, with a bar for each model. */
function alternativesOf(column, i, counting, isNarrowed) {
  const all = column.alternatives(i), found = all.filter((a) => counting.flags[a.at]).sort((a, b) => b.base - b.aligned - (a.base - a.aligned));
  const shown = found.slice(0, CARD_ALTERNATIVES);
  const said = found.length
    ? `${found.length} of ${all.length} stored alternatives ${isNarrowed ? "count here" : "base-favored here"}`
    : `No stored alternative ${isNarrowed ? "counts here" : "is base-favored here"}`;
  const ends = shown.length < found.length ? `; the ${shown.length} most:` : found.length ? ":" : ".";
  return make("div.wb-card-others", make("p.wb-soft", said + ends), shown.map((a) => make("div.wb-other-row", make("span.wb-tok", a.label),
    bar("base", a.base), make("span.n", numberText(a.base)), bar("aligned", a.aligned), make("span.n", numberText(a.aligned)))));
}

/** The token of a table's row, marked where it is the token of the text. */
const rowToken = (css, line, tokenCss = "wb-tok") => make("th", { class: css, scope: "row" }, make("span", line.label, { class: tokenCss }),
  line.observed && make("span.wb-soft.wb-stands", " in the text"));

/** The table of one position: base to the left, aligned to the right, the likeliest tokens of either. */
function distribution(column, i, lens) {
  const found = column.alternatives(i).sort((a, b) => Math.max(b.base, b.aligned) - Math.max(a.base, a.aligned));
  const lines = found.slice(0, PIN_ALTERNATIVES), n = numbers(column, i), said = (name) => numberText(n.at(name));
  if (!lines.some((line) => line.observed)) lines.push({ label: column.label(i), base: n.base, aligned: n.aligned, observed: true });
  const rest = (model) => Math.max(0, 1 - lines.reduce((sum, line) => sum + line[model], 0));
  lines.push({ label: "all other tokens", base: rest("base"), aligned: rest("aligned"), other: true });
  const caption = `KL ${said("kl_aligned_base_nats")} nats, retention ${said("retention")} at aligned entropy ${said("entropy_aligned_nats")} nats; ` +
    `the ${Math.min(found.length, PIN_ALTERNATIVES)} likeliest of the stored top ${lens.stored_k} of either model`;
  const side = (model, line) => [make("td.n", numberText(line[model])), make("td.wb-barcell", bar(model, line[model]))];
  return make("table.wb-topk", make("caption", caption), headRow([["p(base)", "n"], ["", ""], ["token", "wb-mid"], ["", ""], ["p(aligned)", "n"]]),
    make("tbody", lines.map((line) => make("tr", { class: line.observed ? "wb-observed" : line.other ? "wb-other" : "" },
      side("base", line), rowToken("wb-mid", line, line.other ? "" : "wb-tok"), side("aligned", line).reverse()))));
}

/** One pinned position: its token and distributions in every response shown. */
function pinned(columns, position, lens, { go, unpin }) {
  const i = position - 1;
  const side = (column) => {
    if (position > column.tokens) return make("p.wb-soft", `${column.head.name} ends at ${column.tokens}.`);
    const n = numbers(column, i), ranks = `rank ${wholeText(n.rankBase)} base, ${wholeText(n.rankAligned)} aligned`;
    const said = make("p.wb-pin-said", shownToken(column, i), columns.length > 1 && make("span.wb-soft", column.head.name),
      make("span.wb-soft", `${ranks}; shift ${signed(n.shift)} nats`));
    return [said, distribution(column, i, lens)];
  };
  return make("article.wb-pin", { "data-position": position, "aria-label": `Pinned position ${position}` },
    make("p.wb-pin-head",
      make("button.wb-go", `position ${position}`, { "aria-label": `go to position ${position} in the text`, onclick: () => go(position) }),
      make("button.wb-unpin", "✕", { "aria-label": `unpin position ${position}`, onclick: () => unpin(position) })),
    make("div.wb-pin-sides", columns.map((column) => make("div.wb-pin-side", side(column)))));
}
