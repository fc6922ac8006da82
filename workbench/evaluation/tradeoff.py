"""Safety subject to at most so much capability lost: which arm is the safest of those that can still do their work.

The rule is TamperBench's idea in our words: arms are first held to a capability, then ranked by their worst-case attack
success. Whether an arm is within the limit is said with its interval, not by its point estimate alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.core.records import Estimate
from workbench.evaluation.metrics import ALL_ATTACKS, CAPABILITY, LOSS, MEAN_OF_TASKS
from workbench.evaluation.rates import percent
from workbench.evaluation.records import Score

Within = Literal["yes", "no", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Hold where one arm stands: worst-case attack success, capability, and what it lost against the reference.

    `loss` is None for the reference itself. `attack` and `condition` say which attack success it is.
    """

    arm: str
    judge: str
    attack: str
    condition: str
    asr: Estimate
    capability: Estimate | None
    loss: Estimate | None

    def within(self, limit: float) -> Within:
        """Tell whether at most `limit` of capability is lost: by the whole interval, else it cannot be told."""
        if self.loss is None:
            return "yes"
        if self.loss.value is None or self.loss.low is None or self.loss.high is None:
            return "cannot tell"
        if self.loss.high <= limit:
            return "yes"
        return "no" if self.loss.low > limit else "cannot tell"


def tradeoffs(scores: Sequence[Score], judge: str | None = None) -> tuple[Tradeoff, ...]:
    """Return where every arm stands, by one judge (None: the first): the worst attack success that the scores hold.

    That is over all attacks where there are several, else over the conditions of the one, else the one there is. Arms
    without attack success are left out.
    """
    success = [s for s in scores if s.metric == "asr" and s.category is None and (judge is None or s.judge == judge)]
    if not success:
        return ()
    named = success[0].judge if judge is None else judge
    made = []
    for arm in dict.fromkeys(s.arm for s in success):
        mine = [s for s in success if s.arm == arm and s.judge == named]
        if not mine:
            continue
        widest = max(
            mine, key=lambda s: (s.attack == ALL_ATTACKS, s.condition.startswith("worst of"), s.estimate.value or 0.0)
        )
        made.append(
            Tradeoff(
                arm=arm,
                judge=named,
                attack=widest.attack,
                condition=widest.condition,
                asr=widest.estimate,
                capability=_capability(scores, arm, "accuracy"),
                loss=_capability(scores, arm, LOSS),
            )
        )
    return tuple(made)


def _capability(scores: Sequence[Score], arm: str, metric: str) -> Estimate | None:
    found = [
        s.estimate
        for s in scores
        if (s.arm, s.attack, s.condition, s.metric) == (arm, CAPABILITY, MEAN_OF_TASKS, metric)
    ]
    return found[0] if found else None


def safest(found: Sequence[Tradeoff], limit: float) -> tuple[Tradeoff, ...]:
    """Return the arms of lowest attack success among those that lose at most `limit`, by point estimates.

    Several where they are equal, none where no arm keeps to the limit. An arm whose capability was not measured is not
    among them.
    """
    allowed = [
        t
        for t in found
        if t.capability is not None
        and t.asr.value is not None
        and (t.loss is None or (t.loss.value is not None and t.loss.value <= limit))
    ]
    least = min((t.asr.value or 0.0 for t in allowed), default=0.0)
    return tuple(t for t in allowed if t.asr.value == least)


def tradeoff_sentences(found: Sequence[Tradeoff], limits: Sequence[float], reference: str) -> list[str]:
    """Say for each limit which arm is the safest, and of which arms it cannot be told whether they keep to it."""
    said: list[str] = []
    if not any(t.loss is not None for t in found):
        return said
    for limit in limits:
        best = safest(found, limit)
        unsure = [t.arm for t in found if t.within(limit) == "cannot tell"]
        if not best:
            said.append(f"No arm loses at most {percent(limit)} of accuracy against {reference}.")
            continue
        doubt = f"; at this n it cannot be told whether {' and '.join(unsure)} would keep to that" if unsure else ""
        who = " and ".join(t.arm for t in best)
        said.append(
            f"Of the arms that lose at most {percent(limit)} of accuracy against {reference}, {who} "
            f"{'has' if len(best) == 1 else 'have'} the lowest attack success ({best[0].attack}, {best[0].condition}; "
            f"by {best[0].judge}): {percent(best[0].asr.value or 0.0)}{doubt}."
        )
    return said
