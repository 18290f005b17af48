"""The model card: everything that determines a model's prompts, whatever its file format is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from dynemo.answer.formats.choose import is_reasoning_open
from dynemo.answer.formats.format import Format
from dynemo.errors import RequestError
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
    format: Format = field(default_factory=Format)  #: how to read its answers
    marks: Mapping[int, str] = field(default_factory=dict)  #: of the format, the control tokens
    opens_thoughts: bool = False  #: the model itself opens its thoughts, not the prompt

    @cached_property
    def control(self) -> ControlTexts:
        """The tokens that no text of a client may bring into a prompt."""
        return control_texts(self.template, self.tokenizer, self.eos_ids)


def with_format(card: Card, format: Format) -> Card:
    """The card with a format, and with those of its marks that are control tokens."""
    tokenizer = card.tokenizer
    ids = ((tokenizer.token_id(mark), mark) for mark in format.marks)
    marks = {
        token_id: mark
        for token_id, mark in ids
        if token_id is not None and not tokenizer.decode([token_id])
    }
    opens = format.reasoning is not None and not _prompt_opens(card.template, format)
    return replace(card, format=format, marks=marks, opens_thoughts=opens)


def _prompt_opens(template: ChatTemplate, format: Format) -> bool:
    """Whether a prompt that asks for thoughts ends inside them."""
    question = [{"role": "user", "content": "Hello"}]
    asking = {"enable_thinking": True, "thinking": True}
    try:
        prompt = template.render(question, add_generation_prompt=True, kwargs=asking)
    except RequestError:  # such a template needs other messages, so nothing is known
        return False
    return is_reasoning_open(format, prompt)
