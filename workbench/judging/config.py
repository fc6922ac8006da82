"""The judges by name, and their configs; `makers` loads a judge when it is first used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from workbench.core.configs import above, at_least, check_fields
from workbench.core.errors import ParameterError, UnknownName, nearest


@dataclass(frozen=True)
class JudgeKind:
    """A kind of judge: what it judges by, its "file:Class" in this room, and whether it needs a model's name."""

    goes_by: str
    made_by: str
    needs_model: bool = True


JUDGES: Mapping[str, JudgeKind] = {
    "exact": JudgeKind("the facts of the embedded world, for its prompts only", "exact:ExactJudge", False),
    "refusal": JudgeKind("rules for how assistants refuse, in English", "refusal:RefusalJudge", False),
    "human": JudgeKind("saved ratings of people, 1 to 5; model names their folder", "ratings:HumanJudge"),
    "classifier": JudgeKind("a sequence-classification model; a folder or hub id", "classifier:ClassifierJudge"),
    "guard": JudgeKind("a chat model that answers in one word; a folder or hub id", "guard:GuardJudge"),
    "judgezoo": JudgeKind("a judge of the package judgezoo, such as harmbench", "zoo:ZooJudge"),
    "endpoint": JudgeKind("a model behind an OpenAI-compatible server, by its name there", "endpoint:EndpointJudge"),
}
"""Every judge by name; a new one needs its file and a line here."""
Reads = Literal["exchange", "completion"]


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """A server that speaks the OpenAI chat-completions protocol, and the limits on requests to it.

    base_url             up to and including its version, such as "http://localhost:8000/v1"
    key_variable         the environment variable that holds the key; None: no key is sent. The key is never stored
    concurrency          requests in flight at once
    requests_per_minute  None: as fast as `concurrency` allows
    timeout_s            for one request, from its start to the last byte of the answer
    retries              retries of a request after 408, 409, 425, 429, 5xx, a lost connection or a timeout
    backoff_s            the first pause before a retry; it doubles each time, with jitter, and is at least Retry-After
    longest_pause_s      the longest pause; a sample whose server asks for a longer one is unscored
    max_tokens           room for the answer; models that think before they answer need more
    price_in, price_out  price of a million tokens, in any currency; None: no price is reported
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
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ParameterError(f"base_url={self.base_url!r} is not an address: begin it with http:// or https://")
        if url.username or url.password or url.query or url.fragment:
            raise ParameterError(
                "base_url holds a user, a password, a query or a fragment, and it is saved with every result: give the "
                "plain address, and put the key into the environment variable that key_variable names"
            )
        whole = dict.fromkeys(("concurrency", "max_tokens"), at_least(1)) | {"retries": at_least(0)}
        check_fields(self, **whole, requests_per_minute=above(0), timeout_s=above(0), backoff_s=at_least(0))


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A judge and its settings.

    judge      a name of JUDGES
    model      the model, folder or package judge that it uses: see JUDGES
    revision   a branch, tag or commit of a hub id
    harmful    classifier: the labels whose probability is p_harmful; guard: the words that mean harmful
    harmless   guard: the words that mean harmless
    refusing   classifier: the labels that mean a refusal; then it gives verdicts
    reads      classifier: the request and the completion ("exchange"), or the completion alone
    lead       guard: text before the answer's word, such as two line ends
    device, dtype   as in PairConfig
    endpoint   the server of an endpoint judge

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
        if (kind := JUDGES.get(self.judge)) is None:
            raise UnknownName(f"there is no judge {self.judge!r}: {nearest(self.judge, tuple(JUDGES))}")
        if kind.needs_model and not self.model:
            raise ParameterError(f"judge {self.judge!r} needs a model ({kind.goes_by}): write '{self.judge}:MODEL'")
        if self.model and not kind.needs_model:
            raise ParameterError(f"judge {self.judge!r} takes no model, and {self.model!r} was given: leave it out")
        if (self.judge == "endpoint") != (self.endpoint is not None):
            given = f"judge {self.judge!r} was given {'no' if self.endpoint is None else 'an'} address of a server"
            raise ParameterError(f"{given}: use judge 'endpoint' with EndpointConfig(base_url=...) (--base-url)")
        check_fields(self, reads=get_args(Reads))
        if self.judge == "guard" and bool(self.harmful) != bool(self.harmless):
            raise ParameterError("a guard needs words of both kinds: give harmful and harmless, or neither")

    @classmethod
    def named(cls, name: str, endpoint: EndpointConfig | None = None) -> JudgeConfig:
        """Return the config of a short name: "refusal", "human:FOLDER", "guard:HUB_ID", "judgezoo:harmbench"."""
        judge, _, model = name.partition(":")
        return cls(judge=judge, model=model or None, endpoint=endpoint)
