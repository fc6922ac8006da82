// The form of the live probe. What the page wants goes to Python as `asked`, how it stands comes back as `state`; the text
// itself is a token lens below the form.
let wishes = 0;

const made = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

/** A field that takes the keyboard: the notebook's own shortcuts leave it alone. */
const field = (tag, className, attributes = {}) => {
  const node = Object.assign(made(tag, className), attributes);
  node.dataset.lmSuppressShortcuts = "true";
  return node;
};

const labelled = (text, node, note) => {
  const label = made("label", "wb-field");
  label.append(made("span", "wb-name", text));
  const said = note ? [made("span", "wb-soft", note)] : [];
  label.append(...(node.tagName === "TEXTAREA" ? [...said, node] : [node, ...said])); // a text box has a line of its own
  return label;
};

/** Typed text as Python can hold it: no half of a surrogate pair. */
const whole = (text) => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");

function render({ model, el }) {
  const root = made("section", "wb wb-probe");
  root.setAttribute("aria-label", "Live probe");
  const fields = {
    prompt: field("textarea", "wb-prompt-text", { rows: 2, placeholder: "What to ask" }),
    prefix: field("textarea", "wb-prefix-text", { rows: 1, placeholder: "Sure, here is" }),
    system_prompt: field("textarea", "wb-system-text", { rows: 2 }),
    temperature: field("input", "wb-temperature", { type: "number", min: 0, step: 0.1 }),
    seed: field("input", "wb-seed", { type: "number", min: 0, step: 1 }),
    max_tokens: field("input", "wb-longest", { type: "number", min: 1, step: 1 }),
  };
  const who = made("fieldset", "wb-who");
  who.append(made("legend", "wb-name", "Who continues"));
  const group = `wb-who-${Math.random().toString(36).slice(2)}`;
  const choices = ["aligned", "base"].map((value) => {
    const choice = field("input", "", { type: "radio", name: group, value });
    const label = made("label", "wb-field");
    label.append(choice, made("span", "", value));
    who.append(label);
    return choice;
  });
  const start = field("button", "wb-start", { type: "button", textContent: "Start" });
  const stop = field("button", "wb-stop", { type: "button", textContent: "Stop" });
  const status = made("span", "wb-status");
  status.setAttribute("role", "status");
  const count = made("span", "wb-count wb-soft");
  count.setAttribute("aria-hidden", "true");
  const system = made("details", "wb-system");
  const summary = field("summary", "", { textContent: "System prompt" });
  fields.system_prompt.setAttribute("aria-label", "System prompt");
  system.append(summary, fields.system_prompt);
  const numbers = made("div", "wb-numbers");
  numbers.append(
    who, labelled("Temperature", fields.temperature, "0 is greedy"), labelled("Seed", fields.seed),
    labelled("Longest response", fields.max_tokens, "tokens, prefix included"),
  );
  const actions = made("div", "wb-actions");
  actions.append(start, stop, status, count);
  root.append(
    labelled("Prompt", fields.prompt, "Ctrl+Enter starts"),
    labelled("The response begins with", fields.prefix, "given tokens; may be empty"), system, numbers, actions,
  );
  addAlert(model, root);

  const ask = (what) => {
    model.set("asked", { ...what, n: `${Date.now()} ${++wishes}` }); // the same wish twice is two wishes
    model.save_changes();
  };
  const number = (node) => (node.value.trim() === "" || Number.isNaN(Number(node.value)) ? null : Number(node.value));
  const go = () => ask({
    do: "start",
    prompt: whole(fields.prompt.value),
    prefix: whole(fields.prefix.value),
    system_prompt: whole(fields.system_prompt.value),
    continued_by: (choices.find((choice) => choice.checked) || choices[0]).value,
    temperature: number(fields.temperature),
    seed: number(fields.seed),
    max_tokens: number(fields.max_tokens),
  });
  start.addEventListener("click", go);
  stop.addEventListener("click", () => ask({ do: "stop" }));
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    go();
    event.preventDefault();
    event.stopPropagation();
  });

  const fill = () => {
    const form = model.get("form"), own = model.get("asked");
    for (const [name, node] of Object.entries(fields)) { // what was typed since this page asked is left alone
      if (node.value !== String(form[name]) && !(own.do === "start" && own[name] === form[name])) node.value = form[name];
    }
    for (const choice of choices) choice.checked = choice.value === form.continued_by;
    if (form.system_prompt) system.open = true;
  };
  const show = () => {
    const { state, said, tokens } = model.get("state");
    root.dataset.state = state;
    if (status.textContent !== said) status.textContent = said;
    count.textContent = state === "running" && tokens ? `${tokens} tokens` : "";
    stop.disabled = state !== "running";
    start.textContent = state === "running" ? "Start anew" : "Start";
  };
  model.on("change:form", fill);
  model.on("change:state", show);
  fill();
  show();
  el.append(root);
  ask({ do: "hello" }); // answered by its echo alone: from then on the page is heard while a cell runs
  return () => {
    model.off("change:form", fill);
    model.off("change:state", show);
  };
}

export default { render };
