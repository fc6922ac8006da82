"""Which judge, by name or by config; what it needs is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from workbench.core.errors import ParameterError, UnknownName, nearest
from workbench.judging.contract import Judge

JUDGES: Mapping[str, str] = {
    "exact": "what is true in the embedded world; prompts of it alone",
    "refusal": "rules for how assistants refuse, in English",
    "human": "saved ratings of people, 1 to 5; model names their folder",
    "classifier": "a sequence-classification model; model is a folder or hub id",
    "guard": "a chat model that answers in one word; model is a folder or hub id",
    "judgezoo": "a judge of the package judgezoo; model is its name there, such as harmbench",
    "endpoint": "a model behind an OpenAI-compatible server; model is its name there",
}
"""Every judge by name, and what it goes by."""
_NEEDS_MODEL = ("human", "classifier", "guard", "judgezoo", "endpoint")
Reads = Literal["exchange", "completion"]


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """Say how to reach a server that speaks the OpenAI chat-completions protocol, and how hard to ask.

    base_url             up to and including its version, such as "http://localhost:8000/v1"
    key_variable         the environment variable that holds the key; None: no key is sent. The key itself is nowhere
    concurrency          requests under way at once
    requests_per_minute  None: as fast as `concurrency` goes
    timeout_s            for one request, from its start to the last byte of the answer
    retries              how often a request is tried again after 408, 409, 425, 429, 5xx, a lost connection, a timeout
    backoff_s            the first pause before that; it doubles each time, with jitter. Retry-After is kept to
    longest_pause_s      no pause is longer; a server that asks for more is given up for that sample
    max_tokens           room for the answer; models that think before they answer need more
    price_in, price_out  money for a million tokens, in any currency; None: no cost in money is said
    """

    base_url: str
    key_variable: str | None = None
    concurrency: int = 4
    requests_per_minute: float | None = None
    timeout_s: float = 60.0
    retries: int = 5
    backoff_s: float = 1.0
    longest_pause_s: float = 60.0
    max_tokens: int = 64
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        from urllib.parse import urlsplit

        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ParameterError(f"base_url={self.base_url!r} is no address: it starts with http:// or https://")
        if url.username or url.password or url.query or url.fragment:
            raise ParameterError(
                "base_url holds a user, a password, a query or a fragment, and would be saved with every result: give "
                "the plain address, and the key in the environment variable that key_variable names"
            )
        bad = [
            (self.concurrency < 1, "concurrency", "at least 1"),
            (
                self.requests_per_minute is not None and not self.requests_per_minute > 0,
                "requests_per_minute",
                "above 0",
            ),
            (not self.timeout_s > 0, "timeout_s", "above 0"),
            (self.retries < 0, "retries", "at least 0"),
            (not self.backoff_s >= 0, "backoff_s", "at least 0"),
            (self.max_tokens < 1, "max_tokens", "at least 1"),
        ]
        for wrong, name, want in bad:
            if wrong:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be {want}")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Say which judge.

    judge      a name of JUDGES
    model      what it is made of: see JUDGES
    revision   a branch, tag or commit of a hub id
    harmful    classifier: the labels whose probability is p_harmful; guard: the words that mean harmful
    harmless   guard: the words that mean harmless
    refusing   classifier: the labels that mean a refusal; then it gives verdicts
    reads      classifier: the request and the completion ("exchange"), or the completion alone
    lead       guard: text that the answer starts with before its word, such as two line ends
    device, dtype   as in PairConfig
    endpoint   how to reach a server

    Raises UnknownName for an unknown judge, ParameterError for fields that are missing or contradict each other.
    """

    judge: str
    model: str | None = None
    revision: str | None = None
    harmful: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    refusing: tuple[str, ...] = ()
    reads: Reads = "exchange"
    lead: str = ""
    device: str = "auto"
    dtype: str = "auto"
    endpoint: EndpointConfig | None = None

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise UnknownName(f"there is no judge {self.judge!r}: {nearest(self.judge, tuple(JUDGES))}")
        if self.judge in _NEEDS_MODEL and not self.model:
            raise ParameterError(f"judge {self.judge!r} needs model ({JUDGES[self.judge]}): write '{self.judge}:MODEL'")
        if self.judge not in _NEEDS_MODEL and self.model:
            raise ParameterError(f"judge {self.judge!r} takes no model, and {self.model!r} was given")
        if (self.judge == "endpoint") != (self.endpoint is not None):
            raise ParameterError(
                f"judge {self.judge!r} was given {'no' if self.endpoint is None else 'an'} address of a server: judge "
                "'endpoint' and endpoint=EndpointConfig(base_url=...) (--base-url) go together"
            )
        if self.reads not in ("exchange", "completion"):
            raise ParameterError(f"reads={self.reads!r}; it is 'exchange' or 'completion'")
        if self.judge == "guard" and bool(self.harmful) != bool(self.harmless):
            raise ParameterError("a guard's words come in pairs: give both harmful and harmless, or neither")

    @classmethod
    def named(cls, name: str, endpoint: EndpointConfig | None = None) -> JudgeConfig:
        """Return the config that a short name says: "refusal", "human:FOLDER", "guard:HUB_ID", "judgezoo:harmbench"."""
        judge, _, model = name.partition(":")
        return cls(judge=judge, model=model or None, endpoint=endpoint)


def judge_of(config: JudgeConfig | str) -> Judge:
    """Return the judge that a config or a short name says.

    Raises UnknownName or ParameterError as JudgeConfig does, and what loading the judge raises (NotPresent, PairError).
    """
    config = JudgeConfig.named(config) if isinstance(config, str) else config
    return _MAKERS[config.judge](config)


def _exact(_: JudgeConfig) -> Judge:
    from workbench.judging.exact import ExactJudge

    return ExactJudge()


def _refusal(_: JudgeConfig) -> Judge:
    from workbench.judging.refusal import RefusalJudge

    return RefusalJudge()


def _human(config: JudgeConfig) -> Judge:
    from workbench.judging.ratings import HumanJudge

    return HumanJudge(folder=str(config.model))


def _classifier(config: JudgeConfig) -> Judge:
    from workbench.judging.classifier import ClassifierJudge

    return ClassifierJudge.load(config)


def _guard(config: JudgeConfig) -> Judge:
    from workbench.judging.guard import GuardJudge

    return GuardJudge.load(config)


def _judgezoo(config: JudgeConfig) -> Judge:
    from workbench.judging.zoo import ZooJudge

    return ZooJudge.load(config)


def _endpoint(config: JudgeConfig) -> Judge:
    from workbench.judging.endpoint import EndpointJudge

    return EndpointJudge(config=config)


_MAKERS: Mapping[str, Callable[[JudgeConfig], Judge]] = {
    "exact": _exact,
    "refusal": _refusal,
    "human": _human,
    "classifier": _classifier,
    "guard": _guard,
    "judgezoo": _judgezoo,
    "endpoint": _endpoint,
}
