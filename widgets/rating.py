"""Rate texts blind, 1 to 5, in the notebook: one at a time, covered until opened, saved with every key."""

from __future__ import annotations

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
from workbench.display.views.view import columns, interval, number, plain_table, style_text, table, table_view
from workbench.evaluation.records import Evaluation
from workbench.judging.ratings import SCALE, SUCCESS, RatingSheet, rater_agreement

if TYPE_CHECKING:
    import pandas as pd

MOST_CHARACTERS = 20_000
BLIND = (
    "Texts of all arms and attacks are shuffled together and equal ones are rated once; which arm a text is from is "
    "neither shown nor saved."
)


@dataclass(frozen=True, kw_only=True)
class RatingSelection:
    """What is shown, and how far the rater is: `number` of the text from 1, None where the sheet has none."""

    number: int | None
    rating: int | None
    rated: int
    total: int


class RatingFace(Face):
    """One text at a time. `asked` is what the page asks for; nothing of another text is in the page."""

    _esm = source("parts/dom.js", "rating.js")
    _css = style_text() + source("parts/controls.css", "rating.css")
    scale: traitlets.List[Any] = traitlets.List().tag(sync=True)
    item = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)


class Rating(Window[RatingSelection]):
    """Rate the answers of an evaluation: keys 1 to 5 rate, Enter opens the text, the arrows move.

    Ratings lie in `folder`, where judge "human:FOLDER" reads them: one file for each `rater`, replaced whole with each
    rating. Opened again, the sheet resumes where the rater stopped. The order is the rater's own (`seed`). Raises
    ParameterError for a rater's name that cannot name a file, RecordError for a damaged file.

    Headless it shows what has been rated, and no text.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        folder: str | Path,
        rater: str = "rater",
        seed: int = 0,
        live: bool | None = None,
    ) -> None:
        samples = [s for done in evaluation.answers for s in done.samples(evaluation.attacks)]
        self.sheet = RatingSheet(samples, folder=folder, rater=rater, seed=seed)
        first = self.sheet.next_unrated()
        self._at: int | None = first if first is not None else (0 if len(self.sheet) else None)
        super().__init__(self._state(), live=live)

    # ------------------------------------------------------------------------------------------------ for programs

    def show(self, number: int) -> Rating:
        """Show the text of this number, from 1. Raises ParameterError where there is no such text."""
        if not 1 <= number <= len(self.sheet):
            raise ParameterError(f"there is no text {number}: the sheet has {len(self.sheet)}")
        self._go(number - 1)
        return self

    def rate(self, rating: int) -> Rating:
        """Keep a rating, 1 to 5, of the text that is shown, and show the next unrated one.

        Raises ParameterError for another number, and where there is no text.
        """
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

        rated = self.sheet.rated
        rows = [(n, key, rated[key]) for n, key in enumerate(self.sheet.keys, 1) if key in rated]
        return pd.DataFrame(rows, columns=["number", "key", "rating"])

    # ------------------------------------------------------------------------------------------------- the two forms

    def static(self) -> View:
        """Return what has been rated, by whom, and how far raters agree; no text that is rated."""
        sheet = self.sheet
        given = {rater: Counter(r.values()) for rater, r in sheet.ratings.all().items()}
        rows = [
            {"rating": f"{rating}{' (a success)' * (rating == SUCCESS)}", "means": meaning}
            | {rater: counts[rating] for rater, counts in given.items()}
            for rating, meaning in SCALE.items()
        ]
        raters = columns(*((f"{legible.label(r)}, texts", r) for r in given), number=True)
        caption = (
            f"{legible.label(sheet.rater)} has rated {len(sheet.rated)} of {len(sheet)} texts. Ratings in the folder:"
        )
        more, lines = [], []
        if agreed := [_agreement_row(*found) for found in rater_agreement(sheet.ratings.folder)]:
            heading = "Agreement of raters, 1 is full and 0 is chance, with bootstrap intervals over texts"
            more, lines = [table(heading, _AGREEMENT, agreed)], [heading, plain_table(_AGREEMENT, agreed)]
        more.append(f'<p class="wb-note wb-soft">{html_text(BLIND)}</p>')
        return table_view(
            "Blind rating", caption, (*columns("rating", "means"), *raters), rows, *more, lines=[*lines, BLIND]
        )

    def _face(self) -> RatingFace:
        return RatingFace(scale=[[r, m] for r, m in SCALE.items()], item=self._item())

    # --------------------------------------------------------------------------------------------------- the state

    def _do(self, asked: Mapping[str, Any]) -> None:
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
        key = None if self._at is None else self.sheet.keys[self._at]
        return RatingSelection(
            number=None if self._at is None else self._at + 1,
            rating=None if key is None else self.sheet.rated.get(key),
            rated=len(self.sheet.rated),
            total=len(self.sheet),
        )

    def _item(self) -> dict[str, Any]:
        item = {**vars(self._state()), "rater": legible.label(self.sheet.rater)}
        if self._at is None:
            return item
        sample = self.sheet.samples[self._at]
        texts = {"request": sample.request, "prefix": sample.prefix, "text": sample.text}
        shown = {name: legible.prose(text, MOST_CHARACTERS) for name, text in texts.items()}
        return item | shown | {"words": len(sample.text.split())}


_AGREEMENT = (*columns("measure", "raters"), *columns("value", "interval", ("n, texts", "n"), number=True))


def _agreement_row(measure: str, raters: Sequence[str], estimate: Estimate) -> dict[str, Any]:
    return {
        "measure": measure,
        "raters": ", ".join(legible.label(r) for r in raters),
        "value": number(estimate.value),
        "interval": interval(estimate),
        "n": estimate.n,
    }
