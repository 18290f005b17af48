"""The model card: what a prompt means to one model, whichever files it came from."""

from dataclasses import dataclass, field

from dynemo.messages.ask import Ask
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Card:
    name: str
    architecture: str
    tokenizer: Tokenizer
    template: ChatTemplate
    eos_ids: tuple[int, ...]  #: from all of the model's files
    context_length: int = 0  #: what the model was made for; 0 where its files do not say
    kv_bytes_per_token: int = 0  #: of a 16-bit cache; 0 where its files do not say
    defaults: Ask = field(default_factory=Ask)  #: the model's own generation settings
