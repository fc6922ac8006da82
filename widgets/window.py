"""What every widget shares: a frozen selection, a static form that needs no kernel, and in a live notebook a view.

A widget is an ordinary Python object. Only when a live front end displays it does it make its `anywidget`, so a
headless run makes no comm, no widget state and no script, just the static form. design/live_and_static.md says how the
two forms share an output.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import anywidget
import traitlets
from ipywidgets import DOMWidget

from workbench.core.legible import prose, sentence
from workbench.display.views import View

HERE = Path(__file__).parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
log = logging.getLogger("widgets")


def _legible(record: logging.LogRecord) -> bool:
    """Write a record's traceback legibly: an error may quote a model's text, with control characters in it."""
    if record.exc_info and not record.exc_text:
        record.exc_text = prose("".join(traceback.format_exception(*record.exc_info)).rstrip(), most=100_000)
    return True


log.addFilter(_legible)

S = TypeVar("S")


def is_live() -> bool:
    """Tell whether a person's front end, not a headless runner, displays what this kernel shows.

    A front end with a person (JupyterLab, Notebook, VS Code) lets a cell ask for input; nbclient, and with it papermill
    and nbconvert, does not. Voila runs cells through nbclient too, but for a person, and says so in the environment.
    """
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila/"):
        return True
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    kernel = getattr(shell, "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def source(*names: str) -> str:
    """Return files of this folder as one text: an ES module here cannot import another, so shared parts go first."""
    return "\n".join((HERE / name).read_text("utf-8") for name in names)


class Face(anywidget.AnyWidget):
    """The side of a widget that the browser sees. `error` is shown in the widget, as text, until the next success."""

    error = traitlets.Unicode("").tag(sync=True)


class Window(Generic[S]):
    """Show a record live, and give back what the person selected as a frozen value.

    A subclass gives `static()` (the view without a kernel), `to_frame()`, and `_face()` (the anywidget, made at first
    display), and calls `_select` with a new selection. `live` None asks the front end at each display; True and False
    decide. What the page asks for (the face's trait `asked`) goes to `_do`; callbacks run inside `_errors_shown()`.
    """

    def __init__(self, selection: S, *, live: bool | None = None) -> None:
        self.live = live
        self._selection = selection
        self._listeners: list[Callable[[S], object]] = []
        self._shown: Face | None = None
        self._complained = False  # the last thing said was raised by a listener

    @property
    def selection(self) -> S:
        """Return what is selected now: a frozen value."""
        return self._selection

    def on_select(self, listener: Callable[[S], object]) -> Callable[[], None]:
        """Call `listener(selection)` at every change; return a function that stops it.

        What a listener raises is shown in the widget and logged with its traceback; the other listeners still hear.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def static(self) -> View:
        """Return the same view as static HTML, text and rows."""
        raise NotImplementedError

    def to_html(self) -> str:
        """Return the static form as one self-contained piece of HTML."""
        return self.static().html

    @property
    def face(self) -> Face:
        """Return the anywidget behind this view; it is made when first asked for."""
        if self._shown is None:
            self._shown = self._face()
            if self._shown.has_trait("asked"):
                self._shown.observe(self._asked, "asked")
        return self._shown

    def _face(self) -> Face:
        raise NotImplementedError

    def _asked(self, change: Any) -> None:
        with self._errors_shown():
            self._do(change["new"])

    def _do(self, asked: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _root(self) -> DOMWidget:
        """Return the widget that an output shows: the face, unless a subclass lays out more around it."""
        return self.face

    def _select(self, selection: S) -> None:
        if selection == self._selection:
            return
        self._selection = selection
        errors = [e for listener in tuple(self._listeners) if (e := self._heard(listener, selection)) is not None]
        if errors or self._complained:
            self._say(errors[-1] if errors else None)
        self._complained = bool(errors)

    def _heard(self, listener: Callable[[S], object], selection: S) -> Exception | None:
        try:
            listener(selection)
        except Exception as error:
            log.exception("a listener of %s raised", type(self).__name__)
            return error
        return None

    @contextmanager
    def _errors_shown(self, *, wish: bool = True) -> Iterator[None]:
        """Run what the page asked for: what it, or a listener, raises is shown in the widget and logged.

        A person's wish takes away the error of the one before; what a page asks for by itself (`wish` False) does not.
        """
        if wish:
            self._say(None)
        try:
            yield
        except Exception as error:
            log.exception("%s could not do what the page asked for", type(self).__name__)
            self._say(error)

    def _say(self, error: Exception | None) -> None:
        if self._shown is not None:
            self._shown.error = "" if error is None else sentence(f"{type(error).__name__}: {error}")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.static()._repr_mimebundle_()

    def _ipython_display_(self) -> None:
        """Display the static form and, where a person is there to use it, the live one, which covers it."""
        if not (is_live() if self.live is None else self.live):
            raise NotImplementedError  # IPython then shows what _repr_mimebundle_ returns
        from IPython.display import display

        root, static = self._root(), self.static()._repr_mimebundle_()
        name = f"wb-live-{root.model_id}"
        root.add_class("wb-live").add_class(name)
        rules = source("window.css").replace("NAME", name)
        covered = f'<div class="wb-still {name}-still"><style>{rules}</style>{static["text/html"]}</div>'
        view = {"model_id": root.model_id, "version_major": 2, "version_minor": 0}
        display({**static, "text/html": covered}, raw=True)
        display({WIDGET_VIEW: view, "text/html": "<span></span>", "text/plain": ""}, raw=True)
