"""A prompt typed in the notebook, continued by base or aligned, and read token by token while it is written."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import traitlets
from ipywidgets import DOMWidget, VBox

from widgets.token_lens import LensSelection, TokenLens
from widgets.window import Face, source
from widgets.worker import State, Turn, Writer, counted
from workbench.core.errors import ParameterError
from workbench.core.legible import html_text
from workbench.core.quantities import quantity_named
from workbench.display.views import HarmfulText, View, token_view
from workbench.display.views.view import section, style_text
from workbench.prompts.loading import Prompt
from workbench.tracing.records import TraceSet

if TYPE_CHECKING:
    from workbench.models.pair import ModelPair


@dataclass(frozen=True, kw_only=True)
class ProbeQuestion:
    """Hold what is asked: the prompt, the given beginning of the response, and who continues it, how.

    Temperature 0 is greedy; `max_tokens` bounds the response, prefix included.
    """

    prompt: str = ""
    prefix: str = ""
    system_prompt: str = ""
    continued_by: Literal["base", "aligned"] = "aligned"
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class ProbeSelection:
    """The last question, its state, the number of tokens, and the selection in the text."""

    question: ProbeQuestion
    state: State
    tokens: int
    lens: LensSelection | None


class ProbeFace(Face):
    """The form: `asked` is the page's request, `form` the fields' values, `state` the progress."""

    _esm = source("parts/dom.js", "live_probe.js")
    _css = style_text() + source("parts/controls.css", "live_probe.css")
    form = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)


class LiveProbe(Writer[ProbeSelection]):
    """Type a prompt and, if wanted, the beginning of the response; base or aligned continues it, token by token.

    Every token is scored under both models as it comes and shown in a TokenLens (`lens`); `traces` is the record, which
    saves like any other. The work has a thread of its own, so the kernel stays free: a new start replaces what runs, a
    stop keeps what is there. The further arguments are the fields of ProbeQuestion and what the form shows at first.

    What is typed has no label, and `harmful_text` "show" shows it, since the person typed it. With "blur", "redact" or
    "auto" what is typed counts as harmful: the record says so and the text is covered as in every other view. Listeners
    are called in the thread of the work.
    """

    def __init__(
        self,
        pair: ModelPair,
        *,
        quantity: str = "excess_mass",
        harmful_text: HarmfulText = "show",
        live: bool | None = None,
        **question: Any,
    ) -> None:
        self.pair, self.harmful_text = pair, harmful_text
        self.traces: TraceSet | None = None
        self.lens: TokenLens | None = None
        self._quantity = quantity_named(quantity).name
        self._box: VBox | None = None
        self._laying_out = threading.Lock()
        first = ProbeSelection(question=ProbeQuestion(**question), state="idle", tokens=0, lens=None)
        super().__init__(first, "live probe", live=live)

    # --------------------------------------------------------------------------------------------- for programs

    def start(self, **question: Any) -> None:
        """Start, with these fields of ProbeQuestion changed; return at once. What ran before is replaced."""
        asked = dataclasses.replace(self.selection.question, **question)
        self._worker.stop()
        self._begin(asked)
        self._worker.start(lambda turn: self._work(turn, asked), self._failed)

    def to_frame(self) -> Any:
        """Return the lens's data frame, one row a token; an empty one before the first token."""
        import pandas as pd

        return pd.DataFrame() if self.lens is None or self.traces is None else self.lens.to_frame()

    def static(self) -> View:
        """Return the response as the report shows it, or what the probe is for where there is none yet."""
        if self.traces is not None and self.traces.responses:
            quantity = self._quantity if self.lens is None else self.lens.selection.quantity
            return token_view(self.traces, 0, quantity=quantity, harmful_text=self.harmful_text)
        title = f"Live probe of {self.pair.name}"
        said = "Type a prompt and let base or aligned continue it. This needs a running notebook: run its cells first."
        body = section("about", title, f'<p class="wb-title">{html_text(title)}</p><p>{html_text(said)}</p>')
        return View(title=title, body=body, text=f"{title}. {said}")

    # --------------------------------------------------------------------------------------------- the work

    def _work(self, turn: Turn, asked: ProbeQuestion) -> None:
        from workbench.tracing.streaming import StreamConfig, stream

        self._publish(turn, lambda: self._begin(asked))  # again: what ran before may have told something in between
        prompt = Prompt(
            id="typed",
            prompt=asked.prompt,
            label="unlabelled" if self.harmful_text == "show" else "harmful",
            response=asked.prefix or None,
        )
        config = StreamConfig(
            continued_by=asked.continued_by,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            system_prompt=asked.system_prompt or None,
        )
        grown = self._growing(turn, lambda growing: growing.traces(), lambda traces: self._show(traces, "running"))
        traces = stream(self.pair, prompt, config, on_token=grown, cancelled=turn.cancelled)
        ended: State = "finished" if traces.responses and traces.responses[0].stop != "stopped" else "stopped"
        self._publish(turn, lambda: self._show(traces, ended))

    def _begin(self, asked: ProbeQuestion) -> None:
        self.traces = None
        self._tell(question=asked, state="running", tokens=0)
        if self._shown is not None:
            self._shown.form = self._form()
            self._shown.error = ""

    def _show(self, traces: TraceSet, state: State) -> None:
        """Show what there is of a response: in the lens, as `traces`, and in the selection."""
        if traces.responses:
            self.traces = traces
            self._read(traces)
        self._tell(state=state, tokens=int(traces.mask.sum()))

    def _read(self, traces: TraceSet) -> None:
        if self.lens is not None:
            self.lens.read(traces)
            return
        self.lens = TokenLens(traces, quantity=self._quantity, harmful_text=self.harmful_text, live=self.live)
        self.lens.on_select(lambda _: self._tell())
        self._lay_out()

    def _failed(self, turn: Turn, error: Exception) -> None:
        def fail() -> None:
            self._tell(state="failed")
            self._say(error)

        self._publish(turn, fail)

    def _tell(self, **changes: Any) -> None:
        opened = None if self.lens is None else self.lens.selection
        self._select(dataclasses.replace(self.selection, **changes, lens=opened))
        if self._shown is not None:
            self._shown.state = self._state()

    # --------------------------------------------------------------------------------------------- live

    def _face(self) -> ProbeFace:
        return ProbeFace(form=self._form(), state=self._state())

    def _root(self) -> DOMWidget:
        """Return the form, and below it the text as soon as there is one."""
        if self._box is None:
            self._box = VBox([self.face])
            self._box.add_class("wb-probe-panel")
        self._lay_out()
        return self._box

    def _lay_out(self) -> None:
        with self._laying_out:  # displayed while it runs, two threads come here
            if self._box is not None and self.lens is not None:
                self._box.children = (self.face, self.lens.face)

    def _do(self, asked: Mapping[str, Any]) -> None:
        if asked.get("do") == "start":
            self.start(**_question(asked))
        elif asked.get("do") == "stop":
            self.stop()

    def _form(self) -> dict[str, Any]:
        return dataclasses.asdict(self.selection.question)

    def _state(self) -> dict[str, Any]:
        now = self.selection
        return {"state": now.state, "said": self._sentence(), "tokens": now.tokens}

    def _sentence(self) -> str:
        """Return the state in words; while it runs without the number of tokens, which a screen reader would repeat."""
        now = self.selection
        who, tokens = now.question.continued_by, counted(now.tokens)
        if now.state == "finished" and self.traces is not None:
            ended = self.traces.responses[0].stop == "end"
            return f"{who} ended by itself after {tokens}." if ended else f"Cut at the longest response, {tokens}."
        return {
            "idle": "Type a prompt and start.",
            "running": f"{who} continues.",
            "stopped": f"Stopped after {tokens}." if now.tokens else "Stopped before the first token.",
            "failed": f"Failed after {tokens}." if now.tokens else "Could not start.",
        }.get(now.state, "")


def _question(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form's values as fields of ProbeQuestion. Raises ParameterError for a value that is not a number."""
    found: dict[str, Any] = {n: str(asked[n]) for n in ("prompt", "prefix", "system_prompt", "continued_by")}
    for name, kind in (("temperature", float), ("seed", int), ("max_tokens", int)):
        value = asked[name]
        if not isinstance(value, int | float) or (kind is int and int(value) != value):
            raise ParameterError(f"{name.replace('_', ' ')} must be {'a' if kind is float else 'a whole'} number")
        found[name] = kind(value)
    return found
