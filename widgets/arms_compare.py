"""Several arms on one beginning: the recorded answers side by side, and in a live notebook any prompt that is typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import traitlets

from widgets.window import Face, source
from widgets.worker import State, Turn, Writer, counted
from workbench.core.configs import at_least, check_fields
from workbench.core.errors import ParameterError
from workbench.core.records import Label
from workbench.display.views import HarmfulText, View
from workbench.display.views.beside import answers, page_data
from workbench.display.views.view import beside_script, style_text
from workbench.evaluation.records import AnswersBeside, ArmAnswer, AskedArms

if TYPE_CHECKING:
    from workbench.evaluation.attacks import Arm

TYPED = "typed"
"""The id of prompts that a person typed."""


@dataclass(frozen=True, kw_only=True)
class ArmsQuestion:
    """What is asked: a prompt, the given beginning of the response, and how many tokens each arm may add."""

    prompt: str = ""
    beginning: str = ""
    max_tokens: int = 48

    def __post_init__(self) -> None:
        check_fields(self, max_tokens=at_least(1))


@dataclass(frozen=True, kw_only=True)
class ArmsSelection:
    """The last question, its state, and how many tokens all arms together have written."""

    question: ArmsQuestion
    state: State
    tokens: int


class ArmsFace(Face):
    """The page's side: `data` is what is drawn, `form` the fields, `state` the progress, `asked` the page's wish."""

    data = traitlets.Dict().tag(sync=True)
    form = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)


class ArmsCompare(Writer[ArmsSelection]):
    """Arms side by side after the same given tokens: verdicts, where the refusal begins, KL to the reference.

    `record` are answers that were recorded (`wb.answers_beside`); without a kernel they are all there is. Live, a typed
    prompt is continued by every arm together, greedily, a token of each in turn, and stays below the recorded ones;
    `record` then holds both. A new start replaces what runs, a stop keeps what is there. What is typed is shown, since
    the person typed it; `harmful_text` decides about the recorded prompts, and about typed ones where it is "redact" or
    "blur". Verdicts on typed prompts are by the refusal rules.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        record: AnswersBeside | None = None,
        *,
        reference: str = "aligned",
        given: int = 10,
        harmful_text: HarmfulText = "auto",
        live: bool | None = None,
        **question: Any,
    ) -> None:
        if not arms:
            raise ParameterError("no arm was given to compare: give at least one")
        names = tuple(arm.name for arm in arms)
        empty = AnswersBeside(arms=names, reference=reference, prompt_set=TYPED, classroom_safe=False, asked=())
        self.arms, self.given, self.harmful_text = tuple(arms), given, harmful_text
        self.record = record or empty
        first = ArmsSelection(question=ArmsQuestion(**question), state="idle", tokens=0)
        super().__init__(first, "arms side by side", live=live)

    # --------------------------------------------------------------------------------------------- for programs

    def start(self, **question: Any) -> None:
        """Start, with these fields of ArmsQuestion changed; return at once. What ran before is replaced."""
        asked = dataclasses.replace(self.selection.question, **question)
        if not asked.prompt.strip():
            raise ParameterError("the prompt is empty: type what to ask")
        self._worker.stop()
        self._tell(question=asked, state="running", tokens=0)
        self._worker.start(lambda turn: self._work(turn, asked), self._failed)

    def to_frame(self) -> Any:
        """Return a data frame, one row for each token of each answer."""
        import pandas as pd

        rows = [
            {
                "prompt_id": one.prompt_id,
                "given": a.given,
                "arm": a.arm,
                "verdict": a.verdict,
                "token": n,
                "text": piece,
                "kl_nats": a.kl_nats[n - 1] if n <= len(a.kl_nats) else None,
            }
            for one in self.record.asked
            for a in one.answers
            for n, piece in enumerate(a.pieces, 1)
        ]
        return pd.DataFrame(rows)

    def static(self) -> View:
        """Return the recorded answers as the report shows them; they can be read in full without a kernel."""
        return answers(self.record, given=self.given, harmful_text=self.harmful_text)

    # --------------------------------------------------------------------------------------------- the work

    def _work(self, turn: Turn, asked: ArmsQuestion) -> None:
        from workbench.evaluation.beside import refused_at
        from workbench.evaluation.together import continue_together
        from workbench.judging.refusal import read
        from workbench.models.pieces import Pieces
        from workbench.prompts.loading import Prompt

        before = self.record
        label: Label = "harmful" if self.harmful_text in ("blur", "redact") else "unlabelled"
        prompt = Prompt(id=TYPED, prompt=asked.prompt, label=label, response=asked.beginning or None)
        passages = [arm.pair.passage(prompt) for arm in self.arms]
        display = [Pieces(arm.pair.tokenizer) for arm in self.arms]
        ids = [list[int]() for _ in self.arms]
        steps = [list[Any]() for _ in self.arms]

        def so_far(ended: bool) -> AnswersBeside:
            made = []
            for n, arm in enumerate(self.arms):
                shown = display[n].sequence(ids[n], passages[n].whole("aligned"))
                pieces = tuple(p.text for p in shown)
                verdict = (read("".join(pieces), asked.prompt).verdict or "unscored") if ended else "writing"
                made.append(
                    ArmAnswer(
                        arm=arm.name,
                        given=passages[n].given,
                        pieces=pieces,
                        verdict=verdict,
                        refused_at=refused_at(pieces, verdict, asked.prompt),
                        kl_nats=tuple(float("nan") if s.kl_nats is None else s.kl_nats for s in steps[n]),
                        wanted=tuple(s.wanted for s in steps[n]),
                    )
                )
            given = str(passages[0].given)
            typed = AskedArms(
                prompt_id=TYPED, prompt=asked.prompt, label=label, beginnings={given: asked.beginning}, answers=(*made,)
            )
            return dataclasses.replace(before, arms=tuple(a.name for a in self.arms), asked=(*before.asked, typed))

        def read_so_far(step: Any) -> AnswersBeside:
            return so_far(False)

        grown = self._growing(turn, read_so_far, lambda record: self._show(record, "running"))
        together = continue_together(
            self.arms, passages, reference=before.reference, max_tokens=asked.max_tokens, cancelled=turn.cancelled
        )
        for step in together:
            ids[step.arm].append(step.token_id)
            steps[step.arm].append(step)
            grown(step)
        ended: State = "stopped" if turn.cancelled() else "finished"
        self._publish(turn, lambda: self._show(so_far(True), ended))

    def _show(self, record: AnswersBeside, state: State) -> None:
        self.record = record
        written = sum(len(a.pieces) for a in record.asked[-1].answers)
        if self._shown is not None:
            self._shown.data = self._data(latest=True)
        self._tell(state=state, tokens=written)

    def _failed(self, turn: Turn, error: Exception) -> None:
        def fail() -> None:
            self._tell(state="failed")
            self._say(error)

        self._publish(turn, fail)

    def _tell(self, **changes: Any) -> None:
        self._select(dataclasses.replace(self.selection, **changes))
        if self._shown is not None:
            self._shown.state = self._state()
            self._shown.form = dataclasses.asdict(self.selection.question)

    # --------------------------------------------------------------------------------------------- live

    def _face(self) -> ArmsFace:
        form = dataclasses.asdict(self.selection.question)
        return ArmsFace(data=self._data(), form=form, state=self._state())

    def _data(self, latest: bool = False) -> dict[str, Any]:
        return {**page_data(self.record, given=self.given, harmful_text=self.harmful_text), "latest": latest}

    def _state(self) -> dict[str, Any]:
        now = self.selection
        said = {
            "idle": "Type a prompt and start.",
            "running": f"{len(self.arms)} arms continue.",
            "finished": f"Done: {counted(now.tokens)} of all arms together.",
            "stopped": f"Stopped after {counted(now.tokens)} of all arms together.",
            "failed": "Could not go on.",
        }[now.state]
        return {"state": now.state, "said": said}

    def _do(self, asked: Mapping[str, Any]) -> None:
        if asked.get("do") == "start":
            longest = asked["max_tokens"]
            if not isinstance(longest, int | float) or int(longest) != longest:
                raise ParameterError("longest answer must be a whole number")
            self.start(prompt=str(asked["prompt"]), beginning=str(asked["beginning"]), max_tokens=int(longest))
        elif asked.get("do") == "stop":
            self.stop()


ArmsFace._esm = source("parts/dom.js") + beside_script() + source("arms_compare.js")
ArmsFace._css = style_text() + source("parts/controls.css", "live_probe.css")
