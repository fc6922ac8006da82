"""What a teacher says before training: against plain passes, by arm, and as it is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.errors import refuses
from tests.hostile_texts import EXECUTABLE
from tests.test_train_loop import config, texts
from tests.tiny_pair import tiny_pair
from workbench.core.comparisons import share
from workbench.core.errors import PromptError
from workbench.core.records import load, save
from workbench.display.views import teacher_view
from workbench.models.pair import ModelPair
from workbench.models.pieces import Pieces
from workbench.training.config import ARMS, FURTHER, LossConfig
from workbench.training.losses import completion_set
from workbench.training.records import TeacherPreview, TeacherText
from workbench.training.references import measured_retention
from workbench.training.rows import TrainingTexts
from workbench.training.teacher import preview_teacher, teacher_flips


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama", shift=0.3)


def logits(pair: ModelPair, which: str, context: tuple[int, ...], response: tuple[int, ...]) -> torch.Tensor:
    """Plain logits that predict each response token."""
    with torch.no_grad(), pair.model(which) as model:  # type: ignore[arg-type]
        whole = model(torch.tensor([context + response])).logits[0, :, : pair.vocab].float()
    return whole[len(context) - 1 : -1]


def kl(p: torch.Tensor, q: torch.Tensor) -> np.ndarray:
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).numpy()


@pytest.mark.parametrize("weight", [1.2, 3.0])
def test_the_hybrid_teacher_and_m_are_those_of_the_formulas(pair: ModelPair, weight: float) -> None:
    some = texts()
    arm = replace(ARMS["paper"], loss=replace(ARMS["paper"].loss, teacher_lambda=weight, set_size=5))
    made = preview_teacher(pair, some, config(arm), limit=2)
    display = Pieces(pair.tokenizer)
    for text, seen in zip(some.harmful, made.texts, strict=False):
        aligned, base = (logits(pair, w, text.aligned, text.response) for w in ("aligned", "base"))
        teacher = weight * aligned + (1 - weight) * base
        assert np.allclose(seen.kl_teacher_student_nats, kl(teacher, aligned), rtol=1e-3, atol=1e-5)
        assert seen.flips.tolist() == (teacher.argmax(-1) != aligned.argmax(-1)).tolist()
        m = completion_set(base, aligned, ranking="logit", size=5)
        assert seen.pushed == tuple(tuple(display.label(i) for i in own) for own in m[:, :3].tolist())
        assert np.allclose(seen.pushed_mass, aligned.softmax(-1).gather(-1, m).sum(-1), atol=1e-5)
        assert seen.given == ()
    everywhere = teacher_flips(pair, some, arm.loss)
    both = [logits(pair, w, t.aligned, t.response) for t in some.harmful for w in ("aligned", "base")]
    flips = sum(
        int(((weight * a + (1 - weight) * b).argmax(-1) != a.argmax(-1)).sum())
        for a, b in zip(both[::2], both[1::2], strict=True)
    )
    assert everywhere.n == sum(len(t.response) for t in some.harmful)
    assert everywhere.value == pytest.approx(flips / everywhere.n)


def test_the_teacher_reads_what_it_should(pair: ModelPair) -> None:
    some = texts()
    made = preview_teacher(pair, some, config("recovery"), limit=3, given=4)
    assert len(made.texts) == 3
    display, flips = Pieces(pair.tokenizer), 0
    for text, seen in zip(some.harmful, made.texts, strict=False):
        refusal = text.refusals[0]
        student = logits(pair, "aligned", text.aligned + text.response[:4], refusal)
        teacher = logits(pair, "aligned", text.aligned, refusal)
        assert np.allclose(seen.kl_teacher_student_nats, kl(teacher, student), rtol=1e-4, atol=1e-5)
        assert seen.flips.tolist() == (student.argmax(-1) != teacher.argmax(-1)).tolist()
        flips += int(seen.flips.sum())
        for t in range(len(refusal)):
            best = student[t].topk(3)
            assert seen.student[t] == tuple(display.label(i) for i in best.indices.tolist())
            assert np.allclose(seen.student_probability[t], student[t].softmax(-1)[best.indices], atol=1e-5)
            assert seen.teacher[t][0] == display.label(int(teacher[t].argmax()))
        assert len(seen.given) == 4
        assert not any(seen.pushed)
    n = sum(len(t.refusals[0]) for t in some.harmful[:3])
    assert (made.flip_rate.value, made.flip_rate.n) == (flips / n, n)
    assert flips
    for arm, given in (("augmentation", 4), ("refusal_sft", 0)):
        (seen,) = preview_teacher(pair, some, config(arm), limit=1, given=4).texts
        text, refusal = some.harmful[0], some.harmful[0].refusals[0]
        student = logits(pair, "aligned", text.aligned + text.response[:given], refusal).log_softmax(-1)
        wanted = -student.gather(-1, torch.tensor(refusal)[:, None])[:, 0]
        assert np.allclose(seen.kl_teacher_student_nats, wanted, rtol=1e-4)
        assert [t[0] for t in seen.teacher] == [Pieces(pair.tokenizer).label(i) for i in refusal]
        assert np.allclose(seen.teacher_probability[:, 0], 1.0)
        assert len(seen.given) == given
    same = tiny_pair("llama", shift=0.0)
    made = preview_teacher(same, texts(), config("teacher_only"))
    assert made.flip_rate.value == 0.0
    assert max(float(t.kl_teacher_student_nats.max()) for t in made.texts) < 1e-6
    assert teacher_flips(same, texts(), LossConfig(teacher_lambda=5.0)).value == 0.0


def shown(label: str) -> TeacherPreview:
    return TeacherPreview(
        arm="recovery",
        said="aligned",
        texts=(
            TeacherText(
                name=label, prompt=label, given=(label,), pieces=(label, "b"), student=((label, "x"), ("y", "z")),
                student_probability=np.array([[0.9, 0.001], [0.5, 0.4]], np.float32),
                teacher=((label, "u"), ("w", "v")),
                teacher_probability=np.array([[1.0, 0.0], [1.0, 0.0]], np.float32),
                kl_teacher_student_nats=np.array([3.0, 0.0], np.float32), flips=np.array([True, False]),
                pushed=((label,), ()), pushed_mass=np.array([0.2, np.nan], np.float32),
            ),
        ),
        flip_rate=share(1, 2),
    )  # fmt: skip


@pytest.mark.parametrize("text", EXECUTABLE[::4])
def test_model_text_stays_text(text: str) -> None:
    view = teacher_view(shown(text), classroom_safe=True)
    assert text not in view.body
    assert "<script" not in view.body.lower()


def test_withheld_text_is_nowhere_and_signs_do_not_rest_on_colour() -> None:
    secret = "marmalade"
    (text,) = shown(secret).texts
    held = replace(shown(secret), texts=(replace(text, name="first", prompt="a prompt"),))
    for how in ("redact", "auto"):
        view = teacher_view(held, classroom_safe=False, harmful_text=how)  # type: ignore[arg-type]
        assert secret not in view.body
        assert secret not in view.text
        assert secret not in str(view.rows)
    opened = teacher_view(shown(secret), classroom_safe=True)
    assert "<b>marmalade</b>" in opened.body
    assert "marmalade 0.90" in opened.text
    assert "x 0.0" not in opened.text  # too unlikely to be named
    assert opened.rows[0]["flip"] == "yes"


def test_retention_is_the_mean_by_position(pair: ModelPair) -> None:
    some = texts()
    found = measured_retention(pair, some.harmful)
    lengths = sorted((len(t.response) for t in some.harmful), reverse=True)
    assert len(found) == lengths[2]  # as far as three texts reach
    wanted: list[list[float]] = [[] for _ in range(len(found))]
    for text in some.harmful:
        p, q = (logits(pair, w, text.aligned, text.response).softmax(-1) for w in ("base", "aligned"))
        for t, value in enumerate((1 - (p - q).clamp(min=0).sum(-1)).tolist()):
            if t < len(found):
                wanted[t].append(value)
    assert np.allclose(found, [np.mean(w) for w in wanted], atol=1e-5)
    assert measured_retention(pair, ()) == ()
    waiting = config(replace(ARMS["recovery"], retention="measured"))
    assert preview_teacher(pair, texts(), waiting) == preview_teacher(pair, texts(), config("recovery"))
    assert np.allclose(measured_retention(tiny_pair("llama", shift=0.0), texts().harmful), 1.0, atol=1e-6)


def test_previews_are_of_every_arm_and_change_nothing(pair: ModelPair, tmp_path: object) -> None:
    made = preview_teacher(pair, texts(), config(FURTHER["pull_back"]))
    assert made.texts == ()
    assert made.flip_rate.value is None
    assert "no harmful row" in teacher_view(made, classroom_safe=False).text
    refuses(lambda: preview_teacher(pair, replace(texts(), harmful=()), config("recovery")), PromptError, "harmful")
    for arm in ARMS:
        made = preview_teacher(pair, texts(), config(arm), limit=1)
        assert len(made.texts) == 1
        folder = save(made, f"{tmp_path}/{arm}")
        assert load(folder, TeacherPreview) == made
        view = teacher_view(made, classroom_safe=True)
        assert len(view.rows) == len(made.texts[0].pieces)
    before = torch.get_rng_state()
    with pair.model("aligned") as model:
        was = {k: v.clone() for k, v in model.state_dict().items()}
        preview_teacher(pair, texts(), config("random_tokens"))
        assert all(torch.equal(v, was[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    some: TrainingTexts = replace(texts(), harmful=texts().harmful[:1])
    assert len(preview_teacher(pair, some, config("recovery"), limit=7).texts) == 1
