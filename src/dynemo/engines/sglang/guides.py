"""Guided answers in SGLang, whose schedulers have no tokenizer here.

A scheduler is started with `run_scheduler`, which gives it llguidance with the vocabulary of
`tokenizer.json`. So SGLang still starts without its tokenizer and its process that detokenizes.
"""

import sys
from pathlib import Path
from typing import Any

from msgspec import json

from dynemo.foreign import decode_json
from dynemo.messages.request import GuideKind

KINDS: list[GuideKind] = [
    "json_schema", "regex", "choice", "grammar", "lark", "structural_tag",
]  # fmt: skip
#: Settings of a tokenizer that llguidance must not apply.
_UNWANTED = ("padding", "truncation")
_KEPT = 64  #: compiled guides; SGLang itself keeps all


def guide_kinds(model: str) -> list[GuideKind]:
    """Returns the kinds of guide that SGLang can follow with this model. Prints why it has none."""
    try:
        _vocabulary(model, None, None)
    except Exception as error:  # of the library that reads the file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        print(
            f"Warning: SGLang gives no guided answers, because llguidance cannot use the "
            f"tokenizer: {reason}.",
            file=sys.stderr,
            flush=True,
        )
        return []
    return KINDS


def run_scheduler(*arguments: Any, **more: Any) -> None:
    """Runs a scheduler in its own process."""
    from sglang.srt.managers import scheduler

    scheduler.GrammarManager = _manager_class()
    scheduler.run_scheduler_process(*arguments, **more)


def _manager_class() -> Any:
    from sglang.srt.constrained.base_grammar_backend import BaseGrammarBackend
    from sglang.srt.constrained.grammar_manager import GrammarManager
    from sglang.srt.constrained.llguidance_backend import GuidanceBackend

    class Backend(GuidanceBackend):  # type: ignore[misc]
        def __init__(self, vocabulary: Any) -> None:
            BaseGrammarBackend.__init__(self)
            self.tokenizer = None
            self.any_whitespace, self.whitespace_pattern = False, None
            self.llguidance_tokenizer = vocabulary

        def set_cache(self, key: Any, value: Any) -> None:
            while len(self.cache) >= _KEPT:
                del self.cache[next(iter(self.cache))]
            super().set_cache(key, value)

    class Manager(GrammarManager):  # type: ignore[misc]
        def __init__(self, owner: Any) -> None:
            super().__init__(owner)
            config = owner.model_config
            ends = config.hf_eos_token_id
            try:
                vocabulary = _vocabulary(config.model_path, config.vocab_size, ends)
            except Exception:  # the host has printed it, and names no guides
                return
            self.grammar_backend = Backend(vocabulary)

    return Manager


def _vocabulary(model: str, size: int | None, ends: Any) -> Any:
    from llguidance import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        LLTokenizer,
    )

    text = (Path(model) / "tokenizer.json").read_text(encoding="utf-8")
    settings = decode_json(text, dict[str, Any])
    if any(settings.get(name) for name in _UNWANTED):
        text = json.encode({**settings, **dict.fromkeys(_UNWANTED)}).decode()
    return LLTokenizer(text, n_vocab=size, eos_token=sorted(ends) if ends else None)
