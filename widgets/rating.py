"""Rate texts blind, 1 to 5, in the notebook: one at a time, covered until opened, saved with every key."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from widgets.window import Face, Window, source
from workbench.core import legible
from workbench.core.errors import ParameterError
from workbench.core.legible import html_text
from workbench.core.records import Estimate
from workbench.display.views import View
from workbench.display.views.view import Column, interval, number, plain_table, section, style_text, table
from workbench.evaluation.records import CompletionSet
from workbench.judging.ratings import SCALE, SUCCESS, RatingSheet, rater_agreement
from workbench.judging.samples import Attempts

if TYPE_CHECKING:
    import pandas as pd

MOST_CHARACTERS = 20_000
BLIND = (
    "Texts of all arms and attacks are shuffled together and equal ones are rated once; which arm a text is from is "
    "neither shown nor saved."
)


@dataclass(frozen=True, kw_only=True)
class RatingSelection:
    """Hold what is shown and how far the rater is: `number` of the text from 1, None where the sheet has none."""

    number: int | None
    rating: int | None
    rated: int
    total: int


class RatingFace(Face):
    """One text at a time. `asked` is what the page asks for; nothing of another text is in the page."""

    _esm = source("window.js", "rating.js")
    _css = style_text() + source("rating.css")
    scale: traitlets.List[Any] = traitlets.List().tag(sync=True)
    item = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)


class Rating(Window[RatingSelection]):
    """Rate the completions of any arms: keys 1 to 5 rate, Enter opens the text, the arrows move.

    `attempts` are those that the completions answer. Ratings lie in `folder`, one file for each `rater`, replaced whole
    with each rating; opened again, the sheet goes on where the rater stopped. The order is the rater's own (`seed`).
    Raises ParameterError for a rater's name that is none, RecordError for a damaged file.

    Headless it shows what has been rated, and no text.
    """

    def __init__(
        self,
        completions: Sequence[CompletionSet],
        attempts: Attempts,
        *,
        folder: str | Path,
        rater: str,
        seed: int = 0,
        live: bool | None = None,
    ) -> None:
        self.sheet = RatingSheet(completions, attempts, folder=folder, rater=rater, seed=seed)
        first = self.sheet.next_unrated()
        self._at: int | None = first if first is not None else (0 if self.sheet.items else None)
        super().__init__(self._state(), live=live)

    # ------------------------------------------------------------------------------------------------ for programs

    def show(self, number: int) -> Rating:
        """Show the text of this number, from 1. Raises ParameterError for a number that is none."""
        if not 1 <= number <= len(self.sheet):
            raise ParameterError(f"there is no text {number}: the sheet has {len(self.sheet)}")
        self._go(number - 1)
        return self

    def rate(self, rating: int) -> Rating:
        """Keep a rating of the text that is shown, and show the next one without; ParameterError for what is none."""
        if self._at is None:
            raise ParameterError("there is nothing to rate: the sheet has no text")
        at = self._at
        self.sheet.rate(at, rating)
        following = self.sheet.next_unrated(at)
        self._go(at if following is None else following)
        return self

    def to_frame(self) -> pd.DataFrame:
        """Return this rater's ratings: number in the rater's order, key of the text, rating."""
        import pandas as pd

        rated = [
            (n, i.key, self.sheet.rated[i.key]) for n, i in enumerate(self.sheet.items, 1) if i.key in self.sheet.rated
        ]
        return pd.DataFrame(rated, columns=["number", "key", "rating"])

    # ------------------------------------------------------------------------------------------------- the two forms

    def static(self) -> View:
        """Return what has been rated, by whom, and how far raters agree; no text that is rated."""
        sheet = self.sheet
        given = {rater: Counter(r.values()) for rater, r in sheet.ratings.all().items()}
        rows = [_scale_row(rating, meaning, given) for rating, meaning in SCALE.items()]
        columns = (
            Column(heading="rating", key="rating"),
            Column(heading="means", key="means"),
            *(Column(heading=f"{legible.label(r)}, texts", key=r, number=True) for r in given),
        )
        caption = (
            f"{legible.label(sheet.rater)} has rated {len(sheet.rated)} of {len(sheet)} texts. Ratings in the folder:"
        )
        parts = [table(caption, columns, rows)]
        texts = [caption, plain_table(columns, rows)]
        if agreed := self._agreement_rows():
            heading = "Agreement of raters, 1 is full and 0 is chance, with bootstrap intervals over texts"
            kinds = (
                Column(heading="measure", key="measure"),
                Column(heading="raters", key="raters"),
                Column(heading="value", key="value", number=True),
                Column(heading="interval", key="interval", number=True),
                Column(heading="n, texts", key="n", number=True),
            )
            parts.append(table(heading, kinds, agreed))
            texts += [heading, plain_table(kinds, agreed)]
        parts.append(f'<p class="wb-note wb-soft">{html_text(BLIND)}</p>')
        return View(
            title="Blind rating",
            body=section("rating-still", "Blind rating", *parts),
            text="\n".join([*texts, BLIND]),
            rows=tuple(rows),
        )

    def _agreement_rows(self) -> list[dict[str, Any]]:
        found = rater_agreement(self.sheet.ratings.folder)
        if len(found.raters) < 2:
            return []
        everyone = ", ".join(legible.label(r) for r in found.raters)
        rows = [_agreement_row("Krippendorff's alpha, ordinal", everyone, found.alpha)]
        if found.fleiss is not None:
            fleiss = Estimate(value=found.fleiss, low=None, high=None, n=found.fleiss_n, unit="1")
            rows.append(_agreement_row("Fleiss' kappa, texts that all rated", everyone, fleiss))
        for a, b, kappa in found.pairs:
            both = f"{legible.label(a)}, {legible.label(b)}"
            rows.append(_agreement_row(f"Cohen's kappa, is it a {SUCCESS}", both, kappa))
        return rows

    def _face(self) -> RatingFace:
        face = RatingFace(scale=[[r, m] for r, m in SCALE.items()], item=self._item())
        face.observe(self._asked, "asked")
        return face

    # --------------------------------------------------------------------------------------------------- the state

    def _asked(self, change: Mapping[str, Any]) -> None:
        asked = change["new"]
        with self._errors_shown():
            match asked.get("do"):
                case "rate" if asked.get("number") == self.selection.number:  # not a key that came too late
                    self.rate(int(asked["rating"]))
                case "go" if self._at is not None:
                    self._go(min(max(int(asked["number"]) - 1, 0), len(self.sheet) - 1))
                case "next":
                    following = self.sheet.next_unrated(-1 if self._at is None else self._at)
                    if following is not None:
                        self._go(following)

    def _go(self, index: int) -> None:
        self._at = index
        if self._shown is not None:
            self.face.item = self._item()
        self._select(self._state())

    def _state(self) -> RatingSelection:
        key = None if self._at is None else self.sheet.items[self._at].key
        return RatingSelection(
            number=None if self._at is None else self._at + 1,
            rating=None if key is None else self.sheet.rated.get(key),
            rated=len(self.sheet.rated),
            total=len(self.sheet),
        )

    def _item(self) -> dict[str, Any]:
        state = self._state()
        if self._at is None:
            return {"number": None, "total": 0, "rated": 0, "rater": legible.label(self.sheet.rater)}
        item = self.sheet.items[self._at]
        return {
            "number": state.number,
            "total": state.total,
            "rated": state.rated,
            "rating": state.rating,
            "rater": legible.label(self.sheet.rater),
            "request": legible.prose(item.request, MOST_CHARACTERS),
            "prefix": legible.prose(item.prefix, MOST_CHARACTERS),
            "text": legible.prose(item.text, MOST_CHARACTERS),
            "words": len(item.text.split()),
        }


def _scale_row(rating: int, meaning: str, given: Mapping[str, Mapping[int, int]]) -> dict[str, Any]:
    success = " (a success)" if rating == SUCCESS else ""
    return {
        "rating": f"{rating}{success}",
        "means": meaning,
        **{rater: counts.get(rating, 0) for rater, counts in given.items()},
    }


def _agreement_row(measure: str, raters: str, estimate: Estimate) -> dict[str, Any]:
    value = math.nan if estimate.value is None else estimate.value
    return {
        "measure": measure,
        "raters": raters,
        "value": number(value),
        "interval": interval(estimate),
        "n": estimate.n,
    }
