"""Checks of config fields, and configs made from their fields by keyword. No torch."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from workbench.core.errors import ParameterError, nearest

C = TypeVar("C")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """A range of numbers that a field may have, with its words for messages. NaN is in no range."""

    low: int | float
    high: int | float
    words: str
    with_low: bool = True
    with_high: bool = True

    def __contains__(self, value: Any) -> bool:
        try:
            above = self.low <= value if self.with_low else self.low < value
            return bool(above and (value <= self.high if self.with_high else value < self.high))
        except TypeError:
            return False


def at_least(low: int | float, *, finite: bool = False) -> Range:
    """Return the range of all numbers from `low` up."""
    return Range(low, inf, f"{'finite and ' if finite else ''}at least {low:g}", with_high=not finite)


def above(low: int | float, up_to: int | float | None = None, *, finite: bool = False) -> Range:
    """Return the range above `low`, to `up_to` (included) where it is given."""
    if up_to is not None:
        return Range(low, up_to, f"above {low:g} and at most {up_to:g}", with_low=False)
    return Range(low, inf, f"{'finite and ' if finite else ''}above {low:g}", with_low=False, with_high=not finite)


def between(low: int | float, high: int | float) -> Range:
    """Return the range between two numbers, both excluded."""
    return Range(low, high, f"between {low:g} and {high:g}", with_low=False, with_high=False)


def from_to(low: int | float, high: int | float) -> Range:
    """Return the range from `low` to `high`, both included."""
    return Range(low, high, f"from {low:g} to {high:g}")


def check_fields(config: object, *wrong: tuple[bool, str, str], **allowed: Range | Collection[str]) -> None:
    """Raise ParameterError for the first field with an impossible value.

    `allowed` maps a field to its range or to its possible names. None is always accepted; every element of a tuple or
    list is checked. `wrong` are further conditions: (is wrong, field, what it must be).
    """
    for name, values in allowed.items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple | list) else (value,):
            if one is None or one in values:
                continue
            if isinstance(values, Range):
                raise ParameterError(f"{name} {'is' if one is value else 'holds'} {one!r}; it must be {values.words}")
            raise ParameterError(f"there is no {name} {one!r}: {nearest(str(one), tuple(values))}")
    for is_wrong, name, want in wrong:
        if is_wrong:
            raise ParameterError(f"{name} is {getattr(config, name)!r}; it must be {want}")


def configured(kind: type[C], config: C | None, fields: Mapping[str, Any], also: Collection[str] = ()) -> C:
    """Return `config` (default: the kind's own defaults) with some fields replaced; a list becomes a tuple.

    Raises ParameterError for an unknown field, naming the nearest of the fields and of `also`.
    """
    if config is not None and not isinstance(config, kind):
        raise ParameterError(f"expected a {kind.__name__} or its fields by keyword, not {config!r}")
    known = tuple(f.name for f in dataclasses.fields(kind))  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            raise ParameterError(f"{kind.__name__} has no field {name!r}: {nearest(name, (*known, *also))}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return kind(**given) if config is None else dataclasses.replace(config, **given)  # type: ignore[type-var]


def takes_fields(kind: type, name: str = "config") -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a function take its config (the argument `name`) whole, or by fields, or both: fields then replace.

    `trace(pair, prompts, max_tokens=64)` is `trace(pair, prompts, TraceConfig(max_tokens=64))`. The function itself
    always receives a config. Raises ParameterError, naming the nearest one, for an unknown keyword.
    """

    def taking(verb: Callable[..., R]) -> Callable[..., R]:
        signature = inspect.signature(verb)
        own = tuple(p for p in signature.parameters if p != name)

        @functools.wraps(verb)
        def call(*arguments: Any, **keywords: Any) -> R:
            fields = {k: keywords.pop(k) for k in tuple(keywords) if k not in signature.parameters}
            given = signature.bind_partial(*arguments, **keywords).arguments
            return verb(**{**given, name: configured(kind, given.get(name), fields, own)})

        return call

    return taking
