"""The frozen pair's hidden states at the training positions, computed once before training where they fit, and stored.

Hidden states after the final norm are smaller than distributions, and the head recomputes the exact logits of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.batching import halving_on_memory, plan_batches
from workbench.core.passages import Ids, Passage
from workbench.core.progress import Progress
from workbench.core.quantities import QUANTITIES
from workbench.core.store import Store, key_of
from workbench.models.pair import ModelPair, Which
from workbench.tracing.scoring import ScoreConfig, passage_rows, score
from workbench.training.config import ArmConfig, TrainConfig
from workbench.training.rows import TrainingText, TrainingTexts

KEPT_MIB = 2048
"""Hidden states of the frozen pair are kept in memory up to this size; larger ones are computed in every step."""
FEWEST = 3
"""A position that fewer texts reach has the retention of the last position that this many reach."""


class References:
    """The frozen pair's hidden states at a row's positions, kept where they fit; with `keep_all` always, on the CPU."""

    def __init__(
        self, pair: ModelPair, texts: TrainingTexts, config: TrainConfig, store: Store | None, *, keep_all: bool = False
    ) -> None:
        self._pair = pair
        wanted = wanted_passages(texts, config.chosen)
        self.mib = states_mib(pair, wanted)
        self._kept: dict[tuple[Which, Ids, Ids], Tensor] = {}
        kept_on = pair.device if self.mib <= KEPT_MIB else torch.device("cpu")
        if self.mib <= KEPT_MIB or keep_all:
            for which, passages in wanted.items():
                what = f"reading {which} along {len(passages)} texts" if len(passages) > 1 else None
                states = reference_states(pair, which, passages, store=store, what=what)
                self._kept |= {_key(which, p): s.to(kept_on) for p, s in zip(passages, states, strict=True)}

    def of(self, which: Which, passages: Sequence[Passage]) -> Float[Tensor, "row hidden"]:
        """Return the hidden states that predict the tokens after the given ones, one passage after the other."""
        missing = [p for p in passages if _key(which, p) not in self._kept]
        states = reference_states(self._pair, which, missing, what=None) if missing else ()
        found = self._kept | {_key(which, p): s for p, s in zip(missing, states, strict=True)}
        return torch.cat([found[_key(which, p)][p.given :].to(self._pair.device) for p in passages])


def _key(which: Which, passage: Passage) -> tuple[Which, Ids, Ids]:
    return which, passage.context(which), passage.response


def wanted_passages(texts: TrainingTexts, arm: ArmConfig) -> dict[Which, list[Passage]]:
    """List everything that the frozen pair may read in a training, by model, each once; a model without is absent."""
    along = [*texts.harmful] if arm.harmful in ("completion", "teacher") or arm.penalise_rest else []
    every = [*texts.utility, *texts.harmless]
    kept = [t for t in every if t.teacher == "aligned"] if arm.utility == "teacher" else []
    kept += every if arm.utility == "constrain" else []
    of_base = [t for t in every if t.teacher == "base"] if arm.utility == "teacher" else []
    held = [*texts.harmful] if arm.harmful == "compliance" and arm.utility == "constrain" else []
    refusals = [
        Passage(name=t.name, aligned=t.aligned, response=r)
        for t in (texts.harmful if arm.harmful == "recovery" else ())
        for r in t.refusals
    ]
    first = [
        Passage(name=t.name, aligned=t.aligned, response=t.response[:1])
        for t in (texts.harmful if arm.transition else ())
    ]
    both = [*along, *kept] if arm.loss.teacher_lambda != 1.0 and arm.utility == "teacher" else along
    wanted: dict[Which, list[Passage]] = {
        "aligned": [*refusals, *first, *along, *kept, *held],
        "base": [*both, *of_base],
    }
    once = {which: list({_key(which, p): p for p in own}.values()) for which, own in wanted.items()}
    return {which: own for which, own in once.items() if own}


def states_mib(pair: ModelPair, passages: Mapping[Which, Sequence[Passage]]) -> float:
    """Return the size of the hidden states along whole responses, MiB: tokens x width x bytes."""
    tokens = sum(len(p.response) for own in passages.values() for p in own)
    with pair.model("aligned") as model:
        width = int(model.config.get_text_config().hidden_size)
    return tokens * width * pair.dtype.itemsize / 2**20


def reference_states(
    pair: ModelPair,
    which: Which,
    passages: Sequence[Passage],
    *,
    store: Store | None = None,
    batch_tokens: int = 4096,
    what: str | None = "reading the frozen pair",
) -> tuple[Float[Tensor, "token hidden"], ...]:
    """Return, for each passage, the hidden states of base or aligned that predict its response tokens.

    They are on the CPU, in the model's own dtype. Passages with equal ids are computed once; those in `store` are read
    bit for bit. No context and no response may be empty. Batches hold at most `batch_tokens` padded tokens (one passage
    at least).
    """
    store = Store.of(store)
    keys = [key_of("hidden 1", pair.fingerprint, which, p.context(which), p.response) for p in passages]
    found = {k: torch.from_numpy(store.read(k)["bytes"]).view(pair.dtype) for k in dict.fromkeys(keys) if k in store}
    index = {k: n for n, k in reversed(list(enumerate(keys)))}  # of each key, its first place
    missing = [n for k, n in index.items() if k not in found]

    def read(part: Sequence[int]) -> dict[str, Tensor]:
        chosen = [passages[n] for n in part]
        rows = passage_rows(pair, which, chosen).cpu().split([len(p.response) for p in chosen])
        return {keys[n]: r.contiguous() for n, r in zip(part, rows, strict=True)}

    if missing:
        sizes = [len(passages[n].whole(which)) for n in missing]
        with Progress(what, len(index), "responses") as progress, torch.no_grad():  # inference tensors do not train
            progress.skip(len(index) - len(missing))
            for planned in plan_batches(sizes, batch_tokens):
                for part, new in halving_on_memory([missing[n] for n in planned], read, progress.note):
                    found.update(new)
                    store.write({k: {"bytes": m.view(torch.uint8).numpy()} for k, m in new.items()})
                    progress.advance(len(part))
    return tuple(found[k] for k in keys)


def measured_retention(
    pair: ModelPair, texts: Sequence[TrainingText], *, store: Store | None = None
) -> tuple[float, ...]:
    """Return mean retention 1 - TV(base, aligned) by position of the harmful responses, for ArmConfig.retention.

    The positions are those that FEWEST texts reach (all texts, where there are fewer); () without a text.
    """
    passages = [t for t in texts if t.response]
    made = score(pair, passages, ScoreConfig(top_k=1, shown_k=1), store=store, what="retention by position")
    reach = sorted((len(p.response) for p in passages), reverse=True)
    longest = reach[min(FEWEST, len(reach)) - 1] if reach else 0
    own = [s.scalars[list(QUANTITIES).index("retention")] for s in made]
    means = (np.mean([r[t] for r in own if len(r) > t]) for t in range(longest))
    return tuple(float(np.clip(m, 0.0, 1.0)) for m in means)
