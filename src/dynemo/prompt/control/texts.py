"""Lists the control tokens of a model, and where its template can cut a text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from dynemo.errors import RequestError
from dynemo.prompt.control.spellings import Spellings
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer

#: The marks of reasoning, on which templates split what an assistant has said. Assistants may say
#: them.
REASONING_MARKS = (
    "<think>", "</think>", "<thinking>", "</thinking>", "<thought>", "</thought>",
    "<reasoning>", "</reasoning>", "<seed:think>", "</seed:think>", "<|think|>", "<|/think|>",
    "[THINK]", "[/THINK]", "[BEGIN FINAL RESPONSE]", "<|channel>", "<channel|>",
    "<|START_THINKING|>", "<|END_THINKING|>", "<|inner_prefix|>", "<|inner_suffix|>",
    "<|begin_of_thought|>", "<|end_of_thought|>", "◁think▷", "◁/think▷",
    "<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>",
)  # fmt: skip
#: How converters recognize a control token that its file does not call one.
_LOOKS_LIKE_CONTROL = re.compile(r"<[|\uff5c].*[|\uff5c]>", re.DOTALL)
#: An added token that is not a word. Only such a token can mark a turn.
_LOOKS_LIKE_MARK = re.compile(r"[<\[{(|].+[>\]})|]", re.DOTALL)
_CONSTANT = re.compile(r"'([^'\n]{3,60})'|\"([^\"\n]{3,60})\"")
#: What ends a piece of a template's own text.
_END_OF_TEXT = re.compile(r"['\"]|\{\{|\{%")
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_CONVERSATION = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Hello"},
)


@dataclass(frozen=True)
class ControlTexts:
    """The spellings that no client's text may bring into a prompt as a token.

    `cuts` are the texts at which a template may cut a content. `opens` are the beginnings of
    spellings with which a text of the template ends. `is_folded`: the tokenizer also finds tokens
    in a text that spells them with other characters, such as U+FF1C for `<`. `private` are the
    private-use characters that tokens hold.
    """

    texts: tuple[str, ...]
    cuts: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    is_folded: bool = False
    private: str = ""

    @cached_property
    def spellings(self) -> Spellings:
        return Spellings(
            self.texts, self.cuts, REASONING_MARKS, opens=self.opens, is_folded=self.is_folded
        )


def control_texts(
    template: ChatTemplate, tokenizer: Tokenizer, eos_ids: Iterable[int] = ()
) -> ControlTexts:
    """Finds the control tokens of a model.

    - Those that its tokenizer calls control tokens.
    - Other added tokens that end an answer, that are spelled like control tokens, or that the
      template prints in a plain conversation: these mark turns. Reasoning marks do not count here.

    A tokenizer finds other added tokens, such as `<tool_call>`, in any text, and so they stay. So
    does a token of white space or of one character.
    """
    whole = tokenizer.whole_texts()
    ends = {tokenizer.token_text(token_id) for token_id in eos_ids}
    texts = {t for t in whole.others if t in ends or _LOOKS_LIKE_CONTROL.fullmatch(t)}
    rest = {t for t in whole.others - texts if _LOOKS_LIKE_MARK.fullmatch(t)}
    texts = (texts | _printed(template, rest)).difference(REASONING_MARKS) | whole.control
    texts = {text for text in texts if len(text) > 1 and not text.isspace()}
    source = "\n".join(template.sources.values())
    return ControlTexts(
        tuple(sorted(texts)),
        tuple(sorted(_cuts(source))),
        opens=tuple(sorted(_opens(source, texts))),
        is_folded=whole.is_folded,
        private="".join(sorted(set(_PRIVATE.findall("".join(whole.control | whole.others))))),
    )


def _printed(template: ChatTemplate, texts: set[str]) -> set[str]:
    if not texts:
        return set()
    try:
        prompt = template.render(_CONVERSATION)
    except RequestError:
        return set()
    return {text for text in texts if text in prompt}


def _cuts(source: str) -> set[str]:
    """Returns the marks that a template names: it may split a content there, or remove them."""
    constants = {found[1] or found[2] for found in _CONSTANT.finditer(source)}
    return {text for text in constants if not (text[0].isalnum() or text[0].isspace())}


def _opens(source: str, texts: Iterable[str]) -> set[str]:
    beginnings = {text[:end] for text in texts for end in range(1, len(text))}
    sizes = {len(beginning) for beginning in beginnings}
    ends = [found.start() for found in _END_OF_TEXT.finditer(source)]
    return {source[end - n : end] for end in ends for n in sizes if n <= end} & beginnings
