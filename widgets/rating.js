// One text to rate. It is in the page only while it is open; what the page wants goes to Python as `asked`, the text that
// is shown comes back as `item`. All of it is set as text.
let asks = 0;

const made = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

/** A control that takes the keyboard: the notebook's own shortcuts leave it alone. */
const button = (className, text, act) => {
  const node = made("button", className, text);
  node.type = "button";
  node.dataset.lmSuppressShortcuts = "true";
  node.addEventListener("click", act);
  return node;
};

const COVER = "▒▒▒▒▒ ▒▒▒ ▒▒▒▒▒▒▒ ▒▒▒▒ ▒▒▒▒▒▒ ▒▒ ▒▒▒▒▒▒▒▒ ▒▒▒▒ ▒▒▒ ▒▒▒▒▒ ▒▒▒▒▒▒ ▒▒▒▒ ▒▒ ▒▒▒▒▒▒▒ ▒▒▒ ▒▒▒▒▒ ▒▒▒▒▒▒▒ ▒▒▒▒ ▒▒▒▒▒▒";

function render({ model, el }) {
  const root = made("section", "wb wb-rating mathjax_ignore tex2jax_ignore");
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true";
  root.setAttribute("aria-label", "Blind rating. Keys: 1 to 5 rate, Enter opens or covers the text, arrows move");
  const top = made("div", "wb-top");
  const where = made("p", "wb-title wb-where");
  where.setAttribute("role", "status");
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "texts rated");
  const moves = made("div", "wb-tools");
  const back = button("wb-back", "← previous", () => go(-1));
  const on = button("wb-on", "next →", () => go(1));
  const skip = button("wb-skip", "next unrated", () => ask({ do: "next" }));
  moves.append(back, on, skip);
  top.append(where, bar, moves);

  const asked = made("div", "wb-prompt");
  const given = made("div", "wb-prompt wb-prefix");
  const text = made("div", "wb-answer");
  text.tabIndex = 0; // it scrolls
  text.dataset.lmSuppressShortcuts = "true";
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "answer");
  const opener = button("wb-open", "", () => cover(open));
  const keep = made("label", "wb-keep");
  const always = document.createElement("input");
  always.type = "checkbox";
  always.dataset.lmSuppressShortcuts = "true";
  keep.append(always, " open each text as it comes");
  const lid = made("div", "wb-tools");
  lid.append(opener, keep);
  const scale = made("div", "wb-scale");
  scale.setAttribute("role", "group");
  scale.setAttribute("aria-label", "Rating");
  const rates = model.get("scale").map(([rating, meaning]) => {
    const rate = button("wb-rate", "", () => rated(rating));
    rate.append(made("b", "", String(rating)), made("span", "", meaning));
    scale.append(rate);
    return rate;
  });
  const hint = made("p", "wb-soft wb-hint", "");
  hint.setAttribute("role", "status");
  root.append(top, asked, given, lid, text, scale, hint);
  addAlert(model, root);
  el.append(root);

  let open = false;
  let shown = null;
  const KEYS = "Keys: 1 to 5 rate, Enter opens or covers the text, ← and → move.";

  const ask = (what) => {
    model.set("asked", { ...what, n: ++asks });
    model.save_changes();
  };
  const go = (step) => {
    const { number, total } = model.get("item");
    if (number !== null && number + step >= 1 && number + step <= total) ask({ do: "go", number: number + step });
  };
  const rated = (rating) => {
    const { number } = model.get("item");
    if (number === null) return;
    if (!open) {
      hint.textContent = "Open the text before you rate it (Enter).";
      return;
    }
    ask({ do: "rate", number, rating });
  };
  const role = (node, name, content) => {
    node.replaceChildren(made("span", "wb-role", name), made("span", "", content ?? ""));
    node.hidden = !content;
  };
  const cover = (covered) => {
    open = !covered;
    const item = model.get("item");
    text.classList.toggle("wb-covered", covered);
    if (covered) text.setAttribute("aria-hidden", "true");
    else text.removeAttribute("aria-hidden");
    given.classList.toggle("wb-covered", covered);
    role(given, "the answer was made to start with (not rated)", item.prefix && (covered ? COVER.slice(0, 24) : item.prefix));
    text.textContent = covered ? COVER : item.text || "(the answer is empty)";
    text.classList.toggle("wb-soft", !covered && !item.text);
    opener.textContent = covered ? `Show the answer (${item.words ?? 0} words)` : "Cover the answer";
    opener.setAttribute("aria-expanded", String(!covered));
    for (const rate of rates) rate.setAttribute("aria-disabled", String(covered));
  };
  const draw = () => {
    const item = model.get("item"), none = item.number === null;
    where.textContent = none
      ? "There is no text to rate."
      : `Text ${item.number} of ${item.total}, ${item.rated} rated by ${item.rater}` + (item.rated === item.total ? ": all done" : "");
    bar.max = Math.max(item.total, 1);
    bar.value = item.rated;
    back.disabled = none || item.number === 1;
    on.disabled = none || item.number === item.total;
    skip.disabled = none || item.rated === item.total;
    for (const node of [lid, text, scale]) node.hidden = none;
    role(asked, "request", item.request);
    rates.forEach((rate, i) => rate.setAttribute("aria-pressed", String(item.rating === i + 1)));
    if (shown !== item.number) cover(!always.checked);
    shown = item.number;
    hint.textContent = none ? "" : KEYS;
  };

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const rating = Number(event.key);
    if (Number.isInteger(rating) && rating >= 1 && rating <= rates.length) rated(rating);
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") go(event.key === "ArrowRight" ? 1 : -1);
    else if ((event.key === "Enter" || event.key === " ") && event.target === root) cover(open);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  model.on("change:item", draw);
  draw();
  return () => model.off("change:item", draw);
}
export default { render };
