// One beginning, continued by every arm: choose a prompt and how many tokens are given, and read the columns together.
// `workbenchBeside(root, data)` draws into root and returns a function that draws new data. Needs no other script.
function workbenchBeside(root, data) {
  const node = (what, ...parts) => {
    const [tag, ...css] = what.split("."), made = document.createElement(tag);
    if (css.length) made.className = css.join(" ");
    for (const part of parts.flat()) {
      if (part === null || part === undefined || part === false) continue;
      if (typeof part === "string" || part instanceof Node) made.append(part);
      else for (const [name, value] of Object.entries(part)) {
        if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
        else made.setAttribute(name, value);
      }
    }
    return made;
  };
  const tokens = (n) => `${n} token${n === 1 ? "" : "s"}`;
  const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}\u00a0%`;
  let asked = 0, given = data.given, position = 0, opened = false;

  const answersOf = (one) => data.arms.map((arm) => one.answers.find((a) => a.arm === arm && a.given === given)).filter(Boolean);
  const givensOf = (one) => [...new Set(one.answers.map((a) => a.given))].sort((a, b) => a - b);
  const shared = (answers) => {
    if (answers.length < 2) return 0;
    const shortest = Math.min(...answers.map((a) => a.pieces.length));
    let n = 0;
    while (n < shortest && answers.every((a) => a.pieces[n] === answers[0].pieces[n])) n += 1;
    return n;
  };

  function light(at) {
    position = at;
    for (const column of root.querySelectorAll(".wb-column")) {
      const pieces = [...column.querySelectorAll(".t[data-at]")];
      pieces.forEach((piece) => piece.classList.toggle("wb-here", Number(piece.dataset.at) === at));
      const { answer } = column, wanted = answer && answer.wanted && answer.wanted[at];
      const line = column.querySelector(".wb-wanted");
      if (!line) continue;
      line.replaceChildren();
      if (wanted) line.append(`token ${at + 1} wanted `, ...wanted.flatMap(([token, p], i) => [i ? " · " : "", node("b", token), ` ${percent(p)}`]));
      else line.append(answer && answer.said !== "writing" && at >= answer.pieces.length ? `ended after ${tokens(answer.pieces.length)}` : "\u00a0");
    }
  }

  function column(answer, common, covered) {
    const text = node("div.wb-text.wb-answer", { role: "group", tabindex: "0", "aria-label": `${answer.arm}, ${answer.said}: ${tokens(answer.pieces.length)}, arrow keys move in all columns` });
    answer.pieces.forEach((piece, i) => {
      if (i === answer.refused_at) text.append(node("sub.wb-turn", "\u25b8 refuses"));
      const css = ["t", i < common ? "wb-common" : data.fills[answer.levels[i] ?? 0]].filter(Boolean).join(".");
      const bare = piece.trimStart(); // the blank before a word stays outside, so that a broken line leaves no sliver
      if (bare) text.append(piece.slice(0, piece.length - bare.length));
      text.append(node(`span.${css}`, bare || piece, { "data-at": i }));
    });
    if (!answer.pieces.length) text.append(node("span.wb-soft", "(no text)"));
    const begins = answer.refused_at === null || answer.refused_at === undefined ? "" : `refuses from ${data.unit} ${answer.refused_at + 1} of `;
    const made = node("div.wb-column",
      node("div.wb-heads", node("b", answer.arm), node(`span.wb-tag.wb-pill.wb-is-${answer.kind}`, answer.said), node("span.wb-soft", `${begins}${answer.pieces.length} ${data.unit}${answer.pieces.length === 1 ? "" : "s"}`)),
      covered ? node("p.wb-soft", "The text is covered.") : text, data.scored ? node("p.wb-wanted.wb-soft") : null);
    made.answer = answer;
    return made;
  }

  function draw() {
    const one = data.asked[asked];
    if (!one) return root.replaceChildren(node("p", data.empty || "No prompt was answered by every arm."));
    const givens = givensOf(one);
    if (!givens.includes(given)) given = givens.reduce((a, b) => (Math.abs(b - given) < Math.abs(a - given) ? b : a));
    const answers = answersOf(one), common = shared(answers), covered = one.covered && !opened;
    const choose = data.asked.length > 1 && node("div.wb-choose", { role: "group", "aria-label": "Prompt" }, data.asked.map((each, i) =>
      node("button", `${i + 1} ${each.label}`, { type: "button", "aria-pressed": String(i === asked), title: each.prompt, "data-lm-suppress-shortcuts": "true",
        onclick: () => { asked = i; opened = false; draw(); root.querySelectorAll(".wb-choose button")[i].focus(); } })));
    const out = node("output", String(given));
    const dial = node("input.wb-dial", { type: "range", min: 0, max: givens.length - 1, step: 1, value: givens.indexOf(given), "aria-label": "given tokens", "aria-valuetext": tokens(given), "data-lm-suppress-shortcuts": "true",
      oninput: (event) => { given = givens[Number(event.target.value)]; draw(); root.querySelector(".wb-dial").focus(); } });
    const beginning = one.beginnings[given];
    root.replaceChildren(...[
      choose,
      node("p.wb-title", node(`span.wb-tag.wb-${one.label}`, one.label), one.prompt),
      node("label.wb-given-line", "given tokens of the answer ", givens.length > 1 ? dial : null, out),
      node("p.wb-beginning", given === 0 ? node("span.wb-soft", "nothing is given: each arm begins by itself") : [node("span.wb-role", "given to every arm"), covered || beginning === undefined ? "(covered)" : beginning]),
      one.covered && node("button.wb-reveal", opened ? "Cover the harmful text" : "Reveal the harmful text", { type: "button", onclick: () => { opened = !opened; draw(); } }),
      node("div.wb-columns", answers.map((answer) => column(answer, common, covered))),
    ].filter(Boolean));
    light(Math.max(0, Math.min(common, ...answers.map((a) => a.pieces.length - 1))));
  }

  root.addEventListener("pointerover", (event) => {
    const piece = event.target instanceof Element && event.target.closest(".t[data-at]");
    if (piece) light(Number(piece.dataset.at));
  });
  root.addEventListener("keydown", (event) => {
    const text = event.target instanceof Element && event.target.closest(".wb-answer");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!text || !step || event.ctrlKey || event.metaKey || event.altKey) return;
    const longest = Math.max(...[...root.querySelectorAll(".wb-answer")].map((t) => t.querySelectorAll(".t[data-at]").length));
    light(Math.max(0, Math.min(longest - 1, position + step)));
    event.preventDefault();
    event.stopPropagation();
  });
  draw();
  return (now, latest = false) => {
    const kept = position;
    data = now;
    if (latest) [asked, given] = [data.asked.length - 1, data.asked.at(-1).answers[0]?.given ?? 0];
    draw();
    if (!latest) light(kept);
  };
}
