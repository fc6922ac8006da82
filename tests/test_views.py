"""Static views: text stays text, colours can be read, harmful text is withheld, every number has its n and unit."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.errors import refuses
from tests.hostile_texts import HOSTILE_TEXTS, check_each
from tests.record_makers import make_diagnosis, make_probe
from tests.trace_makers import make_response, make_traces, run_record, traces_from_logprobs
from workbench.core import legible, palette
from workbench.core.errors import ParameterError, UnknownName
from workbench.core.quantities import FILLS
from workbench.core.records import Label
from workbench.display import figures, views
from workbench.display.views import View
from workbench.display.views.view import interval, number
from workbench.tracing.records import Diagnosis, TraceSet

TAGS = {
    *("section", "p", "span", "mark", "b", "sup", "sub", "div", "details", "summary", "ul", "li"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "script"),
    *("svg", "path", "rect", "circle", "polygon", "text", "title"),
}
ATTRIBUTES = {
    *("class", "title", "aria-label", "aria-hidden", "role", "tabindex", "scope", "style", "id"),
    *("viewbox", "d", "x", "y", "cx", "cy", "r", "width", "height", "points", "transform", "text-anchor", "opacity"),
    *("fill", "stroke", "stroke-width", "stroke-dasharray"),
}
STYLE = re.compile(r"(width:[0-9.]+%|min-height:[0-9]+px)")


class Page(HTMLParser):
    """Read HTML as a browser would: every element with its attributes, and the text outside scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.comments = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open[-1:] == ["script"] else data

    def handle_comment(self, data: str) -> None:
        self.comments += 1


def assert_only_ours(html: str) -> Page:
    page = Page(html)
    assert (page.open, page.comments) == ([], 0)
    for tag, attributes in page.elements:
        assert tag in TAGS, tag
        assert set(attributes) <= ATTRIBUTES, (tag, attributes)
        assert "style" not in attributes or STYLE.fullmatch(attributes["style"] or "")
        assert re.fullmatch(r"[\w -]*", attributes.get("class") or "")
    return page


def hostile_traces(texts: tuple[str, ...] = HOSTILE_TEXTS, label: Label = "harmless") -> TraceSet:
    """Return one free-running response that holds every text once, in each place where a record has text."""
    rng = np.random.default_rng(0)
    count = len(texts)
    base, aligned = (np.log(rng.dirichlet(np.full(count, 0.3), count) + 1e-9) for _ in range(2))
    base, aligned = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (base, aligned))
    everything = " ".join(texts)
    response = make_response(
        everything, label, prompt=everything, system_prompt=everything, trajectory="free_running", prefix_tokens=3
    )
    made = traces_from_logprobs(
        [base], [aligned], [range(count)], [response], pieces=texts, warnings=(everything,), classroom_safe=False
    )
    marked = np.zeros_like(made.special)
    marked[0, :4] = True
    return dataclasses.replace(made, labels=texts, prompt_set=everything, special=marked)


def hostile_diagnosis(traces: TraceSet) -> Diagnosis:
    made = make_diagnosis(traces)
    everything = " ".join(HOSTILE_TEXTS)
    contrasts = tuple(dataclasses.replace(c, title=everything) for c in made.contrasts)
    run = run_record("trace", **{everything: everything})
    return dataclasses.replace(made, sentences=(everything,), contrasts=contrasts, run=run)


def every_view(traces: TraceSet, diagnosis: Diagnosis) -> list[View]:
    return [
        *(views.token_view(traces, 0, quantity=q, position=2) for q in FILLS),
        views.tokens_table(traces, 0),
        views.top_k_table(traces, 0, 1),
        views.verdict(diagnosis),
        views.contrasts_table(diagnosis),
        views.frequency_table(diagnosis),
        views.divergent_table(diagnosis, traces),
        views.prompt_summary(traces),
        views.method_card(diagnosis.run),
        views.legend("retention"),
        views.figure_view(figures.panel(diagnosis)),
        views.figure_view(figures.base_favored_frequencies(diagnosis, limit=60)),
        views.figure_view(figures.gradients(dataclasses.replace(make_probe(), prompt_ids=HOSTILE_TEXTS[:4]))),
    ]


def test_hostile_text_makes_no_element_and_can_be_read() -> None:
    traces = hostile_traces()
    for view in every_view(traces, hostile_diagnosis(traces)):
        page = assert_only_ours(view.body)
        page.text.encode("utf-8")
        view.text.encode("utf-8")
        scripts = [a for tag, a in page.elements if tag == "script"]
        assert scripts == []
    page = Page(views.token_view(hostile_traces(), 0).body)
    for text in HOSTILE_TEXTS:
        assert legible.prose(text).replace("\n", "↵\n") in page.text.replace("5\n", "\n") or len(text) < 3
    body = views.token_view(hostile_traces(), 0).body
    assert body.startswith('<section class="wb wb-tokens mathjax_ignore tex2jax_ignore"')
    assert "…(+1,000 characters)" in views.token_view(hostile_traces(), 0).body


SECRET = ("Mix", " the", " glimmer", " dust", "\n", " slowly", ".")


def harmful_traces(*, classroom_safe: bool = False) -> TraceSet:
    made = hostile_traces(SECRET, "harmful")
    response = dataclasses.replace(made.responses[0], prompt="how?", prompt_id="p1", system_prompt=None)
    return dataclasses.replace(
        made, responses=(response,), classroom_safe=classroom_safe, warnings=(), prompt_set="x", special=made.partial
    )


def _forms(view: View) -> str:
    return f"{view.body}{view.text}{view.rows}"


def test_harmful_text_is_covered_by_default_and_shown_on_request() -> None:
    traces = harmful_traces()
    shown = [
        views.token_view(traces, 0, position=2),
        views.tokens_table(traces, 0),
        views.top_k_table(traces, 0, 2),
        views.divergent_table(make_diagnosis(traces), traces),
    ]
    for view in shown:
        for word in ("glimmer", "Mix", "slowly"):
            assert word not in _forms(view)
    for row in views.token_view(traces, 0).rows:
        assert row["token_id"] is None  # an id is the text to anyone who has the tokenizer
        assert row["probability_base"] > 0
    assert "SHA-256" in shown[0].body
    widths = re.findall(r'<span class="wb-hid">(.*?)</span>', shown[0].body)
    assert len(widths) == len(SECRET) + 1  # the legend's too
    assert len(set(widths)) == 1
    for view in (
        views.token_view(harmful_traces(classroom_safe=True), 0),
        views.token_view(harmful_traces(), 0, harmful_text="show"),
    ):
        assert "glimmer" in view.body
        assert "wb-hid" not in view.body
    view = views.token_view(harmful_traces(), 0, harmful_text="blur", position=2)
    hidden = re.search(r'<details class="wb-reveal"><summary>Reveal.*?</details>', view.body, re.DOTALL)
    assert "glimmer" in hidden[0]
    assert "glimmer" not in view.body.replace(hidden[0], "")
    assert "glimmer" not in view.text
    assert " open" not in hidden[0][:40]
    traces = dataclasses.replace(make_traces(), classroom_safe=False)
    i = next(i for i, r in enumerate(traces.responses) if r.label == "harmless")
    assert "wb-hid" not in views.token_view(traces, i, harmful_text="redact").body


def test_marks_say_what_is_favored_certain_and_given() -> None:
    traces = make_traces("deep", tokens=20)
    view = views.token_view(traces, 0)
    tokens = re.findall(r'<(?:span|mark) class="t[ "].*?(?=<(?:span|mark) class="t[ "]|</div>)', view.body, re.DOTALL)
    shift = traces.logprob_shift_nats[0, : len(tokens)]
    assert len(tokens) == 20
    assert [("<b>" in t, "wb-lean" in t) for t in tokens] == [(s <= -0.1, -0.1 < s < 0) for s in shift.tolist()]
    traces = make_traces("certain", tokens=20)
    view = views.token_view(traces, 0, quantity="retention")
    tokens = [a for tag, a in Page(view.body).elements if (a.get("class") or "").split()[:1] == ["t"]]
    sure = ["wb-sure" in (a["class"] or "") for a in tokens]
    high = traces.retention[0, :20] >= 0.5  # a low one is evidence, however certain the models are
    assert sure == ((traces.entropy_aligned_nats[0, :20] <= 0.1) & high).tolist()
    assert any(sure)
    assert not any("slate" in (a["class"] or "") for a in tokens if "wb-sure" in (a["class"] or ""))
    traces = make_traces(prefixes=(5,), tokens=20)
    body = views.token_view(traces, 0).body
    assert (body.count("wb-given"), body.count("aligned continues")) == (5, 1)
    assert "the first 5 of 20 tokens given" in body
    teacher = views.token_view(make_traces(tokens=20), 0).body
    assert "wb-given" not in teacher
    assert "teacher-forced: 20 given tokens" in teacher


def test_every_view_reads_alone_with_captions_and_headings() -> None:
    """GitHub takes style and script away: strong fills are <mark>, base-favored tokens <b>, numbers in title."""
    view = views.token_view(make_traces("deep", tokens=30), 0, quantity="logprob_shift_nats")
    tags = Counter(tag for tag, _ in Page(view.body).elements)
    assert min(tags["mark"], tags["b"], tags["sup"]) > 0
    titles = [a["title"] or "" for tag, a in Page(view.body).elements if "title" in a]
    assert len(titles) == 30
    assert all("KL(aligned ‖ base)" in t and "nats" in t and "rank" in t for t in titles)
    traces = make_traces()
    for view in (views.token_view(traces, 0), views.verdict(make_diagnosis(traces)), views.legend("excess_mass")):
        assert "fewer is not better" in view.body
        assert "fewer is not better" in view.text
    for view in every_view(traces, make_diagnosis(traces)):
        elements = Page(view.body).elements
        tags = Counter(tag for tag, _ in elements)
        assert tags["table"] == tags["caption"]
        assert all(a.get("scope") in ("col", "row") for tag, a in elements if tag == "th")
        assert view.text
        assert view.rows


def test_numbers_are_the_records() -> None:
    traces = make_traces(tokens=12)
    rows = views.tokens_table(traces, 1).rows
    assert len(rows) == traces.lengths()[1]
    for t, row in enumerate(rows):
        assert row["position"] == t + 1
        assert row["probability_base"] == pytest.approx(np.exp(traces.logprob_base_nats[1, t]))
        assert row["retention"] == pytest.approx(float(traces.retention[1, t]))
    traces = make_traces()
    for position in (1, 5, 9):
        rows = views.top_k_table(traces, 0, position, rows=3).rows
        for side in ("probability_base", "probability_aligned"):
            assert sum(row[side] for row in rows) == pytest.approx(1, abs=1e-5)
        assert sum(row["observed"] for row in rows) == 1
    row = views.tokens_table(make_traces("deep"), 0).rows[0]
    said = [float(x) for x in re.findall(r"\+([0-9.]+)(?:,|$)", row["base_favors_instead"])]
    assert said == sorted(said, reverse=True)
    assert said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.93, "0.930"), (-2.5, "−2.50"), (18.4, "18.4"), (1234567.0, "1.2e6"), (0.0004, "0.0004"),
        (7.3e-5, "7.3e−5"), (151936.0, "151,936"),
    ],
)  # fmt: skip
def test_numbers_read_well(value: float, said: str) -> None:
    assert number(value) == said


def test_what_is_missing_is_said_and_never_zero() -> None:
    traces = make_traces(tokens=10)
    refuses(lambda: views.token_view(traces, 0, position=11), ParameterError, "position 11", "1", "10")
    refuses(lambda: views.top_k_table(traces, 99, 1), ParameterError, "99")
    refuses(lambda: views.token_view(traces, 0, quantity="retentoin"), UnknownName, "'retention'")
    traces = hostile_traces(("x",))
    empty = dataclasses.replace(traces, mask=np.zeros_like(traces.mask), pieces=((),))
    assert "no tokens" in views.token_view(empty, 0).body
    bare = dataclasses.replace(make_diagnosis(make_traces()), contrasts=(), frequencies=())
    assert "none" in views.contrasts_table(bare).text
    assert "none" in views.frequency_table(bare).body
    assert number(None) == number(float("nan")) == "–"
    assert number(0.0) == "0"
    row = views.contrasts_table(make_diagnosis(make_traces())).rows[-1]
    assert (row["value_interval"], row["value_n"]) == ("–", 2)
    assert interval(make_diagnosis(make_traces()).contrasts[-1].estimate) == "–"


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_on_every_fill_is_aa_in_both_themes(theme: int) -> None:
    colours = {name: pair[theme] for name, pair in palette.THEMES.items()}
    fills = [c for ramp in palette.RAMPS.values() for c in ramp[theme]]
    for fill in [*fills, colours["paper"], colours["panel"]]:
        assert palette.contrast(colours["ink"], fill) >= 4.5, fill
    for name in ("soft", "base", "aligned", "focus"):
        assert palette.contrast(colours[name], colours["paper"]) >= 4.5, name
    assert palette.contrast(colours["soft"], colours["panel"]) >= 4.5
    for graphic in [*(s.colour for s in palette.LABELS.values()), palette.BASE, palette.ALIGNED]:
        assert palette.contrast(graphic, colours["paper"]) >= 3, graphic


def test_legible_text_hides_nothing_and_palettes_tell_apart() -> None:
    hidden = "[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"

    def check(text: str) -> None:
        for said in (legible.label(text), legible.prose(text), legible.sentence(text)):
            assert not re.search(hidden, said)
        whole = legible.label(text, 9_999)
        assert legible.label(whole, 9_999) == whole
        assert re.search(r"[\s]", legible.label(text)) is None

    check_each(check)
    assert "\u200d" in legible.label("👩\u200d🔬")
    for light, dark in palette.RAMPS.values():
        assert sorted(map(palette.luminance, light), reverse=True) == list(map(palette.luminance, light))
        assert sorted(map(palette.luminance, dark)) == list(map(palette.luminance, dark))
    strokes = list(palette.LABELS.values())
    assert len({s.dash for s in strokes}) == len({s.marker for s in strokes}) == len(strokes)
    for matrix in (_NORMAL, _DEUTERANOPIA, _PROTANOPIA):
        labs = [_lab(s.colour, matrix) for s in strokes[:3]]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert np.linalg.norm(labs[i] - labs[j]) > 18


_NORMAL = np.eye(3)
_DEUTERANOPIA = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
_PROTANOPIA = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def _lab(colour: str, matrix: np.ndarray) -> np.ndarray:
    """Return CIE Lab of a colour as seen through a colour-vision matrix (Machado 2009)."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(_XYZ @ np.clip(matrix @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_views_display_themselves_and_load_nothing() -> None:
    view = views.token_view(make_traces(), 0)
    bundle = view._repr_mimebundle_()
    assert (set(bundle), bundle["text/html"].count("<style>")) == ({"text/html", "text/plain"}, 1)
    assert not re.search(r"https?://|@import|url\(", bundle["text/html"])
    assert str(view) == bundle["text/plain"]
    assert "<script>" not in views.verdict(make_diagnosis(make_traces())).html
    bundle = views.figure_view(figures.panel(make_diagnosis(make_traces())))._repr_mimebundle_()
    config = bundle["application/vnd.plotly.v1+json"]["config"]
    assert config["showSendToCloud"] is False
    assert config["plotlyServerURL"] == ""
    assert len(bundle["text/html"]) < 200_000
