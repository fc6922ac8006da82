"""The smallest widget: a button that counts. For tests of what all widgets share."""

from __future__ import annotations

from typing import Any

import traitlets

from widgets.window import Face, Window, source
from workbench.display.views import View

MODULE = """
function render({ model, el }) {
  if (model.get("count") >= 90) throw new Error("this module fails before it draws");
  const root = document.createElement("section"), button = document.createElement("button");
  root.className = "wb wb-counter";
  const draw = () => { button.textContent = `clicked ${model.get("count")} times`; };
  button.addEventListener("click", () => { model.set("count", model.get("count") + 1); model.save_changes(); });
  model.on("change:count", draw);
  draw();
  root.append(button);
  root.append(alertLine(model));
  el.append(root);
}
export default { render };
"""


class CounterFace(Face):
    _esm = source("parts/dom.js") + MODULE
    count = traitlets.Int(0).tag(sync=True)


class Counter(Window[int]):
    """Count the clicks on a button; at 90 and more its module fails."""

    def __init__(self, count: int = 0, *, live: bool | None = None) -> None:
        super().__init__(count, live=live)

    def static(self) -> View:
        return View(title="Counter", body=f"<p>counted {self.selection}</p>", text=f"counted {self.selection}")

    def _face(self) -> CounterFace:
        face = CounterFace(count=self.selection)
        face.observe(self._counted, "count")
        return face

    def _counted(self, change: dict[str, Any]) -> None:
        self._select(change["new"])
