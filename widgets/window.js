/* What the module of every widget starts with: `source("window.js", "token_lens.js")` puts it first. */

/** Add the line that shows Python's errors, as text, to `root`; it empties itself at the next success. */
const addAlert = (model, root) => {
  const line = document.createElement("p");
  line.className = "wb-alert";
  line.setAttribute("role", "alert");
  const say = () => {
    line.textContent = model.get("error");
    line.hidden = !line.textContent;
  };
  model.on("change:error", say);
  say();
  root.append(line);
  return line;
};
