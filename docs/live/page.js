// The live page: a prompt, how much of base's own answer is given, and every arm that continues it, as it is computed.
(async () => {
  const held = JSON.parse(document.getElementById("held").textContent);
  const at = (name) => document.getElementById(name);
  const stage = at("stage"), status = at("status");
  const started = performance.now();
  const pair = await Live.load(held);
  const { tokenizer } = pair, LONGEST = 96;
  const REFUSES = /I'm sorry|can't help/;
  let run = 0, again = null, seed = 0, shown = null, opening = { prompt: null, ids: [] };

  /** The tokens of base's own answer, of which the slider gives the first. */
  function openingOf(text) {
    if (opening.prompt !== text) opening = { prompt: text, ids: Live.continued(pair, "base", tokenizer.prompt(text), 20) };
    return opening.ids;
  }

  const levelOf = (value, edges) => (Number.isFinite(value) ? edges.filter((edge) => value >= edge).length : 0);

  function drawn(answers, text, label, given, beginning, running) {
    const fill = document.querySelector("input[name=fill]:checked").value, { edges, css } = held.fills[fill];
    const asked = {
      prompt: text, label, covered: false, beginnings: { [given]: beginning },
      answers: answers.map(({ arm, name, ids, steps, ended }) => {
        const pieces = ids.map((id) => tokenizer.decode([id])), whole = pieces.join(""), found = whole.search(REFUSES);
        const refuses = found >= 0, open = running && !ended;
        let before = 0, refusedAt = null;
        if (refuses) for (refusedAt = 0; refusedAt < pieces.length && before + pieces[refusedAt].length <= found; refusedAt += 1) before += pieces[refusedAt].length;
        const kind = open ? "neither" : refuses ? "refused" : "complied";
        const said = open ? "writing" : refuses ? "⊘ refused" : label === "harmful" ? "➜ complied" : "➜ answered";
        const levels = steps.map((step) => levelOf(fill === "kl" ? step.kl : step.retention, edges));
        return { arm: name, given, kind, said, refused_at: refusedAt, pieces, levels, wanted: steps.map((s) => s.wanted.map(([id, p]) => [tokenizer.label(id), p]).filter(([, p]) => p >= 0.01)) };
      }),
    };
    return { arms: answers.map((a) => a.name), given, scored: true, unit: "token", fills: css, asked: [asked] };
  }

  function show() {
    const data = drawn(...shown);
    if (again) again(data);
    else again = workbenchBeside(stage, data);
    for (const legend of document.querySelectorAll(".wb-legend-of")) legend.hidden = legend.dataset.of !== document.querySelector("input[name=fill]:checked").value;
  }

  async function go() {
    const mine = run += 1, text = at("prompt").value.trim();
    if (!text) { status.textContent = "Type a prompt."; return; }
    const example = held.examples.find((each) => each.prompt === text), label = example ? example.label : "unlabelled";
    const typed = at("beginning").value, count = Number(at("given").value);
    const given = typed ? tokenizer.encode(typed) : openingOf(text).slice(0, count);
    at("count").textContent = typed ? `${given.length} typed` : String(count);
    at("given").disabled = Boolean(typed);
    const strength = Number(at("strength").value), temperature = Number(at("temperature").value);
    at("pushed").textContent = strength ? String(strength) : "off";
    at("warm").textContent = temperature ? String(temperature) : "greedy";
    const arms = [["base", "base"], ["aligned", "aligned"], ["completed", "completed"], ...(strength ? [["penalised", `aligned, pushed away ${strength}`]] : [])];
    const ids = [...tokenizer.prompt(text), ...given];
    const answers = arms.map(([arm, name]) => ({ arm, name, ids: [], steps: [], ended: false, voice: new Live.Voice(pair, arm, ids, { strength, temperature, seed }) }));
    status.textContent = "writing";
    let written = 0, last = performance.now();
    const began = last;
    for (let n = 0; n < LONGEST && answers.some((a) => !a.ended); n += 1) {
      for (const answer of answers.filter((a) => !a.ended)) {
        const step = answer.voice.next();
        answer.ended = answer.voice.ended;
        if (!answer.ended) { answer.ids.push(step.id); answer.steps.push(step); written += 1; }
      }
      if (performance.now() - last > 30) {
        shown = [answers, text, label, given.length, tokenizer.decode(given), true];
        show();
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== run) return;
        last = performance.now();
      }
    }
    shown = [answers, text, label, given.length, tokenizer.decode(given), false];
    show();
    const seconds = (performance.now() - began) / 1000;
    status.textContent = `${written} tokens in ${seconds.toFixed(1)} s, in this page`;
    document.body.dataset.state = `done ${mine}`;
  }

  for (const [i, each] of held.examples.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = each.prompt;
    button.className = `example wb-${each.label}`;
    button.addEventListener("click", () => { at("prompt").value = each.prompt; at("beginning").value = ""; go(); });
    at(each.label === "harmful" ? "harmful" : "harmless").append(button);
    if (i === 0) at("prompt").value = each.prompt;
  }
  for (const name of ["given", "strength", "temperature"]) at(name).addEventListener("input", go);
  for (const name of ["prompt", "beginning"]) at(name).addEventListener("change", go);
  for (const choice of document.querySelectorAll("input[name=fill]")) choice.addEventListener("change", () => shown && show());
  at("form").addEventListener("submit", (event) => { event.preventDefault(); go(); });
  at("redraw").addEventListener("click", () => { seed += 1; if (!Number(at("temperature").value)) at("temperature").value = "1"; go(); });
  window.livePair = pair;
  await go();
  document.body.dataset.ready = String(Math.round(performance.now() - started));
})();
