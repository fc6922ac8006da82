"""penalty.json: a chosen penalty as a small file that generation, training and people read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workbench.core.errors import NotPresent, ParameterError, RecordError
from workbench.core.files import atomic_file
from workbench.core.provenance import settings_of
from workbench.decoding.config import PenaltyConfig
from workbench.evaluation.records import PenaltyChoice, PenaltySweep

PENALTY_SCHEMA = 1


def save_penalty(path: str | Path, choice: PenaltyChoice, found: PenaltySweep) -> Path:
    """Write the recommended penalty with the rule, the sentences and the pair that it was chosen for.

    `penalty` in the file holds PenaltyConfig's fields, `expert` SafeDecoding's safety adapter.
    Raises StorageFull when the disk is full.
    """
    path = Path(path)
    body = {
        "schema": PENALTY_SCHEMA,
        "penalty": settings_of(choice.settings),
        "title": choice.penalty,
        "expert": found.run.asked.get("expert"),
        "rule": choice.rule,
        "reached": choice.reached,
        "sentences": list(choice.sentences),
        "pair": found.run.resolved.get("pair"),
        "fingerprint": found.run.fingerprint,
        "prompts": found.prompt_set,
        "judge": found.judge,
    }
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n", "utf-8")
    return path


def load_penalty(path: str | Path) -> PenaltyConfig:
    """Read a penalty.json, or a file that holds PenaltyConfig's fields alone.

    Raises NotPresent when there is none, RecordError when it is damaged or of another schema, ParameterError for
    settings that PenaltyConfig refuses or does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise NotPresent(f"no penalty at {str(path)!r}: notebook 02 and `save_penalty` write one")
    try:
        body: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RecordError(f"{str(path)!r} is no JSON ({error}): export the penalty again") from error
    if not isinstance(body, dict) or body.get("schema", PENALTY_SCHEMA) != PENALTY_SCHEMA:
        seen = body.get("schema") if isinstance(body, dict) else type(body).__name__
        raise RecordError(f"{str(path)!r} has penalty schema {seen!r}, this version reads {PENALTY_SCHEMA}")
    settings = body.get("penalty", body) if "schema" in body else body
    if not isinstance(settings, dict):
        raise RecordError(f"{str(path)!r} holds no settings under 'penalty': export the penalty again")
    known = PenaltyConfig.__dataclass_fields__
    if strange := [name for name in settings if name not in known]:
        raise ParameterError(f"{str(path)!r} sets {strange[0]!r}, and a penalty has {', '.join(known)}")
    return PenaltyConfig(**{**settings, "retention": tuple(settings.get("retention", ()))})
