from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any

import pytest

from tests.errors import refuses
from workbench.core.configs import Range, above, at_least, between, check_fields, configured, from_to, takes_fields
from workbench.core.errors import ParameterError
from workbench.core.store import Store


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (at_least(1), (1, 2.5, inf), (0, 0.999, nan, "1")),
        (at_least(0, finite=True), (0, 1e9), (-1e-9, inf, nan)), (above(0), (1e-9, inf), (0, -1, nan)),
        (above(0, finite=True), (1e-9,), (0, inf)), (above(0, 1), (1e-9, 1), (0, 1.001, nan)),
        (between(0, 1), (0.5,), (0, 1, nan)), (from_to(0, 1), (0, 1), (-0.1, 1.1, nan)),
    ],
)  # fmt: skip
def test_a_range_holds_its_numbers_and_no_others(allowed: Range, inside: tuple, outside: tuple) -> None:
    assert all(x in allowed for x in inside)
    assert not any(x in allowed for x in outside)


@dataclass(frozen=True, kw_only=True)
class Config:
    draws: int = 2
    shares: tuple[float, ...] = (0.5, 1.0)
    limit: int | None = None
    shape: str = "ramp"

    def __post_init__(self) -> None:
        more = (self.draws == 13, "draws", "a number that brings luck")
        check_fields(self, more, draws=at_least(1), shares=from_to(0, 1), limit=at_least(1), shape=("ramp", "all"))


@pytest.mark.parametrize(
    ("field", "value"), [("draws", 0), ("draws", 13), ("shares", (0.5, 1.5)), ("limit", 0), ("shape", "rampp")]
)
def test_a_field_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=field):
        Config(**{field: value})


def test_fields_come_by_keyword_and_none_is_not_checked(tmp_path: Any) -> None:
    assert Config(limit=None, shares=()).shares == ()
    assert (configured(Config, None, {}), configured(Config, None, {"draws": 3})) == (Config(), Config(draws=3))
    assert configured(Config, Config(draws=3), {"limit": 4}) == Config(draws=3, limit=4)
    refuses(lambda: configured(Config, None, {"draw": 3}), ParameterError, "'draws'")
    refuses(lambda: configured(Config, Config(), {"draws": 0}), ParameterError, "draws")
    kept = Store(tmp_path)
    assert Store.of(kept) is kept
    assert Store.of(None).folder is None


@takes_fields(Config)
def sized(data: str, config: Config, *, store: Store | None = None) -> tuple[str, Config, Store | None]:
    return data, config, store


def test_a_verb_takes_its_config_or_its_fields_by_keyword() -> None:
    store = Store(None)
    assert sized("x") == ("x", Config(), None)
    assert sized("x", Config(draws=3)) == sized("x", draws=3) == sized("x", config=Config(draws=3))
    assert sized("x", Config(draws=3), shares=[0.5], store=store) == ("x", Config(draws=3, shares=(0.5,)), store)
    refuses(lambda: sized("x", draw=3), ParameterError, "'draws'")
    refuses(lambda: sized("x", stor=None), ParameterError, "'store'")
    refuses(lambda: sized("x", 64), ParameterError, "Config", "64")
    refuses(lambda: sized("x", draws=0), ParameterError, "draws")
