"""The model card: everything that determines a model's prompts, whatever its file format is."""

from dataclasses import dataclass, field
from functools import cached_property

from dynemo.messages.ask import Ask
from dynemo.prompt.control.texts import ControlTexts, control_texts
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Card:
    name: str
    architecture: str
    tokenizer: Tokenizer
    template: ChatTemplate
    eos_ids: tuple[int, ...]  #: from all of the model's files
    context_length: int = 0  #: tokens; 0 if the model's files do not tell
    kv_bytes_per_token: int = 0  #: of a 16-bit cache; 0 if the model's files do not tell
    defaults: Ask = field(default_factory=Ask)  #: the model's own generation settings

    @cached_property
    def control(self) -> ControlTexts:
        """The tokens that no text of a client may bring into a prompt."""
        return control_texts(self.template, self.tokenizer, self.eos_ids)
