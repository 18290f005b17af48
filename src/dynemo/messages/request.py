"""The form of a request for an engine: one sequence, in token ids and in text.

These structs travel. A field may be added at any time, because readers skip names that they do not
know; a field that exists keeps its name and its meaning (`wire/versions.py`).
"""

from typing import Any, Literal

from msgspec import Struct

#: Breaks a text that spells a control token, in the `prompt` of an engine that takes text.
JOINER = "\u2060"


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen. The defaults are plain sampling at temperature 1."""

    temperature: float = 1.0  #: 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  #: 0 is off
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}


GuideKind = Literal["json_schema", "regex", "choice", "grammar", "lark", "structural_tag"]

#: How messages name each kind.
GUIDE_NAMES: dict[str, str] = {
    "json_schema": "JSON schema",
    "regex": "regex",
    "choice": "list of choices",
    "grammar": "GBNF grammar",
    "lark": "Lark grammar",
    "structural_tag": "structural tag",
}
#: The kinds that can be followed from within an answer.
CONTINUED_KINDS: tuple[GuideKind, ...] = ("json_schema", "regex", "choice")


class Guide(Struct, frozen=True, array_like=True):
    """A bound on the answer's text. Only an instance that names the kind gets it."""

    kind: GuideKind
    #: The schema as JSON; the regex; the choices as a JSON list of texts; the grammar in GBNF; the
    #: grammar in llguidance's dialect of Lark; the structural tag as JSON.
    text: str
    #: The part of the answer that exists already: the guide bounds that and the rest together.
    #: Only an instance that continues guides of this kind gets it.
    written: str = ""


class Request(Struct, frozen=True, kw_only=True):
    """One sequence to generate. It always carries both token ids and the text they came from."""

    id: str
    token_ids: list[int]
    prompt: str  #: a JOINER breaks each text that only looks like a token
    max_tokens: int  #: at least 1; prompt and answer together fit the context
    is_unbounded: bool = False  #: the client set no `max_tokens`: it is what the context leaves
    sampling: Sampling
    stop_ids: list[int] = []  #: EOS ids and the client's; the sequence ends after the first of them
    client_stop_ids: list[int] = []  #: of `stop_ids`, those that the client named
    include_stop: bool = False  #: the stop id or the stop string that ends it is part of its text
    ignore_eos: bool = False  #: the engine's own EOS is off; `stop_ids` are those of the client
    min_tokens: int = 0  #: no stop id and no stop string ends the sequence before it has so many
    logprobs: int | None = None  #: of each token, with so many of the likeliest in its place
    prompt_logprobs: int | None = None  #: the same of each token of the prompt, once
    guide: Guide | None = None
    embed: bool = False  #: the prompt's embedding is wanted, and no answer
    #: `prompt.normalise.plain_messages` of the turns, for an engine that takes messages.
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []  #: definitions that the answer may call, for such an engine
    #: Control tokens that belong to the answer's text, each with the spelling that stands there.
    #: Others are left out of it. A stop id among them is part of the text, too.
    shown: dict[int, str] = {}
    continued: int = 0  #: the last so many of `token_ids` were answered by another instance
    #: Only requests with the same salt may share a prefix cache: it stands for an API key.
    cache_salt: str = ""
    traceparent: str = ""  #: see `trace.py`; empty if the input has no trace
