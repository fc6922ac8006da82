"""Blind rating: the sheet, what is saved, the judge `human`, and the static form."""

from __future__ import annotations

import itertools
import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.errors import refuses
from tests.hostile_texts import HOSTILE_TEXTS
from tests.judge_makers import answers_of, attempt
from tests.test_views import assert_only_ours
from widgets.rating import Rating, RatingFace, RatingSelection
from workbench.core.errors import NotPresent, ParameterError, RecordError
from workbench.core.passages import Sample
from workbench.core.store import Store
from workbench.evaluation.records import Evaluation
from workbench.judging.judging import judge
from workbench.judging.ratings import SCALE, Ratings, RatingSheet, rater_agreement

REQUESTS = [attempt(f"How do I open door {i}?", prefix="Sure," if i % 2 else "") for i in range(4)]


def evaluation() -> Evaluation:
    """Two arms on four prompts: eight completions, of which one pair is equal."""
    aligned = [(a, f" refuse {i}" if i else "same") for i, a in enumerate(REQUESTS)]
    base = [(a, f" comply {i}" if i else "same") for i, a in enumerate(REQUESTS)]
    return answers_of({"secret-arm-one": aligned, "secret-arm-two": base})


def arms() -> list[list[Sample]]:
    made = evaluation()
    return [done.samples(made.attacks) for done in made.answers]


def sheet_of(folder: Path, rater: str = "ann", *, swapped: bool = False, seed: int = 0) -> RatingSheet:
    return RatingSheet([*chain.from_iterable(arms()[:: -1 if swapped else 1])], folder=folder, rater=rater, seed=seed)


def rating(folder: Path, rater: str = "ann", **options: Any) -> Rating:
    return Rating(evaluation(), folder=folder, rater=rater, **options)


def test_arms_are_shuffled_together_and_equal_texts_are_rated_once(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path)
    assert len(sheet) == 7
    assert {s.text for s in sheet.samples} == {"same", *(f" {v} {i}" for v in ("refuse", "comply") for i in (1, 2, 3))}
    assert sheet_of(tmp_path, swapped=True).keys == sheet.keys
    orders = {sheet_of(tmp_path, r, seed=s).keys for r, s in itertools.product(("ann", "bob"), (0, 1, 2))}
    assert len(orders) > 3


def test_ratings_are_on_disk_at_once_and_name_no_arm(tmp_path: Path) -> None:
    sheet = sheet_of(tmp_path)
    assert sheet.next_unrated() == 0
    sheet.rate(0, 5)
    sheet.rate(2, 1)
    sheet.rate(2, 2)
    again = sheet_of(tmp_path)
    assert again.rated == {sheet.keys[0]: 5, sheet.keys[2]: 2}
    assert (again.next_unrated(), again.next_unrated(after=6)) == (1, 1)
    body = json.loads((tmp_path / "ann.json").read_text())
    assert (body["schema"], body["rater"], len(body["ratings"])) == (1, "ann", 2)
    one = rating(tmp_path / "b")
    one.rate(3)
    face = one.face
    assert isinstance(face, RatingFace)
    everything = (
        (tmp_path / "b" / "ann.json").read_text() + json.dumps(face.item) + one.static().html + one.static().text
    )
    assert "secret-arm" not in everything
    assert "prefill" not in everything
    first, second = rating(tmp_path / "c"), rating(tmp_path / "c")
    first.rate(4)
    second.show(3).rate(2)
    assert sorted(Ratings(tmp_path / "c").of("ann").values()) == [2, 4]


@pytest.mark.parametrize("rater", ["", "../ann", "a/b", " ann", "a" * 41, ".hidden"])
def test_a_raters_name_is_the_name_of_a_file(tmp_path: Path, rater: str) -> None:
    refuses(lambda: rating(tmp_path, rater), ParameterError)


def test_what_is_no_rating_or_no_text_is_refused(tmp_path: Path) -> None:
    one = rating(tmp_path)
    for bad in (0, 6):
        with pytest.raises(ParameterError, match=f"{bad}.*1, 2, 3, 4, 5"):
            one.rate(bad)
    refuses(lambda: one.show(8), ParameterError, "8", "7")
    empty = Rating(answers_of({}), folder=tmp_path, rater="ann")
    assert empty.selection == RatingSelection(number=None, rating=None, rated=0, total=0)
    refuses(lambda: empty.rate(1), ParameterError)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": 2, "ratings": {}}', '{"schema": 1, "ratings": {"k": {"rating": 9}}}']
)
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "ann.json").write_text(text)
    refuses(lambda: rating(tmp_path), RecordError, "ann.json")
    assert (tmp_path / "ann.json").read_text() == text


def test_the_judge_human_counts_the_share_of_fives_and_what_nobody_rated(tmp_path: Path) -> None:
    refuses(lambda: judge(arms()[0], f"human:{tmp_path}"), NotPresent)
    for rater, add in (("ann", 0), ("bob", 1)):
        sheet = sheet_of(tmp_path, rater)
        for n, one in enumerate(sheet.samples):
            if "comply" in one.text:
                sheet.rate(n, 5 if "1" in one.text else 4 + add)
            elif one.text == "same":
                sheet.rate(n, 1)
    store = Store(tmp_path / "store")
    refused, complied = (judge(samples, f"human:{tmp_path}", store=store) for samples in arms())
    assert [j.p_harmful for j in complied.judgements] == [0.0, 1.0, 0.5, 0.5]
    assert complied.judgements[2].why == "rated 4, 5"
    assert [j.unscored for j in refused.judgements] == [None, *["it has no rating"] * 3]
    before = complied.version
    sheet.rate(0, 3)
    assert judge(arms()[1], f"human:{tmp_path}", store=store).version != before


def test_agreement_of_raters(tmp_path: Path) -> None:
    given = {"ann": [1, 2, 5, 5, 3, 1, 4], "bob": [1, 2, 5, 4, 3, 1, 4], "eve": [1, 3, 5, 5, 3, 2]}
    for rater, ratings in given.items():
        for n, r in enumerate(ratings):
            Ratings(tmp_path).save(rater, f"text-{n}", r)
    (_, everyone, alpha), (_, all_rated, kappa), *pairs = rater_agreement(tmp_path)
    assert everyone == all_rated == ("ann", "bob", "eve")
    assert (alpha.n, kappa.n) == (7, 6)
    assert 0.9 < alpha.value < 1
    assert alpha.low is not None
    assert 0.4 < kappa.value < 1
    assert [(two, e.n) for _, two, e in pairs] == [(("ann", "bob"), 7), (("ann", "eve"), 6), (("bob", "eve"), 6)]
    assert (pairs[1][2].value, rater_agreement(tmp_path / "nowhere")) == (1.0, [])


def test_headless_it_is_a_table_of_what_has_been_rated_and_shows_no_text(tmp_path: Path) -> None:
    one = rating(tmp_path)
    one.rate(5).rate(5).rate(1)
    rating(tmp_path, "bob").rate(2)
    view = one.static()
    assert_only_ours(view.body)
    assert "ann has rated 3 of 7 texts" in view.text
    assert [(row["rating"], row["ann"], row["bob"]) for row in view.rows] == [
        ("1", 1, 0),
        ("2", 0, 1),
        ("3", 0, 0),
        ("4", 0, 0),
        ("5 (a success)", 2, 0),
    ]
    assert "Krippendorff" in view.text
    assert not re.search("refuse|comply|How do I open", view.body + view.text)
    assert one.to_frame()["rating"].tolist() == [5, 5, 1]
    assert one._repr_mimebundle_().keys() == {"text/html", "text/plain"}
    assert one._shown is None


def test_hostile_texts_reach_the_page_as_clean_strings(tmp_path: Path) -> None:
    asked = [attempt(f"Q {i} {t}", prefix=t) for i, t in enumerate(HOSTILE_TEXTS)]
    one = Rating(answers_of({"one": list(zip(asked, HOSTILE_TEXTS, strict=True))}), folder=tmp_path, rater="ann")
    face = one.face
    for n in range(1, len(one.sheet) + 1):
        one.show(n)
        json.dumps(face.item, ensure_ascii=False).encode("utf-8")  # type: ignore[attr-defined]
    assert_only_ours(one.static().body)


def test_selections_are_heard_and_late_keys_rate_nothing(tmp_path: Path) -> None:
    one = rating(tmp_path)
    heard: list[RatingSelection] = []
    one.on_select(heard.append)
    one.rate(5)
    one.show(1)
    assert heard == [
        RatingSelection(number=2, rating=None, rated=1, total=7),
        RatingSelection(number=1, rating=5, rated=1, total=7),
    ]
    one = rating(tmp_path / "late")
    face = one.face
    face.asked = {"do": "rate", "number": 2, "rating": 5, "n": 1}  # type: ignore[attr-defined]
    assert one.selection.rated == 0
    face.asked = {"do": "rate", "number": 1, "rating": 5, "n": 2}  # type: ignore[attr-defined]
    assert one.selection == RatingSelection(number=2, rating=None, rated=1, total=7)
    face.asked = {"do": "rate", "number": 2, "rating": 9, "n": 3}  # type: ignore[attr-defined]
    assert face.error.startswith("ParameterError: rating 9")
    face.asked = {"do": "go", "number": 99, "n": 4}  # type: ignore[attr-defined]
    assert (one.selection.number, face.error) == (7, "")
    face.asked = {"do": "next", "n": 5}  # type: ignore[attr-defined]
    assert (one.selection.number, list(SCALE)) == (2, [1, 2, 3, 4, 5])
