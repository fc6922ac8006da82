# ruff: noqa: F401, PLE0605
"""Live widgets: each shows a record, and gives back what the person selected as a frozen value.

The names below are the public ones. They are imported when first used, so `import widgets` loads no IPython; no widget
loads torch to show a saved record.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widgets.arms_compare import ArmsCompare
    from widgets.linked import LinkedViews
    from widgets.live_probe import LiveProbe
    from widgets.penalty_dial import PenaltyDial
    from widgets.rating import Rating
    from widgets.token_lens import TokenLens

_FILE_OF = {
    "ArmsCompare": "arms_compare",
    "TokenLens": "token_lens",
    "LinkedViews": "linked",
    "LiveProbe": "live_probe",
    "PenaltyDial": "penalty_dial",
    "Rating": "rating",
}

__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"widgets has no public name {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"widgets.{_FILE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
