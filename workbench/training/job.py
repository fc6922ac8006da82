"""A training as a file, so that other processes can do it: which pair, which texts, which settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from workbench.core.files import atomic_file
from workbench.models.pair import PairConfig
from workbench.training.config import (
    ArmConfig,
    LoraSettings,
    LossConfig,
    LossWeights,
    OptimiserSettings,
    TrainConfig,
    WatchSettings,
)
from workbench.training.rows import HarmfulText, PlainText, TrainingTexts

_Text = TypeVar("_Text", bound=PlainText)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Hold all that `distil` is called with; `store` is the folder of its store, None for none."""

    pair: PairConfig
    texts: TrainingTexts
    config: TrainConfig
    out: str
    store: str | None
    start: str | None

    def save(self, file: Path) -> None:
        """Write the job as JSON."""
        with atomic_file(file) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(self)), "utf-8")

    @classmethod
    def load(cls, file: Path) -> Job:
        """Read a job."""
        body = json.loads(file.read_text("utf-8"))
        texts = body["texts"]
        return cls(
            pair=PairConfig(**body["pair"]),
            texts=TrainingTexts(
                harmful=tuple(_text(HarmfulText, t) for t in texts["harmful"]),
                utility=tuple(_text(PlainText, t) for t in texts["utility"]),
                harmless=tuple(_text(PlainText, t) for t in texts["harmless"]),
                notes=tuple(texts["notes"]),
                sources=tuple(texts["sources"]),
            ),
            config=train_config(body["config"]),
            out=body["out"],
            store=body["store"],
            start=body["start"],
        )


def train_config(settings: Mapping[str, Any]) -> TrainConfig:
    """Return the config that `dataclasses.asdict` took apart."""
    arm: dict[str, Any] = dict(settings["arm"])
    loss, lora = dict(arm["loss"]), dict(arm["lora"])
    loss["weights"] = LossWeights(**loss["weights"])
    if isinstance(lora["targets"], list):
        lora["targets"] = tuple(lora["targets"])
    arm |= {
        "retention": arm["retention"] if isinstance(arm["retention"], str) else tuple(arm["retention"]),
        "loss": LossConfig(**loss),
        "lora": LoraSettings(**lora),
        "optimiser": OptimiserSettings(**arm["optimiser"]),
    }
    return TrainConfig(**{**settings, "arm": ArmConfig(**arm), "watch": WatchSettings(**settings["watch"])})


def _text(kind: type[_Text], fields: Mapping[str, Any]) -> _Text:
    own: dict[str, Any] = {k: tuple(v) if k in ("aligned", "base", "response") else v for k, v in fields.items()}
    if "refusals" in own:
        own["refusals"] = tuple(tuple(r) for r in own["refusals"])
    return kind(**own)
