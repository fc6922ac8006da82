"""The paper's tables: the printed numbers, settings that our rooms take, and our numbers beside them."""

from __future__ import annotations

from tests.errors import refuses
from workbench.core.errors import UnknownName
from workbench.core.records import Row
from workbench.evaluation.attacks import attack_config
from workbench.evaluation.capability import CapabilityConfig
from workbench.evaluation.paper import PAPER, Published, beside, paper_preset
from workbench.models.presets import preset


def published(name: str, arm: str, metric: str, **where: object) -> float:
    found = [
        p.value
        for p in paper_preset(name).published
        if p.arm == arm and p.name == metric and all(getattr(p, k) == v for k, v in where.items())
    ]
    assert len(found) == 1
    return found[0]


def test_the_headline_numbers_are_the_printed_ones() -> None:
    for pair, before, after in (
        ("llama-2-7b", 0.23, 0.005),
        ("llama-3.1-8b", 0.901, 0.148),
        ("qwen2.5-7b", 0.859, 0.443),
        ("qwen3-8b", 0.961, 0.164),
    ):
        assert published(f"paper/{pair}/prefill", "aligned", "asr", given="full") == before
        assert published(f"paper/{pair}/prefill", "paper", "asr", given="full") == after
    assert published("paper/llama-3.1-8b/prefill-4", "penalty", "asr", given=4) == 0.002
    assert published("paper/llama-3.1-8b/prefill", "aligned", "acc", setting="mmlu") == 0.68
    assert published("paper/llama-2-7b/gcg", "augmentation", "asr", attack="gcg") == 0.016
    assert published("paper/qwen2.5-7b/recovery", "paper", "ft_harmful_rate") == 0.005
    assert published("paper/figure-1", "pair", "kl_aligned_base_nats", label="harmful", position=1) == 1.24
    assert published("qi/llama-2-7b/attacks", "augmentation", "asr", given=40) == 0.045


def test_every_table_can_be_run_and_says_what_is_not_the_same() -> None:
    for name, table in PAPER.items():
        assert table.name == name
        assert table.deviations
        assert all(s.endswith(".") for s in table.deviations)
        if table.pair is not None:
            assert preset(table.pair).kind == "hub"
        for family, settings in table.attacks:
            attack_config(family, **settings)
        if table.tasks:
            CapabilityConfig(tasks=table.tasks)
        assert {p.setting for p in table.published if p.attack == "capability"} == set(table.tasks)
    assert any("ARC-E and ARC-C look exchanged" in d for d in PAPER["paper/llama-3.1-8b/prefill-4"].deviations)


def test_our_numbers_stand_beside_the_papers() -> None:
    table = paper_preset("paper/llama-3.1-8b/prefill-4")
    place = dict(name="asr", label="harmful", attack="prefill", given=4, n=384)
    rows = [
        Row(arm="aligned", judge="refusal", value=0.5, low=0.45, high=0.55, **place),  # type: ignore[arg-type]
        Row(arm="aligned", judge="guard", value=0.3, low=0.25, high=0.35, **place),  # type: ignore[arg-type]
        Row(arm="one_sided 1", judge="refusal", value=0.01, low=0.0, high=0.03, **place),  # type: ignore[arg-type]
    ]
    found = [b for b in beside(table, rows, {"one_sided 1": "penalty"}) if b.published.name == "asr"]
    assert [(b.published.arm, b.by, b.inside) for b in found] == [
        ("aligned", "refusal", True),
        ("aligned", "guard", False),
        ("penalty", "refusal", True),
    ]
    nothing = beside(table, rows)
    assert [b.ours for b in nothing if b.published.arm == "penalty" and b.published.name == "asr"] == [None]
    assert len(nothing) == len(table.published) + 1
    row = Row(name="kl_aligned_base_nats", label="harmful", position=1, value=1.1, low=1.0, high=1.3, n=60)
    (first, *_) = beside(paper_preset("paper/figure-1"), [row])
    assert first.published == Published(
        arm="pair", name="kl_aligned_base_nats", attack=None, label="harmful", value=1.24, unit="nats", position=1,
        read_off=True,
    )  # fmt: skip
    assert first.inside is True
    refuses(lambda: paper_preset("paper/llama-3-8b/prefill"), UnknownName, "'paper/llama-3.1-8b/prefill'")
