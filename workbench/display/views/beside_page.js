// Draws every static view of arms side by side; without it the text below stays.
(() => {
  const start = () => {
    for (const view of document.querySelectorAll(".wb-beside")) {
      const stage = view.querySelector(":scope > .wb-stage"), data = view.querySelector(":scope > script[type='application/json']");
      if (!stage || !data || stage.childElementCount) continue;
      workbenchBeside(stage, JSON.parse(data.textContent));
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
