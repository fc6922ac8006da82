"""Which tokens to look at: the responses of a diagnosis, given (teacher-forced) or continued after a prefix.

A trajectory is a prompt with one response. Position 1 is the first token of the visible answer: after the generation
prompt, and for a model that thinks, after the end of its thinking block, which is a trajectory of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.core.errors import ContextOverflow, ParameterError, PromptError
from workbench.core.store import Store
from workbench.models.generation import GenerateConfig, Generation, generate
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.records import Response, Trajectory
from workbench.tracing.scoring import Item

THINKING_TOKENS = 512
"""Longest thinking block that is generated before the visible answer, tokens."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """Hold one trajectory: what is recorded about it, and what is scored."""

    response: Response
    item: Item


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A prompt as both models see it, up to the first token of the visible answer."""

    prompt: Prompt
    base: tuple[int, ...]
    aligned: tuple[int, ...]
    given: tuple[int, ...]

    def context(self, which: Which) -> tuple[int, ...]:
        return self.base if which == "base" else self.aligned


def teacher_forced(
    pair: ModelPair, prompts: PromptSet, *, system_prompt: str | None, max_tokens: int, store: Store
) -> tuple[list[Path], list[str]]:
    """Return each prompt with its given response, cut to max_tokens, and what there is to say about it.

    Prompts without a response are left out and counted. Raises PromptError when none has one, ContextOverflow when a
    prompt with its response exceeds the context.
    """
    starts, notes = _starts(pair, prompts, system_prompt), list[str]()
    with_response = [s for s in starts if s.given]
    if not with_response:
        raise PromptError(
            f"none of the {len(starts)} prompts of {prompts.name!r} has a response, and a teacher-forced "
            "trajectory goes along a given one: name the column that holds it, or ask for trajectory='free_running'"
        )
    if len(with_response) < len(starts):
        notes.append(f"{len(starts) - len(with_response)} of {len(starts)} prompts have no response and are left out.")
    cut = sum(len(s.given) > max_tokens for s in with_response)
    if cut:
        notes.append(f"{cut} of {len(with_response)} responses are longer than {max_tokens} tokens and are cut there.")
    for s in with_response:
        _check_length(pair, s, min(len(s.given), max_tokens), "its response")
    with_response, paths = _thinking(pair, with_response, system_prompt, store, notes)
    for s in with_response:
        ids = s.given[:max_tokens]
        paths.append(_path(s, ids, "teacher_forced", prefix=len(ids), stop="given", system_prompt=system_prompt))
    return paths, notes


def free_running(
    pair: ModelPair,
    prompts: PromptSet,
    *,
    prefix_tokens: Sequence[int],
    system_prompt: str | None,
    max_tokens: int,
    store: Store,
) -> tuple[list[Path], list[str]]:
    """Return each prompt continued greedily by the aligned model after the first k tokens of its response, for every k.

    The response is prefix and continuation, max_tokens in all. Where a prompt's response is shorter than k, the base
    model continues it to k tokens, and where that ends too early, or a prompt has no response, the prompt is left out
    at this k; all of it is counted.
    """
    starts, notes = _starts(pair, prompts, system_prompt), list[str]()
    for s in starts:
        _check_length(pair, s, max_tokens, f"max_tokens={max_tokens}")
    starts, paths = _thinking(pair, starts, system_prompt, store, notes)
    for k in prefix_tokens:
        chosen = starts if k == 0 else [s for s in starts if s.given]
        if not chosen:
            raise PromptError(
                f"none of the {len(starts)} prompts of {prompts.name!r} has a response to take a prefix of {k} "
                "tokens from: name the column that holds it, or ask for prefix_tokens=[0]"
            )
        if len(chosen) < len(starts):
            notes.append(f"Prefix {k}: {len(starts) - len(chosen)} prompts have no response and are left out.")
        given, extended = prefixes(pair, [s.base for s in chosen], [s.given for s in chosen], k, store)
        if extended:
            notes.append(
                f"Prefix {k}: {extended} of {len(chosen)} given responses are shorter; the base model continued them."
            )
        if ended := sum(len(p) < k for p in given):
            notes.append(f"Prefix {k}: {ended} of these ended before {k} tokens and are left out.")
            chosen = [s for s, p in zip(chosen, given, strict=True) if len(p) == k]
            given = [p for p in given if len(p) == k]
        made = generate(
            pair,
            "aligned",
            [s.aligned + p for s, p in zip(chosen, given, strict=True)],
            GenerateConfig(max_tokens=max_tokens - k),
            store=store,
            what=f"continuing after {k} tokens",
        )
        for s, p, g in zip(chosen, given, made, strict=True):
            stop = "end" if g.stop == "end" else "length"
            paths.append(_path(s, p + g.ids, "free_running", prefix=len(p), stop=stop, system_prompt=system_prompt))
    return paths, notes


def _starts(pair: ModelPair, prompts: PromptSet, system_prompt: str | None) -> list[_Start]:
    return [
        _Start(
            prompt=p,
            base=pair.context(p, "base", system_prompt=system_prompt),
            aligned=pair.context(p, "aligned", system_prompt=system_prompt),
            given=pair.encode(p.response) if p.response else (),
        )
        for p in prompts
    ]


def _check_length(pair: ModelPair, start: _Start, more: int, what: str) -> None:
    longest = max(len(start.base), len(start.aligned))
    if longest + more > pair.context_length:
        line = "" if start.prompt.line is None else f" (line {start.prompt.line})"
        raise ContextOverflow(
            f"prompt {start.prompt.id!r}{line} has {longest} tokens with its template; with {what} ({more} tokens) "
            f"that exceeds the model's context of {pair.context_length}: shorten it or lower max_tokens"
        )


def prefixes(
    pair: ModelPair, contexts: Sequence[tuple[int, ...]], given: Sequence[tuple[int, ...]], k: int, store: Store
) -> tuple[list[tuple[int, ...]], int]:
    """Return the first k tokens of each given response, and how many of the responses are shorter.

    Those are continued greedily by the base model; where that ends too early, the prefix stays shorter than k.
    `contexts` are the prompts as the base model sees them.
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


def thinking_blocks(pair: ModelPair, made: Sequence[Generation]) -> tuple[list[tuple[int, ...]], int]:
    """Return generated thinking blocks with the token that ends them, and how many had to be closed with it here."""
    end = pair.think_end_id
    if end is None:
        raise ParameterError(f"thinking is on, but the tokenizer of {pair.name} has no end-of-thinking token")
    ended = [g.ids[-1:] == (end,) for g in made]
    blocks = [
        g.ids if done else (*(t for t in g.ids if t not in pair.eos_ids), end)
        for g, done in zip(made, ended, strict=True)
    ]
    return blocks, ended.count(False)


def _path(
    start: _Start,
    ids: tuple[int, ...],
    trajectory: Trajectory,
    *,
    prefix: int,
    stop: str,
    system_prompt: str | None,
    segment: str = "answer",
) -> Path:
    p = start.prompt
    response = Response(
        prompt_id=p.id,
        prompt=p.prompt,
        label=p.label,
        category=p.category,
        pair_id=p.pair_id,
        trajectory=trajectory,
        prefix_tokens=prefix,
        segment=segment,  # type: ignore[arg-type]
        stop=stop,  # type: ignore[arg-type]
        context_tokens=len(start.aligned),
        system_prompt=system_prompt,
    )
    name = f"prompt {p.id!r}" + (f" after a prefix of {prefix} tokens" if trajectory == "free_running" else "")
    return Path(
        response=response,
        item=Item(name=name, base_context=start.base, aligned_context=start.aligned, response=ids),
    )


def _thinking(
    pair: ModelPair, starts: list[_Start], system_prompt: str | None, store: Store, notes: list[str]
) -> tuple[list[_Start], list[Path]]:
    """Let a thinking model think: its block becomes part of the context, and a trajectory of its own."""
    if not pair.thinking:
        return starts, []
    end = pair.think_end_id
    if end is None:
        raise ParameterError(f"thinking is on, but the tokenizer of {pair.name} has no end-of-thinking token")
    room = min(THINKING_TOKENS, pair.context_length - max(len(s.aligned) + len(s.given) for s in starts) - 1)
    config = GenerateConfig(max_tokens=max(room, 0), stop_ids=(end,))
    made = generate(pair, "aligned", [s.aligned for s in starts], config, store=store, what="thinking")
    blocks, closed = thinking_blocks(pair, made)
    after, paths = [], []
    for s, g, block in zip(starts, made, blocks, strict=True):
        stop = "end" if block == g.ids else "length"
        paths.append(
            _path(s, block, "free_running", prefix=0, stop=stop, system_prompt=system_prompt, segment="thinking")
        )
        tail = block + pair.encode("\n\n")
        after.append(replace(s, base=s.base + tail, aligned=s.aligned + tail))
    if closed:
        notes.append(f"{closed} of {len(made)} thinking blocks did not end within {room} tokens and were closed there.")
    return after, paths
