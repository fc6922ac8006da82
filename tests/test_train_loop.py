"""Training itself: the student and its pair, steps, checkpoints, resume, film, pre-flight, the card and the adapter."""

from __future__ import annotations

import ast
import copy
import dataclasses
import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.errors import refuses
from tests.tiny_pair import save_model, tiny_adapter, tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.errors import NonFiniteLoss, NotPresent, PairError, ParameterError, StorageFull
from workbench.core.records import load, save
from workbench.models.pair import ModelPair
from workbench.models.sources import quiet_libraries
from workbench.training import distil as distil_module
from workbench.training.adapter import RECORD, export, load_adapter, merge
from workbench.training.config import ARMS, ArmConfig, LoraSettings, TrainConfig, WatchSettings
from workbench.training.distil import distil
from workbench.training.loop import Loop, checkpoints
from workbench.training.objective import Heads
from workbench.training.records import Adapter
from workbench.training.references import References
from workbench.training.rows import Sampler, TrainingText, TrainingTexts
from workbench.training.step import StepLoss, gradient_norm, matching_scale
from workbench.training.student import Student, student_of
from workbench.training.teacher import preview_teacher, teacher_flips

LORA = LoraSettings(rank=4, alpha=8.0, targets="all-linear")
QUIET = WatchSettings(film_every=0, checkpoint_every=0, preflight=False)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama")


def ids(n: int, length: int, vocab: int = 300) -> tuple[int, ...]:
    return tuple(torch.randint(8, vocab, (length,), generator=torch.Generator().manual_seed(n)).tolist())


def texts() -> TrainingTexts:
    return TrainingTexts(
        harmful=tuple(
            TrainingText(
                name=f"h{n}", prompt=f"question {n}", aligned=ids(n, 5), base=ids(n, 5),
                response=ids(100 + n, 9 + n), refusals=(ids(200 + n, 4), ids(300 + n, 6)),
            )
            for n in range(5)
        ),
        utility=tuple(
            TrainingText(name=f"u{n}", aligned=ids(400 + n, 6), base=ids(400 + n, 6), response=ids(500 + n, 8))
            for n in range(6)
        ),
        harmless=tuple(
            TrainingText(name=f"c{n}", aligned=ids(600 + n, 4), base=ids(600 + n, 4), response=ids(700 + n, 7))
            for n in range(4)
        ),
    )  # fmt: skip


def config(arm: str | ArmConfig = "recovery", *, steps: int = 4, lr: float = 1e-2, **more: Any) -> TrainConfig:
    chosen = ARMS[arm] if isinstance(arm, str) else arm
    chosen = replace(chosen, lora=LORA, optimiser=replace(chosen.optimiser, learning_rate=lr))
    return TrainConfig(**{"arm": chosen, "steps": steps, "watch": QUIET, **more})


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def parameters(pair: ModelPair) -> dict[str, Tensor]:
    out = {}
    for which in ("base", "aligned"):
        with pair.model(which) as model:  # type: ignore[arg-type]
            out |= {f"{which}.{n}": p.detach().clone() for n, p in model.named_parameters()}
    return out


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma3", "gpt2"])
def test_a_fresh_student_is_aligned_and_leaves_no_trace(arch: str) -> None:
    pair = tiny_pair(arch)  # type: ignore[arg-type]
    before, context = parameters(pair), torch.tensor([ids(0, 12)])
    aligned = pair.hidden("aligned", context)
    flags = {n: p.requires_grad for n, p in pair._sides["aligned"].weights.model.named_parameters()}
    with student_of(pair, LORA, 0) as student:
        rows, columns = torch.zeros(12, dtype=torch.long), torch.arange(12)
        assert torch.equal(student.hidden(context, rows, columns), aligned[0])
        with torch.no_grad():
            for p in student.parameters():
                p.add_(0.1)
        assert not torch.allclose(student.hidden(context, rows, columns), aligned[0])
        assert torch.equal(pair.hidden("aligned", context), aligned)  # its adapter off is the reference, bit for bit
    assert torch.equal(pair.hidden("aligned", context), aligned)
    after = parameters(pair)
    assert same(before, after)
    assert flags == {n: p.requires_grad for n, p in pair._sides["aligned"].weights.model.named_parameters()}


def test_a_pair_of_one_model_trains_a_copy_of_its_adapter_that_loads_on_the_base_alone(tmp_path: Path) -> None:
    base, _ = tiny_models("llama")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base.save_pretrained(tmp_path / "base")
    adapter = tiny_adapter(tmp_path / "given", base)
    with quiet_libraries():
        given = PeftModel.from_pretrained(base, str(adapter))
    one = ModelPair.from_models(base, given, tiny_tokenizer())
    kept = one.hidden("aligned", torch.tensor([ids(1, 9)]))
    made = distil(one, texts(), config(), out=tmp_path / "out")
    assert made.run.resolved["student_copied"] is True
    assert torch.equal(one.hidden("aligned", torch.tensor([ids(1, 9)])), kept)
    assert weights(tmp_path / "out").keys() == weights(adapter).keys()
    assert not same(weights(tmp_path / "out"), weights(adapter))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with quiet_libraries():
        loaded = PeftModel.from_pretrained(plain, str(tmp_path / "out"))
    again = one.with_aligned(str(tmp_path / "out"))
    asked = torch.tensor([ids(2, 9)])
    assert torch.allclose(loaded(asked).logits, again.logits("aligned", again.hidden("aligned", asked)), atol=1e-5)


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_arm_trains_and_changes_the_adapter_alone(arm: str, pair: ModelPair, tmp_path: Path) -> None:
    before = parameters(pair)
    made = distil(pair, texts(), config(arm, steps=2), out=tmp_path / arm)
    assert [s.step for s in made.history] == [1, 2]
    assert all(np.isfinite(s.loss) for s in made.history)
    moved = [v for k, v in weights(tmp_path / arm).items() if "lora_B" in k]
    assert any(bool(v.any()) for v in moved)
    assert same(before, parameters(pair))
    assert load_adapter(tmp_path / arm) == made


@pytest.mark.parametrize("arm", ["recovery", "paper", "augmentation"])
def test_one_batch_of_eight_is_eight_batches_of_one(arm: str, pair: ModelPair, tmp_path: Path) -> None:
    chosen = ARMS[arm]
    if arm == "recovery":  # the level of clipping is the whole step's
        chosen = replace(chosen, loss=replace(chosen.loss, clip_percentile=80.0))
    grads = []
    for micro in (None, 1):
        how = config(chosen, micro_batch=micro)
        with student_of(pair, LORA, 0) as student:
            loss = StepLoss(Heads.of(pair, student.peft), References(pair, texts(), how, None), how, pair.device)
            draws = [Sampler(texts(), how)[n] for n in range(8)]
            passes = [draws] if micro is None else [[d] for d in draws]
            counts = loss.counts(student, passes)
            for each in passes:
                total = loss(student, each, counts).total
                if total.requires_grad:
                    total.backward()
            grads.append([p.grad.clone() for p in student.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        assert float((a - b).norm()) <= 2e-5 * float(a.norm())


@pytest.mark.parametrize("arm", ["paper", "teacher_only", "recovery"])
def test_a_base_with_more_head_rows_than_the_student_teaches_what_it_says_of_the_shared_ones(arm, tmp_path) -> None:
    base, aligned = tiny_models("llama", head_rows=(384, 320))
    cut = copy.deepcopy(base)
    cut.resize_token_embeddings(320)
    made = {}
    for name, one in (("wide", base), ("cut", cut)):
        two = ModelPair.from_models(one, aligned, tiny_tokenizer())
        assert two.vocab == 320
        made[name] = distil(two, texts(), config(arm, steps=2), out=tmp_path / name)
    assert [s.parts for s in made["wide"].history] == [s.parts for s in made["cut"].history]
    assert same(weights(tmp_path / "wide"), weights(tmp_path / "cut"))


def test_rows_fit_the_context_and_settings_the_layers(tmp_path: Path, pair: ModelPair) -> None:
    short = tiny_pair("gpt2")  # it has as many positions as CONTEXT, and an error beyond
    long = [replace(t, response=ids(40 + n, 245)) for n, t in enumerate(texts().harmful)]
    how = config(steps=6, prefix_tokens=250, max_tokens=512)
    assert short.context_length < how.max_tokens
    assert preview_teacher(short, replace(texts(), harmful=tuple(long)), how, given=250).texts
    made = distil(short, replace(texts(), harmful=tuple(long)), how, out=tmp_path / "a")
    assert made.settings["max_tokens"] == short.context_length
    drawn = Sampler(replace(texts(), harmful=tuple(long)), replace(how, max_tokens=short.context_length))
    rows = [r for n in range(48) for r in drawn[n].rows]
    assert 200 < max(len(r.student.whole("aligned")) - 1 for r in rows) <= short.context_length
    with pytest.raises(PairError, match="LoRA"), student_of(pair, LoraSettings(targets=("no_such_layer",)), 0):
        pass
    assert pair._sides["aligned"].weights.peft is None
    base, aligned = tiny_models("llama", head_rows=(384, 320))
    with pytest.raises(PairError, match=r"(?s)384.*320|320.*384"):
        ModelPair.from_models(base, aligned, tiny_tokenizer(), base_tokenizer=tiny_tokenizer(384))


def _stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    plain = Loop._step

    def stopping(self: Loop, number: int) -> Any:
        if number > step:
            raise KeyboardInterrupt
        return plain(self, number)

    monkeypatch.setattr(Loop, "_step", stopping)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_training_equals_an_uninterrupted_one_to_the_last_bit(stop, pair, tmp_path, monkeypatch) -> None:
    arm = replace(ARMS["recovery"], lora=replace(LORA, dropout=0.3))  # random numbers go on where they were
    how = replace(
        config(steps=6, micro_batch=4),
        arm=replace(arm, optimiser=replace(arm.optimiser, learning_rate=1e-2)),
        watch=WatchSettings(film_every=2, checkpoint_every=2, preflight=False),
    )
    whole = distil(pair, texts(), how, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        _stop_after(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            distil(pair, texts(), how, out=tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    assert [c.name for c in checkpoints(tmp_path / "parts.training")] == [
        f"checkpoint-{s}" for s in (2, 4) if s <= stop
    ]
    parts = distil(pair, texts(), how, out=tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert [(s.step, s.loss, s.parts) for s in parts.history] == [(s.step, s.loss, s.parts) for s in whole.history]
    assert parts.film == whole.film
    assert not (tmp_path / "parts.training").exists()


def test_trainings_finish_once_with_falling_loss_and_plain_checkpoints(pair, tmp_path, monkeypatch) -> None:
    made = distil(pair, texts(), config("refusal_sft", steps=30), out=tmp_path / "a")
    first, last = ([s.parts["refusal"] for s in part] for part in (made.history[:3], made.history[-3:]))
    assert sum(last) < 0.7 * sum(first)
    how = replace(config(steps=9), watch=replace(QUIET, checkpoint_every=1))
    with monkeypatch.context() as patch:
        _stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            distil(pair, texts(), how, out=tmp_path / "b")
    files = {p.suffix for p in (tmp_path / "b.training").rglob("*") if p.is_file()}
    assert files == {".safetensors", ".json"}
    assert [c.name for c in checkpoints(tmp_path / "b.training")] == ["checkpoint-4", "checkpoint-5"]
    made = distil(pair, texts(), config(), out=tmp_path / "c")
    assert distil(pair, texts(), config(), out=tmp_path / "c") == made
    refuses(lambda: distil(pair, texts(), config(lr=2e-2), out=tmp_path / "c"), ParameterError)


def test_a_loss_that_is_not_finite_stops_with_step_and_rows_and_keeps_the_checkpoint(pair, tmp_path, monkeypatch):
    how = replace(config(steps=6), watch=replace(QUIET, checkpoint_every=2))
    plain: Callable[..., Tensor] = StepLoss._hidden

    def poisoned(self: StepLoss, student: Any, rows: Any) -> Tensor:
        made = plain(self, student, rows)
        steps.append(1)
        return made * float("nan") if len(steps) == 4 else made

    steps: list[int] = []
    monkeypatch.setattr(StepLoss, "_hidden", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"step 4.* h\d .*position \d+"):
        distil(pair, texts(), how, out=tmp_path / "a")
    assert [c.name for c in checkpoints(tmp_path / "a.training")] == ["checkpoint-2"]


def test_a_full_disk_keeps_the_checkpoint_before(pair, tmp_path, monkeypatch) -> None:
    how = replace(config(steps=6), watch=replace(QUIET, checkpoint_every=2))
    plain, calls = Student.save, list[int]()

    def full(self: Student, folder: Path) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, folder)

    monkeypatch.setattr(Student, "save", full)
    refuses(lambda: distil(pair, texts(), how, out=tmp_path / "a"), StorageFull)
    assert [c.name for c in checkpoints(tmp_path / "a.training")] == ["checkpoint-2"]
    assert not list((tmp_path / "a.training").glob("*.partial-*"))
    distil(pair, texts(), how, out=tmp_path / "a")


def test_the_budget_of_harmless_kl_stops_every_arm(pair, tmp_path, monkeypatch) -> None:
    watch = WatchSettings(film_every=1, checkpoint_every=0, kl_budget_nats=1e-6, preflight=False)
    made = distil(pair, texts(), replace(config("refusal_sft", steps=9), watch=watch), out=tmp_path / "a")
    assert made.stopped is not None
    assert "above the budget" in made.stopped
    assert len(made.history) < 9
    watch = WatchSettings(film_every=1, checkpoint_every=0, kl_budget_nats=1e-6, preflight=False)
    made = distil(pair, texts(), replace(config("completion_only", steps=9), watch=watch), out=tmp_path / "b")
    assert made.stopped is not None
    assert len(made.history) < 9
    watch = WatchSettings(film_every=1, kl_budget_nats=1.0, preflight=False)
    alone = replace(texts(), utility=(), harmless=())
    with pytest.raises(ParameterError):
        distil(pair, alone, replace(config("completion_only", steps=2), watch=watch), out=tmp_path / "c")
    assert not list(tmp_path.glob("c*"))
    watch = WatchSettings(film_every=1, checkpoint_every=1, kl_budget_nats=1e-6, preflight=False)
    how = replace(config("refusal_sft", steps=9), watch=watch)
    whole = distil(pair, texts(), how, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(distil_module, "card_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            distil(pair, texts(), how, out=tmp_path / "killed")
    again = distil(pair, texts(), how, out=tmp_path / "killed")
    assert (again.stopped, len(again.history)) == (whole.stopped, len(whole.history))
    mine, theirs = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_film_starts_at_aligned_as_the_metrics_say(pair: ModelPair, tmp_path: Path) -> None:
    how = replace(config("refusal_sft", steps=5), watch=replace(QUIET, film_every=2))
    film = distil(pair, texts(), how, out=tmp_path / "a").film
    assert (film.steps.tolist(), [t.label for t in film.texts]) == ([0, 2, 4, 5], ["harmful"] * 4 + ["harmless"] * 4)
    assert np.nanmax(film.kl_aligned_student_nats[0]) < 1e-5  # step 0 is the aligned model
    assert (film.mean("kl_aligned_student_nats", "harmful")[1:] > 1e-4).all()
    for n, text in enumerate(film.texts):
        assert np.isfinite(film.retention[:, n]).sum(-1).tolist() == [len(text.pieces)] * 4
    how = replace(config(steps=1), watch=replace(QUIET, film_every=1))
    film = distil(pair, texts(), how, out=tmp_path / "b").film
    first = texts().harmful[0]
    whole = torch.tensor([first.aligned + first.response[:-1]])
    at = slice(len(first.aligned) - 1, None)
    with torch.no_grad():
        a, b = (pair.logits(w, pair.hidden(w, whole)[0, at]).log_softmax(-1) for w in ("aligned", "base"))  # type: ignore[arg-type]
    kl = torch.nn.functional.kl_div(b, a, log_target=True, reduction="none").sum(-1)
    n = len(first.response)
    assert np.allclose(film.kl_student_base_nats[0, 0, :n], kl.numpy(), atol=1e-5)
    tv = 0.5 * (a.exp() - b.exp()).abs().sum(-1)
    assert np.allclose(film.retention[0, 0, :n], 1 - tv.numpy(), atol=1e-5)
    entropy = torch.distributions.Categorical(logits=a).entropy()  # of the student, which is aligned before step 1
    assert np.allclose(film.entropy_student_nats[0, 0, :n], entropy.numpy(), atol=1e-5)


def test_recovery_is_started_only_where_it_teaches(tmp_path: Path, pair: ModelPair) -> None:
    base, _ = tiny_models("llama")
    twins = ModelPair.from_models(base, tiny_models("llama", shift=0.0)[1], tiny_tokenizer())
    how = replace(config("teacher_only"), watch=replace(QUIET, preflight=True))
    refuses(lambda: distil(twins, texts(), how, out=tmp_path / "a"), ParameterError, "0.00 %")
    assert distil(twins, texts(), replace(how, arm=config("recovery").arm), out=tmp_path / "b").preflight is not None
    for strength, expected in ((1.0, 0.0), (0.0, None)):
        found = teacher_flips(pair, texts(), replace(ARMS["paper"].loss, teacher_lambda=strength))
        assert found.n == sum(len(t.response) for t in texts().harmful)
        if expected is not None:
            assert found.value == expected
        else:  # lambda = 0 is the base model
            assert found.value > 0.0
    base, aligned = tiny_models("llama")
    with torch.no_grad():  # without attention a model knows the last token alone
        for name, weight in (*base.named_parameters(), *aligned.named_parameters()):
            weight.mul_(0.0 if "o_proj" in name else 1.0)
    forgetful = ModelPair.from_models(base, aligned, tiny_tokenizer())
    harmful = [replace(t, response=(*t.response[:8], t.aligned[-1])) for t in texts().harmful]
    same_end = replace(texts(), harmful=tuple(harmful))
    how = replace(config(), watch=replace(QUIET, preflight=True))
    with pytest.raises(ParameterError, match=r"'recovery'.*3, 5, 10, 20, 40, 100"):
        distil(forgetful, every_end(same_end), how, out=tmp_path / "forgetful_a")
    assert not (tmp_path / "forgetful_a").exists()
    deep_at_ten = distil(forgetful, same_end, how, out=tmp_path / "forgetful_b").preflight  # and not at 3 and 5
    assert deep_at_ten.flip_rate.value == 0.0
    made = distil(forgetful, texts(), how, out=tmp_path / "forgetful_c")
    assert made.preflight.flip_rate.value
    again = distil(forgetful, every_end(same_end), how, out=tmp_path / "forgetful_d", start=made.path)
    assert again.preflight is not None, "what a given adapter says is not what aligned says"


def every_end(some: TrainingTexts) -> TrainingTexts:
    """Responses that stand at the prompt's last token after every prefix that the pre-flight tries."""
    return replace(some, harmful=tuple(replace(t, response=(t.aligned[-1],) * 9) for t in some.harmful))


def test_preflight_and_controls_are_neutral(pair: ModelPair, tmp_path: Path) -> None:
    plain = distil(pair, texts(), config(), out=tmp_path / "a")
    looked = distil(pair, texts(), replace(config(), watch=replace(QUIET, preflight=True)), out=tmp_path / "b")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert plain.preflight is None
    assert looked.preflight.trained_parameters == sum(v.numel() for v in weights(tmp_path / "b").values())
    assert looked.preflight.memory_mib > 0
    assert any("in all" in s for s in looked.preflight.sentences)
    how = config("random_tokens")
    with student_of(pair, LORA, 0) as student:
        loss = StepLoss(Heads.of(pair, student.peft), References(pair, texts(), how, None), how, pair.device)
        sampler = Sampler(texts(), how)
        loss.complete_scale = matching_scale(student, loss, sampler, how)
        drawn = [sampler[n] for n in range(32)]
        draws = [replace(d, rows=rows) for d in drawn if (rows := tuple(r for r in d.rows if r.part == "completion"))]
        paper = loss.under(config("paper_tuned"))
        assert loss.complete_scale != 1.0
        assert gradient_norm(student, loss, draws) == pytest.approx(gradient_norm(student, paper, draws), rel=1e-4)


def test_the_card_has_the_values_that_were_used_and_its_line_loads(tmp_path, monkeypatch) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, aligned = tiny_models("llama")
    aligned.save_pretrained(tmp_path / "aligned")
    aligned = AutoModelForCausalLM.from_pretrained(tmp_path / "aligned")
    own = ModelPair.from_models(base, aligned, tiny_tokenizer())
    distil(own, texts(), config("paper", seed=7), out=tmp_path / "a")
    card = (tmp_path / "a" / "README.md").read_text("utf-8")
    for said in (
        "4 KL(softmax(z_s / tau) || softmax(z_teacher / tau)), z_teacher = 1.2 z_a + -0.2 z_b, tau = 2",
        "1 x 0.01 (1 + 2 |B_t| / |V|) x 0.01 x sum over M of z_s(v)^2 (which raises a token whose logit is negative), "
        "M = the 100 tokens",
        "| seed | 7 |",
        "| learning_rate | 0.01 |",
        "| harmful | 5 |",
        own.fingerprint,
        f"torch {torch.__version__}",
    ):
        assert said in card, said
    assert "question 1" not in card
    line = next(x for x in card.splitlines() if x.startswith("model = "))
    monkeypatch.chdir(tmp_path / "a")
    named = {"PeftModel": PeftModel, "AutoModelForCausalLM": AutoModelForCausalLM}
    with quiet_libraries():
        loaded = eval(compile(ast.parse(line.removeprefix("model = "), mode="eval"), "card", "eval"), named)
    again, asked = own.with_aligned(str(tmp_path / "a")), torch.tensor([ids(3, 9)])
    assert torch.allclose(loaded(asked).logits, again.logits("aligned", again.hidden("aligned", asked)), atol=1e-5)


def test_merged_models_say_what_the_adapter_says(pair, tmp_path, capsys) -> None:
    from transformers import AutoModelForCausalLM

    distil(pair, texts(), config(), out=tmp_path / "a")
    asked = torch.tensor([ids(4, 12)])
    before = {w: pair.hidden(w, asked) for w in ("base", "aligned")}  # type: ignore[arg-type]
    merge(pair, tmp_path / "a", tmp_path / "merged")
    assert same(before, {w: pair.hidden(w, asked) for w in ("base", "aligned")})  # type: ignore[arg-type]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    again = pair.with_aligned(str(tmp_path / "a"))
    adapted = again.logits("aligned", again.hidden("aligned", asked))
    assert torch.allclose(model(asked).logits, adapted, atol=1e-4)
    assert not torch.allclose(adapted, pair.logits("aligned", pair.hidden("aligned", asked)), atol=1e-3)
    refuses(lambda: merge(pair, tmp_path / "a", tmp_path / "merged"), ParameterError)
    from transformers import AutoModelForCausalLM

    from workbench.__main__ import main

    base, aligned = tiny_models("llama")
    adapter = tiny_adapter(tmp_path / "adapter", aligned)
    folders = {n: save_model(tmp_path / n, m, tiny_tokenizer()) for n, m in (("base", base), ("aligned", aligned))}
    asked = [str(adapter), "--base", str(folders["base"]), "--aligned", str(folders["aligned"])]
    assert main(["merge", *asked, "--out", str(tmp_path / "again")]) == 0
    assert str(tmp_path / "again") in capsys.readouterr().out
    moved = AutoModelForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert moved.keys() == aligned.state_dict().keys()
    assert not same(moved, dict(aligned.state_dict()))
    assert main(["merge", *asked, "--out", str(tmp_path / "again")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_adapters_save_load_and_replace_only_themselves(pair: ModelPair, tmp_path: Path) -> None:
    how = replace(config(), watch=replace(QUIET, film_every=2, preflight=True))
    made = distil(pair, texts(), how, out=tmp_path / "record")
    save(made, tmp_path / "again")
    assert load(tmp_path / "again", Adapter) == made
    assert (tmp_path / "record" / RECORD).is_dir()
    assert dataclasses.asdict(how)["arm"]["loss"] == made.settings["arm"]["loss"]
    assert "key" in json.loads((tmp_path / "record" / "training.json").read_text("utf-8"))
    first = distil(pair, texts(), config(), out=tmp_path / "a")
    second = distil(pair, texts(), config(lr=2e-2), out=tmp_path / "b")
    assert export(first, tmp_path / "kept").settings == first.settings
    assert export(second, tmp_path / "kept").settings == second.settings
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "b"))
    assert export(second, tmp_path / "b").path == second.path  # onto itself
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "b"))
    for inside in (".", RECORD):  # a folder of that name makes no adapter of it
        (tmp_path / "mine" / inside).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / "thesis.txt").write_text("years of work", "utf-8")
        refuses(lambda: export(first, tmp_path / "mine"), ParameterError, "adapter")
        assert (tmp_path / "mine" / "thesis.txt").read_text("utf-8") == "years of work"
    further = distil(pair, texts(), config(steps=2), out=tmp_path / "c", start=tmp_path / "kept")
    refuses(lambda: export(further, tmp_path / "kept"), ParameterError)
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "b"))


def test_a_start_of_another_scale_or_shape_is_refused_with_both_values(pair: ModelPair, tmp_path: Path) -> None:
    first = distil(pair, texts(), config(), out=tmp_path / "a")
    begun = distil(pair, texts(), config(steps=1, lr=1e-12), out=tmp_path / "b", start=first.path)
    asked = torch.tensor([ids(4, 12)])
    start, same_again = (pair.with_aligned(a.path) for a in (first, begun))
    assert torch.allclose(start.hidden("aligned", asked), same_again.hidden("aligned", asked), atol=1e-5)
    for name, lora, said in (
        ("alpha", replace(LORA, alpha=32.0), "lora_alpha = 8.0.*32.0"),
        ("rank", replace(LORA, rank=2), "r = 4.*r = 2"),
        ("layers", replace(LORA, targets=("q_proj",)), "layer"),
    ):
        arm = replace(config().chosen, lora=lora)
        with pytest.raises(PairError, match=said):
            distil(pair, texts(), replace(config(), arm=arm), out=tmp_path / name, start=first.path)
    (Path(first.path) / "adapter_config.json").unlink()
    with pytest.raises(NotPresent, match=r"adapter_config\.json"):
        distil(pair, texts(), config(), out=tmp_path / "x", start=first.path)
