// Arms side by side, live: the columns are drawn by workbenchBeside, a form below them asks all arms together.
const whole = (text) => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");

function render({ model, el }) {
  const prompt = make("textarea.wb-prompt-text", { rows: 2, placeholder: "What to ask every arm" });
  const beginning = make("textarea.wb-prefix-text", { rows: 1, placeholder: "Sure, here is" });
  const longest = make("input.wb-longest", { type: "number", min: 1, step: 1 });
  const go = () => wish(model, { do: "start", prompt: whole(prompt.value), beginning: whole(beginning.value), max_tokens: longest.value.trim() === "" ? null : Number(longest.value) });
  const start = make("button.wb-start", "Start", { onclick: go });
  const stop = make("button.wb-stop", "Stop", { onclick: () => wish(model, { do: "stop" }) });
  const status = make("span.wb-status", { role: "status" }), stage = make("div.wb-stage");
  const note = (text) => make("span.wb-soft", text);
  const form = make("div.wb-beside-form",
    field("Prompt", note("Ctrl+Enter starts"), prompt), field("Every answer begins with", note("given tokens; may be empty"), beginning),
    make("div.wb-numbers", field("Longest answer", longest, note("tokens"))), make("div.wb-actions", start, stop, status), alertLine(model));
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    go();
    consume(event);
  });
  const root = make("section.wb.wb-beside.wb-probe.mathjax_ignore.tex2jax_ignore", { "aria-label": "Arms side by side" }, stage, form);
  let again = null;
  const end = follow(model, {
    data: () => {
      const data = { ...model.get("data"), empty: "Type a prompt below: every arm continues it." };
      if (again) again(data, data.latest);
      else again = workbenchBeside(stage, data);
    },
    form: () => {
      const given = model.get("form"), own = model.get("asked");
      for (const [name, node] of [["prompt", prompt], ["beginning", beginning], ["max_tokens", longest]]) { // what was typed since is left alone
        if (node.value !== String(given[name]) && !(own.do === "start" && own[name] === given[name])) node.value = given[name];
      }
    },
    state: () => {
      const now = model.get("state"), running = now.state === "running";
      root.dataset.state = now.state;
      if (status.textContent !== now.said) status.textContent = now.said;
      stop.disabled = !running;
      start.textContent = running ? "Start anew" : "Start";
    },
  });
  el.append(root);
  wish(model, { do: "hello" });
  return end;
}

export default { render };
