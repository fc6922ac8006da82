"""A penalty turned by hand: one prompt continued anew at every move, its ledger, and branches from any token of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import traitlets

from widgets.dial_payload import PENALISED, ledger_column
from widgets.token_lens import READER, scale
from widgets.window import Face, log, source
from widgets.worker import State, Turn, Writer, counted
from workbench.core import legible
from workbench.core.errors import ParameterError
from workbench.core.quantities import Quantity, quantity_named
from workbench.decoding.records import LEDGER, BranchTree, Continuations
from workbench.display.views import HarmfulText, View, branch_tree, ledger_table
from workbench.display.views.branches import VERDICTS, said_of
from workbench.display.views.responses import COVER, treatment_of
from workbench.display.views.scales import NOTABLE_SHIFT_NATS
from workbench.display.views.view import style_text

if TYPE_CHECKING:
    from workbench.core.store import Store
    from workbench.decoding.config import PenaltyConfig
    from workbench.decoding.contexts import DecodeConfig
    from workbench.decoding.live import Writing
    from workbench.evaluation.branching import Judging
    from workbench.judging.records import Judgement
    from workbench.models.pair import ModelPair
    from workbench.prompts.loading import PromptSet

STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0)
GAMMAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
MASKS = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5)
POSITIONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60)
HEARD = 16
"""How many pages are remembered by what they asked for last."""

LEVERAGE = Quantity(
    name="leverage",
    title="leverage: probability that the penalty moved, TV(penalised, without it), 0 to 1",
    short="leverage",
    unit="probability",
    edges=(0.05, 0.15, 0.3, 0.5, 0.75),
    ramp="slate",
    negative_ramp=None,
    means="How much the penalty did at this position: 0 where it did nothing, 1 where it moved all of it.",
)


@dataclass(frozen=True, kw_only=True)
class DialSelection:
    """The penalty that the dial is set to, the state of its continuation, and the branch that is shown.

    `penalty` is a PenaltyConfig, ready for generation and training. `tokens` counts the generated tokens of the branch
    that is shown; branch 0 is the response as it was written.
    """

    penalty: PenaltyConfig
    state: State
    tokens: int
    branch: int


@dataclass(frozen=True, kw_only=True)
class _Fork:
    """Where a branch leaves another, and by which token."""

    parent: Writing
    branch: int
    position: int
    token_id: int


class DialFace(Face):
    """The page's side: `dial` seldom changes, `form` are the settings, `shown` is the state.

    `still` holds base and aligned, `moving` the penalised text. `asked` is what a page wants, numbered by each page;
    `shown["heard"]` says which of its wishes each page was heard of last.
    """

    _esm = source(*READER, "dial_panel.js", "penalty_dial.js")
    _css = style_text() + source("parts/controls.css", "token_lens.css", "penalty_dial.css")
    dial = traitlets.Dict().tag(sync=True)
    form = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    still: traitlets.List[bytes] = traitlets.List().tag(sync=True)
    moving = traitlets.Bytes(b"").tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)


class PenaltyDial(Writer[DialSelection]):
    """Turn a penalty and watch one prompt being continued under it, beside base and aligned alone.

    The prompt is the `example`-th harmful one of `prompts` (from 1) whose given response has `prefix_tokens` tokens,
    which the continuation begins with. `penalty` is where the dial starts (None: PenaltyConfig()); its retention, if it
    has one, serves shape "undertrained". Every change generates anew in a thread of its own: the latest wins, a stop
    keeps what is there. At any token of the penalised text another candidate can be taken (`branch`); `tree` holds
    these branches of the present penalty with the verdict of `judge`, a callable (prompt, given text, generated text)
    -> Judgement such as wb.TextJudge. `branches` other tokens are tried at once, where base and aligned
    differ most. `store` keeps what is generated before the dial is first moved.

    `harmful_text` as in TokenLens: "auto" covers harmful text that is not classroom-safe until a person reveals it, and
    withholds it from exports. Listeners are called in the thread of the work. Raises ParameterError for a penalty that
    no generator may use (w < 0), and what `evaluation.example.example_prompt` and `decode` raise.
    """

    def __init__(
        self,
        pair: ModelPair,
        prompts: PromptSet,
        penalty: PenaltyConfig | None = None,
        *,
        example: int = 1,
        prefix_tokens: int = 10,
        max_tokens: int = 96,
        system_prompt: str | None = None,
        judge: Judging | None = None,
        branches: int = 0,
        store: Store | None = None,
        harmful_text: HarmfulText = "auto",
        live: bool | None = None,
    ) -> None:
        from workbench.decoding.config import PenaltyConfig, check_generates
        from workbench.decoding.live import Writing
        from workbench.evaluation.example import continue_three_ways, example_prompt, start_of
        from workbench.models.pieces import Pieces

        penalty = penalty or PenaltyConfig()
        check_generates(penalty)
        self.pair, self.prompts, self.judge, self.harmful_text = pair, prompts, judge, harmful_text
        self._max_tokens, self._system_prompt = max_tokens, system_prompt
        self._retention = penalty.retention
        self._wishes: dict[str, int] = {}
        self._revealed: frozenset[str] = frozenset()  # the pages that want to see covered text
        self._serial = 0
        self.prompt = example_prompt(pair, prompts, example=example, prefix_tokens=prefix_tokens)
        self._start = start_of(pair, self.prompt, prefix_tokens, system_prompt=system_prompt)
        self._given = Pieces(pair.tokenizer).sequence(self._start.response, context=self._start.aligned)
        made = continue_three_ways(
            pair,
            prompts,
            penalty,
            example=example,
            prefix_tokens=prefix_tokens,
            max_tokens=max_tokens,
            system_prompt=system_prompt,
            store=store,
        )
        self.arms: Mapping[str, Continuations] = {name: made[name] for name in ("base", "aligned")}
        self._form = _form(penalty)
        super().__init__(DialSelection(penalty=penalty, state="running", tokens=0, branch=0), "penalty dial", live=live)
        self._clear(penalty)
        record = made[penalty.title]
        taken_up = Writing.of(pair, self._start, self._config(penalty), record, prompts=prompts)
        self._finish(taken_up, record, self._judged(record))
        for candidate in self._others(branches):
            self.branch(*candidate, branch=0)
            self.wait()
        if branches:
            self.open(0)

    # --------------------------------------------------------------------------------------------- for programs

    @property
    def tree(self) -> BranchTree:
        """Return the branches under the present penalty, as far as they are finished: a frozen record."""
        return self._tree

    @property
    def made(self) -> Continuations:
        """Return the continuation that is shown, with its ledger, as far as it is written."""
        return self._record

    def set(self, **settings: Any) -> None:
        """Turn the dial: fields of PenaltyConfig; return at once. What ran before is replaced, and so is the tree.

        What a shape or method does not use is left out of the penalty and kept for later. Raises ParameterError for an
        impossible value and for a penalty that no generator may use (w < 0).
        """
        with self._telling:
            form = {**self._form, **_known(settings)}
            penalty = _penalty(form, self._retention)
            self._form = {**form, "strength": penalty.strength}
            self._worker.stop()
            self._clear(penalty)
            self._worker.start(lambda turn: self._write(turn, penalty), self._failed)

    def branch(self, position: int, token_id: int, branch: int | None = None) -> None:
        """Take another token at a 1-based position of a finished branch (None: the one shown), and continue from there.

        Returns at once. Raises ParameterError for a branch or position that is not there, and while something is still
        being written.
        """
        with self._telling:
            self._check_rest("branch off")
            parent = self.selection.branch if branch is None else branch
            self._check_branch(parent)
            of = self._written[parent]
            first = len(of.start.response) + 1
            if not first <= position < first + len(of.ids):
                raise ParameterError(
                    f"position {position} was not generated: branch {parent} has positions {first} to "
                    f"{first + len(of.ids) - 1}"
                )
            penalty = self.selection.penalty
            self._tell(state="running")
            fork = _Fork(parent=of, branch=parent, position=position, token_id=token_id)
            self._worker.start(lambda turn: self._write(turn, penalty, fork), self._failed)

    def open(self, branch: int) -> None:
        """Show a finished branch. Raises ParameterError for one that is not there, and while something is written."""
        with self._telling:
            self._check_rest("open a branch")
            self._check_branch(branch)
            self._return_to(branch)

    def to_frame(self) -> Any:
        """Return the ledger of the branch that is shown, one row a generated token. Covered text is not in it."""
        import pandas as pd

        return pd.DataFrame(list(ledger_table(self._record, harmful_text=self.harmful_text).rows))

    def static(self) -> View:
        """Return the tree of branches under the present penalty: its first is the continuation itself."""
        return branch_tree(self._tree, harmful_text=self.harmful_text)

    # --------------------------------------------------------------------------------------------- the work

    def _config(self, penalty: PenaltyConfig) -> DecodeConfig:
        from workbench.decoding.contexts import DecodeConfig
        from workbench.models.generation import GenerateConfig

        return DecodeConfig(
            penalty=penalty,
            generation=GenerateConfig(max_tokens=self._max_tokens),
            system_prompt=self._system_prompt,
        )

    def _others(self, most: int) -> list[tuple[int, int]]:
        """Return (position, token) of the likeliest other tokens where base and aligned differ most."""
        from workbench.evaluation.branching import candidates, widest

        ids = self._written[0].ids
        if not most or not ids:
            return []
        position = widest(self._record)
        chosen = ids[position - len(self._start.response) - 1]
        return [(position, c.token_id) for c in candidates(self._record, position) if c.token_id != chosen][:most]

    def _write(self, turn: Turn, penalty: PenaltyConfig, fork: _Fork | None = None) -> None:
        from workbench.decoding.live import write

        where: dict[str, Any] = {}
        if fork is not None:
            where = dict(branch_of=fork.parent, position=fork.position, token_id=fork.token_id)
        shown = self._growing(turn, lambda writing: writing.record(), self._show)
        said: dict[str, Any] = dict(prompts=self.prompts, on_token=shown, cancelled=turn.cancelled)
        writing = write(self.pair, self._start, self._config(penalty), **where, **said)
        record = writing.record()
        self._publish(turn, lambda: self._show(record))
        judgement = self._judged(record)
        self._publish(turn, lambda: self._finish(writing, record, judgement, fork))

    def _clear(self, penalty: PenaltyConfig) -> None:
        """Begin a new tree, with nothing written."""
        from workbench.decoding.live import Writing
        from workbench.evaluation.branching import name_of, seedling

        self._written: list[Writing] = []
        self._record = Writing(self.pair, self._start, self._config(penalty), self.prompts).record()
        self._tree = seedling(self.prompt, self._record, judge=name_of(self.judge))
        self._tell(penalty=penalty, state="running", tokens=0, branch=0)

    def _show(self, record: Continuations) -> None:
        self._record = record
        self._tell(state="running", tokens=int(record.mask.sum()))

    def _finish(
        self, writing: Writing, record: Continuations, judgement: Judgement | None, fork: _Fork | None = None
    ) -> None:
        """Take what is written as the next branch, with its verdict, and show it."""
        from workbench.evaluation.branching import branch_of, candidates

        place: dict[str, Any] = {}
        if fork is not None:
            at, before = fork.position - len(self._start.response) - 1, fork.parent.record()
            if len(writing.ids) <= at:  # stopped before it took its token
                self._return_to(fork.branch)
                return
            taken = next((c for c in candidates(before, fork.position) if c.token_id == fork.token_id), None)
            instead = before.label_of()[fork.parent.ids[at]]
            place = dict(parent=fork.branch, position=fork.position, taken=taken, instead=instead)
        self._tree = branch_of(self._tree, record, judgement, **place)
        self._written.append(writing)
        self._record = record
        self._tell(
            state="stopped" if writing.stop == "stopped" else "finished",
            tokens=len(writing.ids),
            branch=len(self._written) - 1,
        )

    def _judged(self, record: Continuations) -> Judgement | None:
        """Return the verdict; a judge that raises leaves the text unscored, with the reason."""
        from workbench.evaluation.branching import judged
        from workbench.judging.records import Judgement

        try:
            return judged(self.judge, self.prompt, record)
        except Exception as error:
            log.exception("the judge of the penalty dial failed")
            why = legible.sentence(f"the judge failed: {type(error).__name__}: {error}", 200)
            return Judgement(attempt_id="branch", p_harmful=None, verdict=None, unscored=why)

    def _failed(self, turn: Turn, error: Exception) -> None:
        def fail() -> None:
            if self._written:
                self._return_to(self.selection.branch, "failed")
            else:
                self._tell(state="failed")
            self._say(error)

        self._publish(turn, fail)

    def _return_to(self, branch: int, state: State | None = None) -> None:
        """Show a branch that is written, as it ended, or with what has just happened beside it."""
        of = self._written[branch]
        self._record = of.record()
        ended: State = "stopped" if of.stop == "stopped" else "finished"
        self._tell(state=ended if state is None else state, tokens=len(of.ids), branch=branch)

    def _check_rest(self, then: str) -> None:
        if self.selection.state == "running":
            raise ParameterError(f"the text is still being written: wait for its end, or stop it, and then {then}")

    def _check_branch(self, branch: int) -> None:
        if not 0 <= branch < len(self._written):
            raise ParameterError(f"there is no branch {branch}: the tree has {len(self._written)}, numbered from 0")

    # --------------------------------------------------------------------------------------------- live

    def _tell(self, **changes: Any) -> None:
        with self._telling:
            self._select(dataclasses.replace(self.selection, **changes))
            self._paint()

    def _face(self) -> DialFace:
        covered = self._treatment() != "show"
        shown, moving = self._picture(covered)
        return DialFace(dial=self._dial(), form=self._form, shown=shown, still=self._still(covered), moving=moving)

    def _paint(self) -> None:
        """Bring the page up to date. Revealed text goes as a message, so that it is in no saved state."""
        face = self._shown
        if not isinstance(face, DialFace):
            return
        self._serial += 1
        treat = self._treatment()
        shown, moving = self._picture(treat != "show")
        with face.hold_sync():
            face.form, face.shown, face.moving = dict(self._form), shown, moving
        if treat == "blur" and self._revealed:
            shown, moving = self._picture(False)
            face.send({"do": "text", "shown": shown}, [*self._still(False), moving])

    def _treatment(self) -> str:
        found = treatment_of(self.prompt.label, self.prompts.classroom_safe, self.harmful_text)
        return "blur" if found == "redact" and self.harmful_text == "auto" else found

    def _column(self, record: Continuations, place: int, name: str, covered: bool) -> bytes:
        return ledger_column(
            record, self._given, self._start.response, place=place, name=name, covered=covered, serial=self._serial
        )

    def _still(self, covered: bool) -> list[bytes]:
        """Return base and aligned as the page reads them: they do not follow the dial."""
        return [self._column(self.arms[name], i, name, covered) for i, name in enumerate(("base", "aligned"))]

    def _picture(self, covered: bool) -> tuple[dict[str, Any], bytes]:
        """Return the state with the tree, and the penalised text."""
        now = self.selection
        shown = {
            "serial": self._serial,
            "heard": dict(self._wishes),
            "state": now.state,
            "said": self._sentence(),
            "title": now.penalty.title,
            "tokens": now.tokens,
            "branch": now.branch,
            "tree": [_node(self._tree, i, depth, covered) for i, depth in self._tree.ordered()],
        }
        return shown, self._column(self._record, PENALISED, "penalised", covered)

    def _dial(self) -> dict[str, Any]:
        """Return what the page needs once: prompt, choices, steps, scales and legend."""
        from workbench.decoding.config import METHODS

        shapes = ["constant", "first_m", "ramp", *(["undertrained"] if self._retention else [])]
        fills = [LEVERAGE, *map(quantity_named, ("excess_mass", "logprob_shift_nats", "rank_aligned", "rank_base"))]
        return {
            "prompt": legible.prose(self.prompt.prompt),
            "label": self.prompt.label,
            "name": legible.label(self.prompt.id),
            "given": len(self._start.response),
            "methods": [[name, said] for name, said in METHODS.items() if name != "none"],
            "shapes": shapes,
            "risk_spaces": ["aligned_topk", "full", "mass"],
            "steps": {
                "strength": STRENGTHS,
                "gamma": GAMMAS,
                "plausibility": MASKS,
                "m": [m for m in POSITIONS if m <= len(self._start.response) + self._max_tokens] or [1],
            },
            "quantities": [scale(q) for q in fills],
            "ledger": dict(LEDGER),
            "verdicts": {word: list(said) for word, said in VERDICTS.items()},
            "judge": self._tree.judge or "",
            "notable_shift_nats": NOTABLE_SHIFT_NATS,
            "cover": COVER,
            "treatment": self._treatment(),
        }

    def _asked(self, change: Any) -> None:
        with self._errors_shown(), self._telling:
            try:
                self._hear(change["new"])
                self._do(change["new"])
            finally:
                self._paint()

    def _hear(self, asked: Mapping[str, Any]) -> None:
        """Remember what a page asked for last, so that it can tell an answer from what was on its way before."""
        page = str(asked.get("page", ""))
        self._wishes = {**{k: v for k, v in self._wishes.items() if k != page}, page: int(asked.get("n", 0))}
        self._wishes = dict(list(self._wishes.items())[-HEARD:])
        self._revealed = self._revealed | {page} if asked.get("revealed") else self._revealed - {page}

    def _do(self, asked: Mapping[str, Any]) -> None:
        do = asked.get("do")
        settings = _known(asked.get("settings", {}))
        turned = {name: value for name, value in settings.items() if self._form[name] != value}
        if turned:
            self.set(**turned)
        if do == "stop":
            self.stop()
        elif do == "branch":
            self.branch(int(asked["position"]), int(asked["token_id"]), int(asked["branch"]))
        elif do == "open":
            self.open(int(asked["branch"]))

    def _sentence(self) -> str:
        """Return the state in words; while it runs without the number of tokens, which a screen reader would repeat."""
        now = self.selection
        tokens = counted(now.tokens)
        (c,) = self._record.continuations
        ended = {"end": "It ended by itself", "context": "The context is full"}.get(
            c.stop, "Cut at the longest response"
        )
        which = "" if now.branch == 0 else f" Branch {now.branch} is shown."
        return {
            "running": "It is being written.",
            "stopped": f"Stopped after {tokens}.{which}" if now.tokens else "Stopped before the first token.",
            "failed": f"The branch failed.{which}" if self._written else f"Failed after {tokens}.",
            "finished": f"{ended}, after {tokens}.{which}",
        }.get(now.state, "")


_FORM = ("method", "strength", "gamma", "risk_space", "shape", "m", "plausibility")


def _form(penalty: PenaltyConfig) -> dict[str, Any]:
    """Return a penalty's settings as the dial holds them: with a value for what it does not use."""
    found = {name: getattr(penalty, name) for name in _FORM}
    method = "one_sided" if penalty.method == "none" else penalty.method
    strength = 0.0 if penalty.method == "none" else penalty.strength
    return {**found, "method": method, "strength": strength, "m": penalty.m or 5, "count_from": penalty.count_from}


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        if name not in _FORM:
            raise ParameterError(f"the dial has no setting {name!r}; it has {', '.join(_FORM)}")
        if name in ("strength", "gamma", "plausibility", "m") and (
            isinstance(value, bool) or not isinstance(value, int | float) or (name == "m" and int(value) != value)
        ):
            raise ParameterError(f"{name} is {value!r}; it must be {'a whole' if name == 'm' else 'a'} number")
    return {n: int(v) if n == "m" else v if isinstance(v, str) else float(v) for n, v in settings.items()}


def _penalty(form: Mapping[str, Any], retention: tuple[float, ...]) -> PenaltyConfig:
    """Return the penalty that the form describes, without what it does not use. Refuses w < 0."""
    from workbench.decoding.config import PenaltyConfig, check_generates

    found = dict(form)
    if found["shape"] not in ("first_m", "ramp"):
        found["m"] = None
    if found["shape"] == "undertrained":
        found["retention"] = retention
    if found["method"] == "safe_decoding":
        found["plausibility"] = 0.0
    penalty = PenaltyConfig(**found)
    check_generates(penalty)
    return penalty


def _node(tree: BranchTree, branch: int, depth: int, covered: bool) -> dict[str, Any]:
    b = tree.branches[branch]

    def label(text: str | None) -> str:
        return COVER if covered else legible.label(text or "")

    return {
        "branch": branch,
        "depth": depth,
        "parent": b.parent,
        "position": b.position,
        "token": label(b.token),
        "instead": label(b.instead),
        "favored": b.base_favored,
        "verdict": said_of(b),
        "p_harmful": b.p_harmful,
        "why": legible.sentence(b.unscored or b.why or "", 200) if not covered or b.unscored else "",
        "tail": COVER if covered else legible.sentence(b.tail, 120),
        "stop": b.stop,
        "tokens": len(b.token_ids),
    }
