// The form of the live probe. What the page wants goes to Python as `asked`, its state comes back as `state`; the text
// itself is a token lens below the form.

/** Typed text as Python can hold it: no half of a surrogate pair. */
const whole = (text) => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
const typedNumber = (text) => (text.trim() === "" || Number.isNaN(Number(text)) ? null : Number(text));

function render({ model, el }) {
  const ask = (what) => wish(model, what);
  const texts = {
    prompt: make("textarea.wb-prompt-text", { rows: 2, placeholder: "What to ask" }),
    prefix: make("textarea.wb-prefix-text", { rows: 1, placeholder: "Sure, here is" }),
    system_prompt: make("textarea.wb-system-text", { rows: 2, "aria-label": "System prompt" }),
  };
  const numbers = {
    temperature: make("input.wb-temperature", { type: "number", min: 0, step: 0.1 }),
    seed: make("input.wb-seed", { type: "number", min: 0, step: 1 }),
    max_tokens: make("input.wb-longest", { type: "number", min: 1, step: 1 }),
  };
  const fields = { ...texts, ...numbers }, group = `wb-who-${Math.random().toString(36).slice(2)}`;
  const choices = ["aligned", "base"].map((value) => make("input", { type: "radio", name: group, value }));
  const each = (inputs, read) => Object.fromEntries(Object.entries(inputs).map(([name, node]) => [name, read(node.value)]));
  const go = () => {
    const { value } = choices.find((choice) => choice.checked) || choices[0];
    ask({ do: "start", ...each(texts, whole), continued_by: value, ...each(numbers, typedNumber) });
  };
  const start = make("button.wb-start", "Start", { onclick: go });
  const stop = make("button.wb-stop", "Stop", { onclick: () => ask({ do: "stop" }) });
  const status = make("span.wb-status", { role: "status" }), count = make("span.wb-count.wb-soft", { "aria-hidden": "true" });
  const system = make("details.wb-system", make("summary", "System prompt"), texts.system_prompt);
  const note = (text) => make("span.wb-soft", text);
  const root = make("section.wb.wb-probe", { "aria-label": "Live probe" },
    field("Prompt", note("Ctrl+Enter starts"), texts.prompt), // a text box has a line of its own
    field("The response begins with", note("given tokens; may be empty"), texts.prefix), system,
    make("div.wb-numbers",
      make("fieldset.wb-who", make("legend", "Who continues"), choices.map((choice) => make("label.wb-field", choice, make("span", choice.value)))),
      field("Temperature", numbers.temperature, note("0 is greedy")), field("Seed", numbers.seed),
      field("Longest response", numbers.max_tokens, note("tokens, prefix included"))),
    make("div.wb-actions", start, stop, status, count), alertLine(model));
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    go();
    consume(event);
  });

  const form = () => {
    const given = model.get("form"), own = model.get("asked");
    for (const [name, node] of Object.entries(fields)) { // what was typed since this page asked is left alone
      if (node.value !== String(given[name]) && !(own.do === "start" && own[name] === given[name])) node.value = given[name];
    }
    for (const choice of choices) choice.checked = choice.value === given.continued_by;
    if (given.system_prompt) system.open = true;
  };
  const state = () => {
    const now = model.get("state"), running = now.state === "running";
    root.dataset.state = now.state;
    if (status.textContent !== now.said) status.textContent = now.said;
    count.textContent = running && now.tokens ? `${now.tokens} tokens` : "";
    stop.disabled = !running;
    start.textContent = running ? "Start anew" : "Start";
  };
  const end = follow(model, { form, state });
  el.append(root);
  ask({ do: "hello" }); // answered by its echo alone: from then on the page is heard while a cell runs
  return end;
}

export default { render };
