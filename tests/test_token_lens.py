"""The token lens without a browser: it sends the record, withholds what it must, and gives back frozen values."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
import struct
from typing import Any

import numpy as np
import pytest

from tests.errors import refuses
from tests.hostile_texts import HOSTILE_TEXTS
from tests.lens_cases import SEARCHES, SPLIT, TEXTS, UNREADABLE, VALUES, searched_flags, split_traces
from tests.test_views import SECRET, harmful_traces, hostile_traces
from tests.trace_makers import make_traces
from widgets.lens_search import Search
from widgets.lens_settings import LensSettings, counting, stored_k
from widgets.payload import SCALAR_BYTES, SENT, packed
from widgets.token_lens import LensFace, LensSelection, TokenLens
from workbench.core import legible
from workbench.core.errors import ParameterError, UnknownName
from workbench.core.quantities import FILLS, SEARCH_WORDS, quantity_named
from workbench.display import views
from workbench.tracing.records import TraceSet


def unpacked(buffer: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a buffer as the page does."""
    (size,) = struct.unpack_from("<I", buffer)
    header = json.loads(buffer[4 : 4 + size])
    arrays = {
        name: np.frombuffer(buffer, dtype, length, 4 + size + at)
        for name, (dtype, at, length) in header["arrays"].items()
    }
    return header, arrays


def face(lens: TokenLens) -> LensFace:
    found = lens.face
    assert isinstance(found, LensFace)
    return found


def column(lens: TokenLens, n: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return unpacked(face(lens).columns[n])


def page(lens: TokenLens, **changes: Any) -> None:
    """Change the state as a page would."""
    face(lens).state = {**face(lens).state, **changes}


def test_the_record_is_sent_in_few_bytes_and_missing_as_numbers() -> None:
    traces = make_traces("deep", tokens=20, prefixes=(3,))
    header, arrays = column(TokenLens(traces, 1))
    length = int(traces.lengths()[1])
    assert (header["tokens"], header["given"]) == (length, 3)
    for name in SENT:
        np.testing.assert_array_equal(arrays[name], getattr(traces, name)[1, :length])
    forms = [header["forms"][i] for i in arrays["form"]]
    assert [f[3] for f in forms] == traces.token_ids[1, :length].tolist()
    assert [f[0] for f in forms] == [legible.prose(p) for p in traces.pieces[1]]
    which = arrays["alternative"].reshape(length, -1)
    there = traces.topk_ids[1, :length] >= 0
    np.testing.assert_array_equal(which >= 0, there)
    np.testing.assert_array_equal(arrays["label_ids"][which[there]], traces.topk_ids[1, :length][there])
    known = traces.label_of()
    assert header["labels"] == [legible.label(known[i]) for i in arrays["label_ids"].tolist()]
    base = arrays["alternative_base_nats"].reshape(length, -1)
    np.testing.assert_array_equal(base[there], traces.topk_logprob_base_nats[1, :length][there])
    seen = np.where(traces.topk_ids[1, :length] == traces.token_ids[1, :length, None])
    assert arrays["observed"][seen[0]].tolist() == seen[1].tolist()
    assert (arrays["observed"] == 255).sum() == length - len(seen[0])
    traces = make_traces(tokens=24)
    _, arrays = column(TokenLens(traces))
    sent = {n: a for n, a in arrays.items() if not n.startswith(("alternative", "label"))}
    assert sum(a.nbytes for a in sent.values()) == SCALAR_BYTES * int(traces.lengths()[0])
    assert SCALAR_BYTES <= 64
    traces = make_traces()
    kl = traces.kl_aligned_base_nats.copy()
    kl[0, 2] = np.nan
    lens = TokenLens(dataclasses.replace(traces, scalars={**traces.scalars, "kl_aligned_base_nats": kl}))
    _, arrays = column(lens)
    assert np.isnan(arrays["kl_aligned_base_nats"][2])
    assert "NaN" not in json.dumps([face(lens).lens, face(lens).state], allow_nan=False)
    refuses(lambda: packed({"x": float("nan")}, {}), ValueError, "not JSON compliant")


def test_hostile_texts_arrive_legible_and_whole() -> None:
    lens = TokenLens(hostile_traces())
    header, arrays = column(lens)
    said = [header["forms"][i] for i in arrays["form"]]
    assert [f[0] for f in said] == [legible.prose(t) for t in HOSTILE_TEXTS]
    for text in (*(x for f in said for x in f[:2]), *header["labels"], header["prompt"], header["system"]):
        text.encode("utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]", text)
    json.dumps(face(lens).lens).encode("utf-8")


def test_pieces_scales_and_signs_are_those_of_the_static_views() -> None:
    header, arrays = column(TokenLens(split_traces()))
    forms = [header["forms"][i] for i in arrays["form"]]
    assert "".join(f[0] for f in forms) == "".join(SPLIT)
    assert [f[1] for f in forms] == ["Hi", "⟨F0⟩", "⟨9F·98⟩", "😀", "↵", "<|end|>", "a⟨E2⟩", "⟨82⟩"]
    assert [f[2] for f in forms] == [0, 2, 2, 0, 0, 1, 2, 2]
    sent = face(TokenLens(make_traces())).lens
    for scale, quantity in zip(sent["quantities"], map(quantity_named, FILLS), strict=True):
        assert scale["edges"] == list(quantity.edges)
        assert scale["levels"] == [[level, quantity.css(level), said] for level, said in quantity.ranges()]
    static = views.token_view(make_traces(), 0, quantity="retention").body
    for _, sample, said in sent["signs"][:3]:
        assert views.view.html_text(said) in static
        assert views.view.html_text(sample) in static


def test_selections_are_frozen_and_heard() -> None:
    lens = TokenLens(make_traces(tokens=20))
    heard: list[LensSelection] = []
    stop = lens.on_select(heard.append)
    lens.show(position=4)
    lens.show(span=(2, 9), quantity="retention")
    lens.pin(7, 3, 7)
    expected = LensSelection(response=0, position=4, pinned=(3, 7), span=(2, 9), quantity="retention")
    assert lens.selection == heard[-1] == expected
    assert len(heard) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        lens.selection.position = 1  # type: ignore[misc]
    lens.show(position=4)  # nothing new
    assert len(heard) == 3
    stop()
    lens.show(position=5)
    assert len(heard) == 3
    lens = TokenLens(make_traces(tokens=20), quantity="retention")
    lens.show(position=3, span=(1, 4))
    lens.show(response=2)
    assert lens.selection == LensSelection(response=2, position=None, pinned=(), span=None, quantity="retention")
    lens.show(span=(1, int(lens.traces.lengths()[2])))
    assert lens.selection.span is None


def test_the_page_is_heard_and_told_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    lens = TokenLens(make_traces(tokens=20))
    page(lens, position=5, pinned=[5, 2], span=[2, 6], quantity="rank_base")
    page(lens, ratio=2, search="kl > 1", granularity="word")
    assert lens.selection == LensSelection(response=0, position=5, pinned=(5, 2), span=(2, 6), quantity="rank_base")
    assert lens.settings == LensSettings(ratio=2, search="kl > 1", granularity="word")
    page(lens, position=99)
    assert "no position 99" in face(lens).error
    assert lens.selection.position == 5
    assert face(lens).state["position"] == 5  # the page is told
    assert "ParameterError" in caplog.text
    page(lens, position=6)
    assert face(lens).error == ""
    lens = TokenLens(make_traces(tokens=20))
    page(lens, response=3, position=7, pinned=[1])
    assert lens.selection.response == 3
    assert lens.selection.position is None
    assert (column(lens)[0]["response"], face(lens).state["pinned"]) == (3, [])
    lens = TokenLens(make_traces())
    face(lens)
    lens.on_select(lambda s: 1 / 0)
    lens.show(position=2)
    assert "ZeroDivisionError" in face(lens).error


def test_impossible_controls_are_named_and_nothing_changes() -> None:
    traces = make_traces(tokens=10)
    lens = TokenLens(traces)
    refuses(lambda: TokenLens(traces, 99), ParameterError, "99")
    refuses(lambda: TokenLens(traces, beside=(-1,)), ParameterError, "-1")
    refuses(lambda: lens.show(position=11), ParameterError, "position 11", "1", "10")
    refuses(lambda: lens.show(span=(4, 2)), ParameterError, "4", "2")
    refuses(lambda: TokenLens(traces, quantity="retentoin"), UnknownName, "'retention'")
    refuses(lambda: TokenLens(traces, minimum_bas=0.1), UnknownName, "'minimum_base'")
    assert lens.settings == LensSettings()
    for control, wrong in [
        *(("minimum_base", x) for x in (-0.1, 1.5, float("nan"))), *(("ratio", x) for x in (0.5, float("inf"))),
        *(("top_p", x) for x in (0.0, 1.1)), ("top_k", 0), ("temperature", -1.0), ("granularity", "letter"),
        ("search", "base p >"), ("search", "x" * 501),
    ]:  # fmt: skip
        lens = TokenLens(make_traces())
        with pytest.raises(ParameterError, match=control):
            lens.set(**{control: wrong})
        assert lens.settings == LensSettings()


def test_responses_stand_side_by_side_and_another_prompt_brings_its_own() -> None:
    traces = make_traces(prefixes=(0, 5), tokens=16)  # two responses a prompt
    lens = TokenLens(traces, 0, beside=(1,), arms={1: "prefilled"})
    assert lens.shown == (0, 1)
    assert [column(lens, n)[0]["name"] for n in (0, 1)] == ["aligned continues", "prefilled"]
    lens.show(response=4)
    assert lens.shown == (4, 5)
    lens.show(response=5)
    assert lens.shown == (5, 4)
    longest = int(max(traces.lengths()[[4, 5]]))
    page(lens, position=longest)
    assert lens.selection.position == longest
    frame = lens.to_frame()
    assert (frame["response"].unique().tolist(), len(frame)) == ([5, 4], traces.lengths()[[4, 5]].sum())
    static = lens.static()
    assert (static.body.count('class="wb wb-tokens'), {row["response"] for row in static.rows}) == (2, {4, 5})


def test_a_record_that_grows_keeps_what_is_selected() -> None:
    short, long = (make_traces(tokens=n, harmful=1, harmless=0, lookalike=0) for n in (6, 12))
    lens = TokenLens(short)
    face(lens)
    lens.show(position=3, span=(2, 4))
    lens.pin(5)
    before = face(lens).lens
    lens.read(long)
    assert column(lens)[0]["tokens"] == 12
    assert lens.selection == LensSelection(response=0, position=3, pinned=(5,), span=(2, 4), quantity="excess_mass")
    assert face(lens).lens == before  # so the page keeps its controls
    lens.read(make_traces(tokens=3, harmful=1, harmless=0, lookalike=0))
    assert lens.selection == LensSelection(response=0, position=3, pinned=(), span=None, quantity="excess_mass")


def test_the_data_frame_has_the_records_numbers_and_marks_what_is_selected() -> None:
    traces = make_traces("deep", tokens=12)
    lens = TokenLens(traces, 1, search="base-favored and position > 2", minimum_base=0.05)
    lens.show(position=4, span=(3, 5))
    lens.pin(1, 4)
    frame = lens.to_frame()
    length = int(traces.lengths()[1])
    assert frame["position"].tolist() == list(range(1, length + 1))
    np.testing.assert_array_equal(frame["retention"].to_numpy(), traces.retention[1, :length])
    np.testing.assert_allclose(frame["probability_base"], np.exp(traces.logprob_base_nats[1, :length]), rtol=1e-6)
    assert frame.loc[frame["current"], "position"].tolist() == [4]
    assert frame.loc[frame["pinned"], "position"].tolist() == [1, 4]
    assert frame.loc[frame["in_span"], "position"].tolist() == [3, 4, 5]
    favored = (traces.logprob_shift_nats[1, :length] < 0) & (np.arange(length) > 1)
    np.testing.assert_array_equal(frame["match"].to_numpy(), favored)
    np.testing.assert_array_equal(frame["alternatives"], counting(traces, 1, lens.settings).sum(-1))


def slow_count(traces: TraceSet, r: int, t: int, s: LensSettings) -> int:
    """Count alternatives at one token as the docstring of LensSettings says, one at a time."""
    k = stored_k(traces)
    pairs = [
        (float(np.exp(np.float64(b))), float(np.exp(np.float64(a))))
        for i, b, a in zip(
            *(x[r, t] for x in (traces.topk_ids, traces.topk_logprob_base_nats, traces.topk_logprob_aligned_nats)),
            strict=True,
        )
        if i >= 0
    ]
    aligned = sorted((a for _, a in pairs), reverse=True)
    found = 0
    for b, a in pairs:
        ok = b > s.ratio * a and b >= s.minimum_base
        if s.top_k is not None:
            ok &= sum(x > b for x, _ in pairs) < s.top_k or sum(x > a for x in aligned) < s.top_k
        if s.only_sampled and s.temperature == 0:
            ok &= a == aligned[0]
        elif s.only_sampled:
            power = 1 / s.temperature
            rest = max(0.0, 1 - sum(aligned)) * aligned[k - 1] ** (power - 1)
            total = sum(x**power for x in aligned) + rest
            ok &= sum(x**power for x in aligned if x > a) < s.top_p * total
        found += ok
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"minimum_base": 0.1}, {"ratio": 1.5}, {"top_k": 1}, {"top_k": 2, "minimum_base": 0.02},
        {"only_sampled": True}, {"only_sampled": True, "top_p": 0.5, "temperature": 0.7},
        {"only_sampled": True, "top_p": 1.0, "temperature": 1.5}, {"only_sampled": True, "temperature": 0.0},
    ],
)  # fmt: skip
def test_alternatives_that_count(changes: dict[str, Any]) -> None:
    traces = make_traces("deep", tokens=14)
    settings = LensSettings(**changes)
    for r in range(3):
        got = counting(traces, r, settings).sum(-1).tolist()
        assert got == [slow_count(traces, r, t, settings) for t in range(int(traces.lengths()[r]))]


@pytest.mark.parametrize(("expression", "positions"), SEARCHES)
def test_search_finds_what_the_table_says(expression: str, positions: list[int]) -> None:
    found = Search(expression).matches(VALUES, searched_flags(), TEXTS)
    assert (np.flatnonzero(found) + 1).tolist() == positions


@pytest.mark.parametrize(("expression", "message"), UNREADABLE)
def test_a_search_that_cannot_be_read_says_where(expression: str, message: str) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        Search(expression)


def test_thresholds_take_away_and_fields_are_columns() -> None:
    traces = make_traces("deep")
    everything = counting(traces, 0, LensSettings())
    for changes in ({"minimum_base": 0.2}, {"ratio": 50.0}, {"top_k": 1}, {"only_sampled": True}):
        fewer = counting(traces, 0, LensSettings(**changes))
        assert not (fewer & ~everything).any()
        assert fewer.sum() < everything.sum()
    assert not counting(make_traces("identical"), 0, LensSettings()).any()
    frame = TokenLens(make_traces()).to_frame()
    assert set(SEARCH_WORDS.values()) <= set(frame.columns)


def everything_of(lens: TokenLens) -> str:
    """Return all that leaves Python: state, buffers, static and interactive pages (base64 undone), the data frame."""
    sent = face(lens)
    sealed = lens.to_html(interactive=True)
    packed = re.findall(r'"(H4sI[A-Za-z0-9+/=]{40,})"', sealed)
    assert packed
    inside = "".join(gzip.decompress(base64.b64decode(x)).decode("latin-1") for x in packed)
    traits = repr({n: getattr(sent, n) for n in ("lens", "state", "error")})
    columns = "".join(bytes(c).decode("latin-1") for c in sent.columns)
    return traits + columns + sealed + inside + lens.to_html() + str(lens.static()) + lens.to_frame().to_string()


WORDS = ("glimmer", "Mix", "slowly", "dust")


@pytest.mark.parametrize("harmful_text", ["auto", "redact"])
def test_no_harmful_text_is_in_anything_that_is_saved_or_exported(harmful_text: Any) -> None:
    lens = TokenLens(harmful_traces(), harmful_text=harmful_text, search='"glim"')
    said = everything_of(lens).replace('"glim"', "")
    for word in WORDS:
        assert word not in said
    header, arrays = column(lens)
    assert header["covered"]
    assert (header["forms"], header["labels"], arrays["label_ids"].size) == ([["", "", 0, -1]], [], 0)
    assert set(arrays["form"].tolist()) == {0}
    assert set(arrays["alternative"].tolist()) <= {0, -1}
    assert not lens.to_frame()["match"].any()  # not even by searching


def test_covered_text_is_sent_only_where_it_may_be_revealed() -> None:
    sent: list[tuple[Any, list[bytes]]] = []
    for harmful_text, treatment, texts in (("auto", "blur", 1), ("blur", "blur", 1), ("redact", "redact", 0)):
        lens = TokenLens(harmful_traces(), harmful_text=harmful_text)  # type: ignore[arg-type]
        assert column(lens)[0]["treatment"] == treatment
        sent.clear()
        face(lens).send = lambda content, buffers=None: sent.append((content, buffers))  # type: ignore[method-assign]
        face(lens).asked += 1
        assert len(sent) == texts
        for content, buffers in sent:
            assert content == {"do": "text"}
            header, arrays = unpacked(buffers[0])
            assert "".join(header["forms"][i][0] for i in arrays["form"]) == "".join(SECRET)
    assert not column(TokenLens(harmful_traces(classroom_safe=True)))[0]["covered"]
    assert not column(TokenLens(harmful_traces(), harmful_text="show"))[0]["covered"]
    traces = dataclasses.replace(make_traces(), classroom_safe=False)
    harmless = next(i for i, r in enumerate(traces.responses) if r.label == "harmless")
    assert not column(TokenLens(traces, harmless, harmful_text="redact"))[0]["covered"]


def test_static_interactive_and_empty_forms() -> None:
    traces = make_traces(tokens=15)
    lens = TokenLens(traces, 2, quantity="retention", live=False)
    lens.show(position=3)
    assert lens.static() == views.token_view(traces, 2, quantity="retention", position=3)
    assert lens.to_html() == lens.static().html
    bundle = lens._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert lens._shown is None  # no widget, no comm
    said = TokenLens(traces).to_html(interactive=True)
    assert views.token_view(traces, 0).body in said
    assert not re.search(r"https?://|@import|url\(", said)
    assert said.count("</script>") == 3  # the static cards', the data's, the starter's
    hostile = TokenLens(hostile_traces()).to_html(interactive=True)
    data = re.search(r'<script type="application/json">(.*?)</script>', hostile, re.DOTALL)
    assert "<" not in data[1]
    assert json.loads(data[1])["state"]["lens"]["sealed"]
    made = hostile_traces(("x",))
    empty = dataclasses.replace(made, mask=np.zeros_like(made.mask), pieces=((),))
    lens = TokenLens(empty)
    header, arrays = column(lens)
    assert header["tokens"] == 0
    assert all(a.size == 0 for a in arrays.values())
    assert len(lens.to_frame()) == 0
    assert "no tokens" in lens.static().body
