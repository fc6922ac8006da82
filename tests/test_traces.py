"""From prompts to a TraceSet: both kinds of trajectory, thinking, template modes, what is said, saving, bad input."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.fakes import counting_model, prompt_set
from tests.tiny_pair import THINKING_TEMPLATE, UNTHINK, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NonFiniteLogits, ParameterError, PromptError
from workbench.core.quantities import QUANTITIES
from workbench.core.records import load, save
from workbench.core.store import Store
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair
from workbench.tracing.metrics import compare
from workbench.tracing.records import TraceSet
from workbench.tracing.traces import TraceConfig, template_disagreement, trace

PROMPTS = prompt_set("Tell me a story", "How do I get to the sea?", "the cat and the dog")
SMALL = TraceConfig(max_tokens=12, prefix_tokens=(0,))


def test_teacher_forced_follows_the_given_response() -> None:
    pair = tiny_pair()
    traces = trace(pair, PROMPTS, SMALL)
    for row, (r, p) in enumerate(zip(traces.responses, PROMPTS, strict=True)):
        ids = pair.encode(p.response or "")[:12]
        size = len(ids)
        assert tuple(traces.token_ids[row, :size]) == ids
        assert traces.mask[row].tolist() == [True] * size + [False] * (traces.mask.shape[1] - size)
        assert (r.trajectory, r.stop, r.prefix_tokens) == ("teacher_forced", "given", size)
        assert (r.context_tokens, "".join(traces.pieces[row])) == (len(pair.context(p)), pair.decode(ids))
    padding = ~traces.mask
    assert padding.any()
    assert np.isnan(traces.kl_aligned_base_nats[padding]).all()
    assert (traces.token_ids[padding] == -1).all()
    assert (traces.rank_base[padding] == 0).all()
    assert (traces.rank_base[traces.mask] >= 1).all()


@pytest.mark.parametrize("mode", ["shared", "own", "plain"])
def test_scalars_equal_both_models_own_forward(mode: str) -> None:
    pair = tiny_pair("qwen3").with_template_mode(mode)  # type: ignore[arg-type]
    traces = trace(pair, PROMPTS, SMALL)
    for row, p in enumerate(PROMPTS):
        ids = traces.token_ids[row][traces.mask[row]]
        logits = []
        for which in ("base", "aligned"):
            context = pair.context(p, which)  # type: ignore[arg-type]
            with torch.no_grad(), pair.model(which) as model:  # type: ignore[arg-type]
                full = model(torch.tensor([[*context, *ids]])).logits[0, :, : pair.vocab]
            logits.append(full[len(context) - 1 : -1].clone())
        want = compare(logits[0], logits[1], torch.tensor(ids)).scalars
        for name in QUANTITIES:
            assert np.allclose(getattr(traces, name)[row][traces.mask[row]], want[name], atol=2e-5, rtol=1e-4), name


def test_prompts_without_responses_are_continued_from_their_start() -> None:
    pair, bare = tiny_pair(), prompt_set("Tell me a story", "the cat", response=None)
    auto = TraceConfig(trajectory="auto", prefix_tokens=(0, 3, 5), max_tokens=8)
    traces = trace(pair, bare, auto)
    assert [(r.trajectory, r.prefix_tokens) for r in traces.responses] == [("free_running", 0)] * 2
    assert any("Prefix 3 and 5 left out" in w for w in traces.warnings)
    assert {r.trajectory for r in trace(pair, PROMPTS, auto).responses} == {"teacher_forced"}
    refuses(lambda: trace(pair, bare, dataclasses.replace(auto, trajectory="teacher_forced")), PromptError)
    refuses(lambda: trace(pair, bare, dataclasses.replace(auto, prefix_tokens=(3,))), PromptError, "prefix of 3")


def test_free_running_continues_after_each_prefix() -> None:
    pair = tiny_pair()
    config = TraceConfig(trajectory="free_running", prefix_tokens=(0, 3), max_tokens=10)
    traces = trace(pair, PROMPTS, config)
    assert [r.prefix_tokens for r in traces.responses] == [0, 0, 0, 3, 3, 3]
    for row, r in enumerate(traces.responses):
        p = next(p for p in PROMPTS if p.id == r.prompt_id)
        prefix = pair.encode(p.response or "")[: r.prefix_tokens]
        own = generate(pair, "aligned", [pair.context(p) + prefix], GenerateConfig(max_tokens=10 - len(prefix)))[0]
        assert tuple(traces.token_ids[row][traces.mask[row]]) == prefix + own.ids
        greedy = traces.rank_aligned[row][traces.mask[row]][len(prefix) :]
        assert (greedy == 1).all(), "the aligned model's own greedy tokens have rank 1 under it"


def test_short_and_ended_prefixes_are_counted() -> None:
    pair = tiny_pair()
    prompts = prompt_set("Tell me a story", response=" a")
    size = len(pair.encode(" a"))
    traces = trace(pair, prompts, TraceConfig(trajectory="free_running", prefix_tokens=(5,), max_tokens=9))
    p = prompts.prompts[0]
    more = generate(pair, "base", [pair.context(p, "base") + pair.encode(" a")], GenerateConfig(max_tokens=5 - size))
    assert tuple(traces.token_ids[0, :5]) == pair.encode(" a") + more[0].ids
    assert any("1 of 1 given responses are shorter" in w for w in traces.warnings)
    tokenizer = tiny_tokenizer()
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tokenizer)
    last = pair.decode((318,))  # counting goes on with 319, 0 and 1, the end
    prompts = prompt_set("count", "count on", response=last)
    assert pair.encode(last) == (318,)
    traces = trace(pair, prompts, TraceConfig(trajectory="free_running", prefix_tokens=(0, 6), max_tokens=9))
    assert [r.prefix_tokens for r in traces.responses] == [0, 0, 6]
    assert any("1 of these ended before 6 tokens" in w for w in traces.warnings)


def test_thinking_is_a_trajectory_of_its_own_and_the_answer_starts_after_it() -> None:
    tokenizer = tiny_tokenizer(template=THINKING_TEMPLATE)
    end = tokenizer.convert_tokens_to_ids(UNTHINK)
    pair = tiny_pair(tokenizer=tokenizer, thinking=True)
    traces = trace(pair, PROMPTS, SMALL)
    segments = [r.segment for r in traces.responses]
    assert segments == ["thinking"] * 3 + ["answer"] * 3
    for row in range(3):
        block = traces.token_ids[row][traces.mask[row]]
        assert block[-1] == end
        assert traces.responses[row + 3].context_tokens == (
            traces.responses[row].context_tokens + len(block) + len(pair.encode("\n\n"))
        )
        size = traces.mask[row + 3].sum()
        assert tuple(traces.token_ids[row + 3, :size]) == pair.encode(PROMPTS.prompts[row].response or "")[:12]


def test_records_are_reused_saved_and_label_every_id(tmp_path: Path) -> None:
    traces = trace(tiny_pair(), PROMPTS, SMALL)
    save(traces, tmp_path / "traces")
    assert load(tmp_path / "traces", TraceSet) == traces
    code = (
        "import sys; from workbench import TraceSet, load; load(sys.argv[1], TraceSet); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "traces")], check=True)
    traces = trace(tiny_pair(shift=0.3), PROMPTS, SMALL)
    known = set(traces.label_of())
    for ids in (traces.token_ids, traces.topk_ids, traces.detected_token):
        assert set(ids[ids >= 0].tolist()) <= known
    assert traces.detected_response.max() < len(traces.responses)
    assert (traces.detected_count >= 1).all()
    pair = tiny_pair()
    first = trace(pair, PROMPTS, SMALL, store=Store(tmp_path))
    again = trace(pair, PROMPTS, SMALL, store=Store(tmp_path))
    assert dataclasses.replace(again, run=first.run) == first


@pytest.mark.slow
def test_kill_minus_nine_then_resume_gives_the_same(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.fakes import prompt_set\n"
        "from tests.tiny_pair import tiny_pair\n"
        "from workbench.core.store import Store\n"
        "from workbench.tracing.traces import TraceConfig, trace\n"
        "from workbench.core.records import save\n"
        "folder, kill = Path(sys.argv[1]), sys.argv[2] == 'kill'\n"
        "write, n = Store.write, [0]\n"
        "def counted(self, entries):\n"
        "    n[0] += 1\n"
        "    if kill and n[0] == 3: os.kill(os.getpid(), 9)\n"
        "    write(self, entries)\n"
        "Store.write = counted\n"
        "prompts = prompt_set(*[f'Tell me story {i}' for i in range(12)])\n"
        "config = TraceConfig(trajectory='free_running', prefix_tokens=(0, 2), max_tokens=12, batch_tokens=80)\n"
        "save(trace(tiny_pair(), prompts, config, store=Store(folder / 'store')), folder / 'out')\n"
    )

    def run(folder: Path, how: str) -> int:
        here = str(Path(__file__).parents[1])
        command = [sys.executable, str(script), str(folder), how]
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": here}, check=False).returncode

    assert (run(tmp_path / "whole", "run"), run(tmp_path / "killed", "kill")) == (0, -9)
    assert len(Store(tmp_path / "killed" / "store")) > 0
    assert run(tmp_path / "killed", "run") == 0
    whole, resumed = (load(tmp_path / name / "out", TraceSet) for name in ("whole", "killed"))
    assert dataclasses.replace(resumed, run=whole.run) == whole


def test_what_is_left_out_or_disagrees_is_said() -> None:
    pair = tiny_pair()
    mixed = dataclasses.replace(
        PROMPTS, prompts=(*PROMPTS.prompts[:2], dataclasses.replace(PROMPTS.prompts[2], response=None))
    )
    traces = trace(pair, mixed, TraceConfig(max_tokens=3, prefix_tokens=(0,)))
    assert len(traces.responses) == 2
    assert any("1 of 3 prompts have no response" in w for w in traces.warnings)
    assert any("2 of 2 responses are longer than 3 tokens" in w for w in traces.warnings)
    refuses(lambda: trace(pair, prompt_set("a", "b", response=None), SMALL), PromptError, "2", "free_running")
    config = TraceConfig(trajectory="free_running", prefix_tokens=(4,), max_tokens=9)
    refuses(lambda: trace(pair, prompt_set("a", response=None), config), PromptError, "4")
    assert template_disagreement(tiny_pair(shift=0.0), PROMPTS) == []
    pair = tiny_pair(shift=0.3)
    said = template_disagreement(pair, PROMPTS)
    kl = {}
    for mode in ("shared", "own", "plain"):
        other = trace(pair.with_template_mode(mode), PROMPTS, SMALL)  # type: ignore[arg-type]
        kl[mode] = float(other.kl_aligned_base_nats[:, 0].mean())
    disagree = max(kl.values()) > 2 * min(kl.values()) and max(kl.values()) - min(kl.values()) > 0.05
    assert bool(said) == disagree
    if said:
        assert f"plain {kl['plain']:.3g}" in said[0]


def test_bad_settings_and_prompts_are_refused_before_work() -> None:
    pair = tiny_pair()
    for field, value in [
        ("trajectory", "backwards"), ("count_space", "half"), ("ranking", "size"), ("max_tokens", 0),
        ("base_floor", 1.0), ("prefix_tokens", ()), ("prefix_tokens", (64,)), ("prefix_tokens", (3, 3)),
    ]:  # fmt: skip
        config = TraceConfig()
        object.__setattr__(config, field, value)  # past the type checker that only tests have
        with pytest.raises(ParameterError, match=field):
            config.__post_init__()
    with pytest.raises(ContextOverflow, match=r"'p0'.*256"):
        trace(pair, prompt_set("zq" * 110), TraceConfig(trajectory="free_running", max_tokens=60))
    refuses(lambda: trace(pair, prompt_set("a", response=" b" * 300), TraceConfig(max_tokens=300)), ContextOverflow)


def test_counting_has_no_off_by_one_and_nan_is_named() -> None:
    pair = ModelPair.from_models(counting_model(320), counting_model(320), tiny_tokenizer())
    traces = trace(pair, PROMPTS, TraceConfig(trajectory="free_running", prefix_tokens=(0,), max_tokens=8))
    assert (traces.logprob_aligned_nats[traces.mask] == 0).all()
    assert (traces.rank_base[traces.mask] == 1).all()
    assert (traces.retention[traces.mask] == 1).all()
    pair = ModelPair.from_models(counting_model(320), broken := counting_model(320), tiny_tokenizer())
    with torch.no_grad():
        broken.lm_head.weight[:, :] = 3e38
    with pytest.raises(NonFiniteLogits, match=r"aligned model .* position 1 .* prompt 'p\d'"):
        trace(pair, PROMPTS, SMALL)
