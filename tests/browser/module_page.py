"""A widget's ES module in a real browser with no Jupyter: a page with a model that only it knows.

The model is anywidget's: get, set, save_changes, on, off, send. Behind it stands either a face (the real Python side:
what the page saves and sends reaches it at `sync()`, and what it answers reaches the page), or just `saved` and `sent`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from comm.base_comm import BaseComm
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from tests.browser.lab import FLAGS

BRIDGE = """
(() => {
  window.tripped = 0;
  const toView = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const fromWire = (x) => {
    if (!x || typeof x !== "object") return x;
    if (Array.isArray(x)) return x.map(fromWire);
    return "$bytes" in x ? toView(x.$bytes) : Object.fromEntries(Object.entries(x).map(([k, v]) => [k, fromWire(v)]));
  };
  const plain = (x) => (x instanceof DataView ? undefined : x);
  const values = {}, listeners = {}, outbox = [];
  let dirty = new Set();
  const tell = (name, ...said) => { for (const f of [...(listeners[name] ?? [])]) f(...said); };
  const same = (a, b) => !(a instanceof DataView) && !Array.isArray(a) && JSON.stringify(a) === JSON.stringify(b);
  window.model = {
    get: (name) => values[name],
    set: (name, value) => {
      if (same(values[name], value)) return;
      values[name] = value;
      dirty.add(name);
      tell(`change:${name}`);
    },
    save_changes: () => {
      const state = Object.fromEntries([...dirty].map((n) => [n, structuredClone(plain(values[n]))]));
      if (dirty.size) outbox.push({ state });
      dirty = new Set();
    },
    on: (name, f) => (listeners[name] ??= new Set()).add(f),
    off: (name, f) => listeners[name]?.delete(f),
    send: (content) => outbox.push({ custom: structuredClone(content) }),
  };
  window.bridge = {
    take: () => outbox.splice(0),
    state: (state) => {
      const fresh = fromWire(state), changed = Object.keys(fresh).filter((n) => !same(values[n], fresh[n]));
      Object.assign(values, fresh);
      for (const name of changed) tell(`change:${name}`);
    },
    message: (content, buffers) => tell("msg:custom", content, buffers.map(toView)),
    start: async (source) => {
      const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      const module = await import(url);
      const el = document.getElementById("el");
      window.stop = module.default.render({ model: window.model, el });
      window.module = module;
    },
  };
})();
"""
FOREIGN = """(root) => {
  const ours = new Set(("SECTION ARTICLE DIV SPAN P B SUB DL DT DD UL LI DETAILS SUMMARY CANVAS PROGRESS " +
    "LABEL FIELDSET LEGEND SELECT OPTION INPUT TEXTAREA BUTTON OUTPUT TABLE CAPTION THEAD TBODY TR TH TD").split(" "));
  const found = [];
  for (const node of root.querySelectorAll("*")) {
    if (!ours.has(node.tagName)) found.push(node.tagName);
    for (const { name, value } of node.attributes) {
      const said = name === "aria-label" || name === "title" || name === "placeholder";
      const acts = name.startsWith("on") || name === "href" || name === "src" || /javascript:/i.test(value);
      if (acts && !said) found.push(`${node.tagName} ${name}`);
    }
  }
  return found;
}"""


class Loopback(BaseComm):
    """Keep what a face sends to its front end until the page takes it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[dict[str, Any], list[bytes]]] = []
        super().__init__(target_name="jupyter.widget", data={}, comm_id="loopback")

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        if msg_type == "comm_msg":
            self.waiting.append((data, [bytes(b) for b in buffers or ()]))


class ModulePage:
    """Hold a page in which a module runs, and everything that went wrong in it."""

    def __init__(self, page: Page, face: Any = None) -> None:
        self.page, self.face = page, face
        self.saved: list[dict[str, Any]] = []
        self.sent: list[Any] = []
        self.problems: list[str] = []
        page.on("console", lambda said: self.problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._requested(request.url))
        page.on("dialog", lambda dialog: (self.problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.comm = Loopback()
        if face is not None:
            face.comm = self.comm

    def _requested(self, url: str) -> None:
        if not url.startswith(("blob:", "data:", "about:")):
            self.problems.append(f"request {url}")

    def start(self, module: str, css: str, state: Mapping[str, Any], theme: str | None) -> None:
        attribute = f' data-jp-theme-light="{"true" if theme == "light" else "false"}"' if theme else ""
        self.page.set_content(
            '<!doctype html><html lang="en"><head><title>widget</title><meta charset="utf-8">'
            "<style>body { margin: 12px; background: light-dark(#fff, #111); color-scheme: light dark; }"
            'body[data-jp-theme-light="true"] { color-scheme: light; } body[data-jp-theme-light="false"] '
            f"{{ color-scheme: dark; }}</style></head><body{attribute}>"
            '<main><h1 style="font-size:14px">widget</h1><div id="el"></div></main></body></html>'
        )
        if css:
            self.page.add_style_tag(content=css)
        self.page.evaluate(BRIDGE)
        self.page.evaluate("(s) => bridge.state(s)", wire(state))
        self.page.evaluate("(s) => bridge.start(s)", module)
        self.sync()

    def find(self, selector: str) -> Locator:
        """Return a locator below the widget's element."""
        return self.page.locator(f"#el {selector}")

    def tell(self, **state: Any) -> None:
        """Change the model as the kernel would."""
        self.page.evaluate("(s) => bridge.state(s)", wire(state))

    def message(self, content: Any, buffers: Sequence[bytes] = ()) -> None:
        """Send a custom message as the kernel would."""
        self.page.evaluate("([c, b]) => bridge.message(c, b)", [content, [b64encode(b).decode() for b in buffers]])

    def sync(self, wait_ms: int = 0) -> None:
        """Carry what the page saved and sent to the Python side, and its answers back, until both are quiet."""
        if wait_ms:
            self.page.wait_for_timeout(wait_ms)
        for _ in range(20):
            out = self.page.evaluate("() => bridge.take()")
            for said in out:
                self._deliver(said)
            answers, self.comm.waiting = self.comm.waiting, []
            for data, buffers in answers:
                self._answer(data, buffers)
            if not out and not answers:
                return
        raise AssertionError("page and kernel do not come to rest")

    def _deliver(self, said: dict[str, Any]) -> None:
        if "state" in said:
            self.saved.append(said["state"])
            data = {"method": "update", "state": said["state"], "buffer_paths": []}
        else:
            self.sent.append(said["custom"])
            data = {"method": "custom", "content": said["custom"]}
        if self.face is not None:
            self.comm.handle_msg({"content": {"data": data}, "buffers": []})

    def _answer(self, data: dict[str, Any], buffers: list[bytes]) -> None:
        if data["method"] == "custom":
            self.message(data["content"], buffers)
        elif data["method"] == "update":
            state: dict[str, Any] = data["state"]
            for path, buffer in zip(data.get("buffer_paths", ()), buffers, strict=True):
                place: Any = state
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = buffer
            self.tell(**{name: value for name, value in state.items() if not name.startswith("_")})

    def tripped(self) -> bool:
        """Tell whether a text was executed."""
        return bool(self.page.evaluate("() => window.tripped"))

    def foreign(self) -> list[str]:
        """Return every element and attribute below the widget that no widget of ours makes."""
        return self.page.evaluate(FOREIGN, self.page.query_selector("#el"))

    def assert_clean(self) -> None:
        assert self.problems == []
        assert not self.tripped()
        assert self.foreign() == []


def wire(value: Any) -> Any:
    """Return a value as JSON takes it, bytes marked as such."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": b64encode(bytes(value)).decode()}
    if isinstance(value, Mapping):
        return {k: wire(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [wire(v) for v in value]
    return value


def unwire(text: str) -> bytes:
    return b64decode(text)


@contextmanager
def browser_at(path: str) -> Iterator[Browser]:
    """Run the Chromium at `path`; one is enough for a whole file of tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def module_page(
    browser: Browser,
    face: Any = None,
    *,
    module: str | None = None,
    css: str = "",
    state: Mapping[str, Any] | None = None,
    width: int = 1280,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
    theme: Literal["light", "dark"] | None = None,
    **context: Any,
) -> Iterator[ModulePage]:
    """Open a module: that of a face (an anywidget), or `module` with `css` and a made-up `state`.

    `scheme` is what the system prefers, `theme` what JupyterLab is set to (None: not in JupyterLab). `context` goes to
    the browser's context (reduced_motion, forced_colors, java_script_enabled ...).
    """
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **context)
    opened = ModulePage(page, face)
    try:
        if face is not None:
            names = [n for n in face.trait_names(sync=True) if not n.startswith("_") and n not in ("layout", "comm")]
            state = {name: getattr(face, name) for name in names}
            module, css = str(face._esm), str(face._css)
        opened.start(module or "", css, state or {}, theme)
        yield opened
    finally:
        page.close()
