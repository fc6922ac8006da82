// One text to rate. It is in the page only while it is open; what the page wants goes to Python as `asked`, the text that
// is shown comes back as `item`. All of it is set as text.
const COVER = "▒▒▒▒▒ ▒▒▒ ▒▒▒▒▒▒▒ ▒▒▒▒ ▒▒▒▒▒▒ ▒▒ ▒▒▒▒▒▒▒▒ ▒▒▒▒ ▒▒▒ ▒▒▒▒▒ ▒▒▒▒▒▒ ▒▒▒▒ ▒▒ ▒▒▒▒▒▒▒ ▒▒▒ ▒▒▒▒▒ ▒▒▒▒▒▒▒ ▒▒▒▒ ▒▒▒▒▒▒";
const KEYS = "Keys: 1 to 5 rate, Enter opens or covers the text, ← and → move.";

function render({ model, el }) {
  let open = false, shown = null;
  const ask = (what) => wish(model, what);
  const go = (step) => {
    const { number, total } = model.get("item");
    if (number !== null && number + step >= 1 && number + step <= total) ask({ do: "go", number: number + step });
  };
  const rated = (rating) => {
    const { number } = model.get("item");
    if (number === null) return;
    if (open) ask({ do: "rate", number, rating });
    else hint.textContent = "Open the text before you rate it (Enter).";
  };
  const where = make("p.wb-title.wb-where", { role: "status" }), bar = make("progress", { "aria-label": "texts rated" });
  const back = make("button.wb-back", "← previous", { onclick: () => go(-1) });
  const on = make("button.wb-on", "next →", { onclick: () => go(1) });
  const skip = make("button.wb-skip", "next unrated", { onclick: () => ask({ do: "next" }) });
  const asked = make("div.wb-prompt"), given = make("div.wb-prompt.wb-prefix");
  const text = make("div.wb-answer", { tabIndex: 0, role: "group", "aria-label": "answer" }); // it scrolls
  const opener = make("button.wb-open", { onclick: () => cover(open) }), always = make("input", { type: "checkbox" });
  const lid = make("div.wb-tools", opener, make("label.wb-keep", always, " open each text as it comes"));
  const rates = model.get("scale").map(([rating, meaning]) =>
    make("button.wb-rate", make("b", rating), make("span", meaning), { onclick: () => rated(rating) }));
  const scale = make("div.wb-scale", { role: "group", "aria-label": "Rating" }, rates);
  const hint = make("p.wb-soft.wb-hint", { role: "status" });
  const root = make("section.wb.wb-rating.mathjax_ignore.tex2jax_ignore",
    { tabIndex: 0, "aria-label": "Blind rating. Keys: 1 to 5 rate, Enter opens or covers the text, arrows move" },
    make("div.wb-top", where, bar, make("div.wb-tools", back, on, skip)), asked, given, lid, text, scale, hint, alertLine(model));

  const role = (node, name, content) => {
    node.replaceChildren(make("span.wb-role", name), make("span", content ?? ""));
    node.hidden = !content;
  };
  const cover = (covered) => {
    open = !covered;
    const item = model.get("item");
    for (const node of [text, given]) node.classList.toggle("wb-covered", covered);
    if (covered) text.setAttribute("aria-hidden", "true");
    else text.removeAttribute("aria-hidden");
    role(given, "the answer was made to start with (not rated)", item.prefix && (covered ? COVER.slice(0, 24) : item.prefix));
    text.textContent = covered ? COVER : item.text || "(the answer is empty)";
    text.classList.toggle("wb-soft", !covered && !item.text);
    opener.textContent = covered ? `Show the answer (${item.words ?? 0} words)` : "Cover the answer";
    opener.setAttribute("aria-expanded", String(!covered));
    for (const rate of rates) rate.setAttribute("aria-disabled", String(covered));
  };
  const item = () => {
    const now = model.get("item"), { number, total, rated: done } = now, none = number === null;
    where.textContent = none
      ? "There is no text to rate."
      : `Text ${number} of ${total}, ${done} rated by ${now.rater}` + (done === total ? ": all done" : "");
    bar.max = Math.max(total, 1);
    bar.value = done;
    back.disabled = none || number === 1;
    on.disabled = none || number === total;
    skip.disabled = none || done === total;
    for (const node of [lid, text, scale]) node.hidden = none;
    role(asked, "request", now.request);
    rates.forEach((rate, i) => rate.setAttribute("aria-pressed", String(now.rating === i + 1)));
    if (shown !== number) cover(!always.checked);
    shown = number;
    hint.textContent = none ? "" : KEYS;
  };
  root.addEventListener("keydown", (event) => {
    if (!plainKey(event)) return;
    const rating = Number(event.key);
    if (Number.isInteger(rating) && rating >= 1 && rating <= rates.length) rated(rating);
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") go(event.key === "ArrowRight" ? 1 : -1);
    else if ((event.key === "Enter" || event.key === " ") && event.target === root) cover(open);
    else return;
    consume(event);
  });
  el.append(root);
  return follow(model, { item });
}

export default { render };
