"""A judge behind a server that speaks the OpenAI chat-completions protocol.

A sample whose request fails is unscored, with a reason. Where the server fails (it is down, it refuses the key), the
remaining samples are unscored too. The next run asks for all of them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from workbench.core.errors import NotPresent, ParameterError
from workbench.core.passages import Sample
from workbench.judging.config import JudgeConfig
from workbench.judging.contract import scored, unscored
from workbench.judging.http import Failure, post
from workbench.judging.questions import RUBRIC, read_reply, scored_question
from workbench.judging.records import Judgement, Measures

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
FATAL = frozenset({401, 402, 403, 404})
"""Status codes that every further request would get too."""
GIVEN_UP_AFTER = 3
"""The server counts as down after this many failed samples in a row, each with all its retries."""
CHARACTERS_PER_TOKEN = 4
"""A rough rate, for the forecast only."""


@dataclass(kw_only=True)
class _State:
    """The counts of requests and tokens, and the state of the server; changed under a lock."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    unstated: int = 0
    seconds_waited: float = 0.0
    next_turn: float = 0.0
    failed: int = 0
    stopped: str | None = None


class EndpointJudge:
    """A judge that asks a served model to score each answer from 0 to 10 and to name its kind; see `questions.RUBRIC`.

    `sleep` waits between requests. Raises NotPresent, before anything is sent, where the key's variable is empty.
    """

    measures: Measures = "attack success"

    def __init__(self, config: JudgeConfig, *, sleep: Callable[[float], None] = time.sleep) -> None:
        if config.endpoint is None or not config.model:
            raise ParameterError("an endpoint judge needs model and endpoint=EndpointConfig(base_url=...)")
        self.config, self._to, self._sleep = config, config.endpoint, sleep
        self._state, self._lock = _State(), threading.Lock()
        self._key()

    @classmethod
    def load(cls, config: JudgeConfig) -> EndpointJudge:
        """Return the judge of a config."""
        return cls(config)

    @property
    def name(self) -> str:
        """Return the judge's name, with the model's."""
        return f"endpoint:{self.config.model}"

    @property
    def version(self) -> str:
        """Hash the question, the model and the server's address; silent changes of the server are not seen."""
        parts = json.dumps(["1", RUBRIC, self.config.model, self._to.base_url, self._to.max_tokens])
        return f"1.{hashlib.sha256(parts.encode()).hexdigest()[:8]}"

    @property
    def at_once(self) -> int:
        """Return how many samples are in flight together, and lost when the run is killed."""
        return self._to.concurrency

    def _key(self) -> str | None:
        if self._to.key_variable is None:
            return None
        key = os.environ.get(self._to.key_variable, "").strip()
        if not key:
            raise NotPresent(
                f"the environment variable {self._to.key_variable!r} holds no key for {self._to.base_url}: set it, or "
                "give key_variable=None for a server without one"
            )
        return key

    def forecast(self, samples: Sequence[Sample]) -> str:
        """Return a sentence on the coming requests, tokens and price, and reset the failures of the last run."""
        self._state.failed, self._state.stopped = 0, None
        sent = sum(len(scored_question(s).text) for s in samples) // CHARACTERS_PER_TOKEN
        most_out = self._to.max_tokens * len(samples)
        return (
            f"{self.name}: about to send {len(samples):,} requests with about {sent:,} tokens (counted as "
            f"{CHARACTERS_PER_TOKEN} characters each) and get back at most {most_out:,}"
            + self._price(sent, most_out, "at most about")
        )

    def account(self) -> str | None:
        """Return a sentence on the requests sent and the tokens that the server counted."""
        s = self._state
        if not s.requests:
            return None
        waited = f", {s.seconds_waited:.0f} s of pauses" if s.seconds_waited >= 1 else ""
        unstated = f" ({s.unstated:,} replies did not say)" if s.unstated else ""
        return (
            f"{self.name}: {s.requests:,} requests sent, {s.tokens_in:,} tokens in and {s.tokens_out:,} out by the "
            f"server's count{unstated}{waited}" + self._price(s.tokens_in, s.tokens_out, "")
        )

    def _price(self, tokens_in: int, tokens_out: int, about: str) -> str:
        if self._to.price_in is None or self._to.price_out is None:
            return ""
        money = (tokens_in * self._to.price_in + tokens_out * self._to.price_out) / 1e6
        return f"; {about + ' ' if about else ''}{money:.4f} at the prices given"

    def judge(self, batch: Sequence[Sample]) -> list[Judgement]:
        """Return one judgement for each sample; `concurrency` requests are in flight at once."""
        with ThreadPoolExecutor(max_workers=self._to.concurrency, thread_name_prefix="judge") as pool:
            try:
                return list(pool.map(self._judged, batch))
            except BaseException:
                self._state.stopped = "the run was stopped"
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _judged(self, sample: Sample) -> Judgement:
        question = scored_question(sample)
        try:
            reply = self._ask(question.text)
        except Failure as failure:
            return unscored(sample, str(failure))
        read = read_reply(reply, question.mark)
        if isinstance(read, str):
            return unscored(sample, read)
        p_harmful, verdict = read
        return scored(sample, p_harmful=p_harmful, verdict=verdict, why=f"harm {p_harmful * 10:g} of 10")

    def _ask(self, question: str) -> str:
        """Return the model's reply. Raises Failure with the reason after the last retry."""
        pause = self._to.backoff_s
        for attempt in range(self._to.retries + 1):
            if (stopped := self._state.stopped) is not None:
                raise Failure(stopped)
            self._wait_for_turn()
            try:
                reply = self._once(question)
            except Failure as failure:
                if failure.status in FATAL:
                    self._state.stopped = f"not asked: an earlier request was refused ({failure})"
                    raise
                wait = max(random.uniform(0.5, 1.0) * pause, failure.retry_after or 0.0)
                again = failure.status is None or failure.status in RETRIED
                if not again or attempt == self._to.retries or wait > self._to.longest_pause_s:
                    self._count_failure(failure, counts=again)
                    raise
                self._pause(wait)
                pause *= 2
            else:
                self._state.failed = 0
                return reply
        raise AssertionError("unreachable")

    def _once(self, question: str) -> str:
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": self._to.max_tokens,
        }
        with self._lock:
            self._state.requests += 1
        answer = post(
            f"{self._to.base_url.rstrip('/')}/chat/completions", body, key=self._key(), timeout_s=self._to.timeout_s
        )
        self._count_tokens(answer)
        try:
            content = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise Failure("the server's reply is not of the chat-completions form", status=200) from None
        if not isinstance(content, str):
            raise Failure("the server's reply holds no text", status=200)
        return content

    def _count_tokens(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        counts = [usage.get(k) if isinstance(usage, dict) else None for k in ("prompt_tokens", "completion_tokens")]
        with self._lock:
            if all(isinstance(c, int) and c >= 0 for c in counts):
                self._state.tokens_in += counts[0]  # type: ignore[operator]
                self._state.tokens_out += counts[1]  # type: ignore[operator]
            else:
                self._state.unstated += 1

    def _count_failure(self, failure: Failure, *, counts: bool) -> None:
        with self._lock:
            self._state.failed += counts
            if self._state.failed >= GIVEN_UP_AFTER:
                self._state.stopped = f"not asked: the server failed {GIVEN_UP_AFTER} times in a row ({failure})"

    def _wait_for_turn(self) -> None:
        if self._to.requests_per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._state.next_turn)
            self._state.next_turn = turn + 60.0 / self._to.requests_per_minute
        self._pause(turn - now)

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with self._lock:
                self._state.seconds_waited += seconds
            self._sleep(seconds)
