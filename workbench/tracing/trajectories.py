"""The responses of a diagnosis: given ones (teacher-forced), or continuations after a prefix (free-running).

A trajectory is a prompt with one response. Position 1 is the first token of the visible answer: after the generation
prompt and any thinking block, which is its own trajectory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Ids, Passage, Sample, check_room
from workbench.core.store import Store
from workbench.judging.contract import is_refusal
from workbench.judging.judging import judge
from workbench.judging.makers import AnyJudge, the_judge
from workbench.models.generation import GenerateConfig, Generation, generate
from workbench.models.pair import ModelPair
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.records import OwnAnswer, Response

THINKING_TOKENS = 512
"""The longest thinking block before the visible answer, in tokens."""

Trajectory = tuple[Response, Passage]
"""A response's record, and the passage to score."""
_Start = tuple[Prompt, Passage]


def teacher_forced(
    pair: ModelPair, prompts: PromptSet, *, system_prompt: str | None, max_tokens: int, store: Store
) -> tuple[list[Trajectory], list[str]]:
    """Return each prompt with its given response, cut to max_tokens, and notes.

    Prompts without a response are skipped and counted. Raises PromptError where none has one, ContextOverflow where a
    prompt with its response exceeds the context.
    """
    starts = [(p, pair.passage(p, system_prompt=system_prompt)) for p in prompts]
    notes = list[str]()
    with_response = [(p, s) for p, s in starts if s.response]
    if not with_response:
        raise no_response(prompts)
    if len(with_response) < len(starts):
        notes.append(f"{len(starts) - len(with_response)} of {len(starts)} prompts have no response and are left out.")
    cut = sum(len(s.response) > max_tokens for _, s in with_response)
    if cut:
        notes.append(f"{cut} of {len(with_response)} responses are longer than {max_tokens} tokens and are cut there.")
    starts = [
        (p, replace(s, response=s.response[:max_tokens], given=min(s.given, max_tokens))) for p, s in with_response
    ]
    check_room((s for _, s in starts), pair.context_length)
    starts, traced = _thinking(pair, starts, system_prompt, store, notes)
    return traced + [(response_of(p, s, "given", system_prompt), s) for p, s in starts], notes


def no_response(prompts: PromptSet) -> PromptError:
    """Return the error for prompts without a response where a teacher-forced trajectory is asked for."""
    return PromptError(
        f"none of the {len(prompts)} prompts of {prompts.name!r} has a response, which a teacher-forced trajectory "
        "needs: give its column as response_column, or use trajectory='free_running'"
    )


def free_running(
    pair: ModelPair,
    prompts: PromptSet,
    *,
    prefix_tokens: Sequence[int],
    system_prompt: str | None,
    max_tokens: int,
    store: Store,
) -> tuple[list[Trajectory], list[str]]:
    """Return each prompt continued greedily by the aligned model after the first k tokens of its response, for every k.

    The response is prefix and continuation, max_tokens in all. The base model extends a response that is shorter than
    k. Prompts without a response, or whose extension ends too early, are skipped at this k and counted; where none has
    a response, only k = 0 is traced.
    """
    starts = [(p, pair.passage(p, system_prompt=system_prompt)) for p in prompts]
    notes = list[str]()
    check_room((replace(s, response=()) for _, s in starts), pair.context_length, max_tokens)
    starts, traced = _thinking(pair, starts, system_prompt, store, notes)
    if 0 in prefix_tokens and len(prefix_tokens) > 1 and not any(s.response for _, s in starts):
        left = " and ".join(str(k) for k in prefix_tokens if k)
        notes.append(f"Prefix {left} left out: no prompt of {prompts.name!r} has a response to take it from.")
        prefix_tokens = (0,)
    for k in prefix_tokens:
        chosen = starts if k == 0 else [(p, s) for p, s in starts if s.response]
        if not chosen:
            raise PromptError(
                f"none of the {len(starts)} prompts of {prompts.name!r} has a response for a prefix of {k} tokens: "
                "give its column as response_column, or use prefix_tokens=[0]"
            )
        if len(chosen) < len(starts):
            notes.append(f"Prefix {k}: {len(starts) - len(chosen)} prompts have no response and are left out.")
        given, extended = prefixes(
            pair, [s.context("base") for _, s in chosen], [s.response for _, s in chosen], k, store
        )
        if extended:
            notes.append(
                f"Prefix {k}: {extended} of {len(chosen)} given responses are shorter; the base model continued them."
            )
        if ended := sum(len(g) < k for g in given):
            notes.append(f"Prefix {k}: {ended} of these ended before {k} tokens and are left out.")
        begun = [(p, replace(s, response=g, given=k)) for (p, s), g in zip(chosen, given, strict=True) if len(g) == k]
        made = generate(
            pair,
            "aligned",
            [s.whole("aligned") for _, s in begun],
            GenerateConfig(max_tokens=max_tokens - k),
            store=store,
            what=f"continuing after {k} tokens",
        )
        for (p, s), g in zip(begun, made, strict=True):
            stop = "end" if g.stop == "end" else "length"
            traced.append((response_of(p, s, stop, system_prompt), replace(s, response=s.response + g.ids)))
    return traced, notes


def own_answers(
    pair: ModelPair,
    prompts: PromptSet,
    how: AnyJudge | None,
    *,
    system_prompt: str | None,
    max_tokens: int,
    store: Store,
) -> tuple[OwnAnswer, ...]:
    """Return aligned's own greedy answers to the harmful prompts, with no token given, judged.

    They are those of `free_running` after a prefix of 0 tokens, so a store makes them once for both. `how` None is the
    exact judge on the embedded prompts, else the refusal rules. They are shorter where the context has no more room.
    """
    asked = replace(prompts, prompts=tuple(p for p in prompts if p.label == "harmful"))
    longest = max((len(pair.context(p, "aligned", system_prompt=system_prompt)) for p in asked), default=0)
    most = min(max_tokens, pair.context_length - longest)
    if not asked.prompts or most < 1:
        return ()
    one = the_judge(how, prompts.name)
    traced, _ = free_running(pair, asked, prefix_tokens=(0,), system_prompt=system_prompt, max_tokens=most, store=store)
    made = [
        Sample(
            id=r.prompt_id,
            request=r.prompt,
            text=pair.decode([i for i in p.response if i not in pair.eos_ids]),
            label=r.label,
            category=r.category,
        )
        for r, p in traced
        if r.segment == "answer"
    ]
    judged = judge(made, one, arm="aligned", store=store, what=None).judgements
    return tuple(
        OwnAnswer(prompt_id=s.id, text=s.text, judge=one.name, refused=is_refusal(j), why=j.why or j.unscored)
        for s, j in zip(made, judged, strict=True)
    )


def prefixes(
    pair: ModelPair, contexts: Sequence[Ids], given: Sequence[Ids], k: int, store: Store
) -> tuple[list[Ids], int]:
    """Return the first k tokens of each given response, and how many responses are shorter.

    The base model continues those greedily; where it ends too early, the prefix stays shorter than k. `contexts` are
    the prompts as the base model sees them.
    """
    found = [g[:k] for g in given]
    short = [n for n, p in enumerate(found) if len(p) < k]
    for missing, count in Counter(k - len(found[n]) for n in short).items():
        rows = [n for n in short if k - len(found[n]) == missing]
        config = GenerateConfig(max_tokens=missing)
        what = f"extending {count} prefixes"
        made = generate(pair, "base", [contexts[n] + found[n] for n in rows], config, store=store, what=what)
        for n, g in zip(rows, made, strict=True):
            found[n] += g.ids[:-1] if g.stop == "end" else g.ids
    return found, len(short)


def think_end(pair: ModelPair) -> int:
    """Return the token that ends a thinking block. Raises ParameterError where there is none."""
    if pair.think_end_id is None:
        raise ParameterError(f"the tokenizer of {pair.name} has no end-of-thinking token: load it with thinking=False")
    return pair.think_end_id


def thinking_blocks(pair: ModelPair, made: Sequence[Generation]) -> tuple[list[Ids], int]:
    """Return generated thinking blocks with the token that ends them, and how many were closed here."""
    end = think_end(pair)
    ended = [g.ids[-1:] == (end,) for g in made]
    blocks = [
        g.ids if done else (*(t for t in g.ids if t not in pair.eos_ids), end)
        for g, done in zip(made, ended, strict=True)
    ]
    return blocks, ended.count(False)


def response_of(p: Prompt, start: Passage, stop: str, system_prompt: str | None, segment: str = "answer") -> Response:
    """Return the record of a response that starts with the given tokens of a passage."""
    return Response(
        prompt_id=p.id,
        prompt=p.prompt,
        label=p.label,
        category=p.category,
        pair_id=p.pair_id,
        trajectory="teacher_forced" if stop == "given" else "free_running",
        prefix_tokens=start.given,
        segment=segment,  # type: ignore[arg-type]
        stop=stop,  # type: ignore[arg-type]
        context_tokens=len(start.aligned),
        system_prompt=system_prompt,
    )


def _thinking(
    pair: ModelPair, starts: list[_Start], system_prompt: str | None, store: Store, notes: list[str]
) -> tuple[list[_Start], list[Trajectory]]:
    """Generate the thinking blocks of a thinking model: each joins the context and is its own trajectory."""
    if not pair.thinking:
        return starts, []
    end = think_end(pair)
    room = min(THINKING_TOKENS, pair.context_length - max(len(s.whole("aligned")) for _, s in starts) - 1)
    config = GenerateConfig(max_tokens=max(room, 0), stop_ids=(end,))
    made = generate(pair, "aligned", [s.aligned for _, s in starts], config, store=store, what="thinking")
    blocks, closed = thinking_blocks(pair, made)
    after, traced = list[_Start](), list[Trajectory]()
    for (p, s), g, block in zip(starts, made, blocks, strict=True):
        thought = replace(s, response=block, given=0)
        stop = "end" if block == g.ids else "length"
        traced.append((response_of(p, thought, stop, system_prompt, "thinking"), thought))
        tail = block + pair.encode("\n\n")
        base = None if s.base is None else s.base + tail
        after.append((p, replace(s, base=base, aligned=s.aligned + tail)))
    if closed:
        notes.append(f"{closed} of {len(made)} thinking blocks did not end within {room} tokens and were closed there.")
    return after, traced
