"""An engine with one script for requests without a guide, and one for those with a guide."""

from collections.abc import AsyncGenerator

from msgspec import structs

from dynemo.errors import RequestError
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.request import Request
from support.byte_tokenizer import Bytes

TOKENIZER = Bytes()
_EOS = 0


class TwoSteps:
    """Its tokens are bytes, `size` of them in a delta. `refuses`: it raises for every guide."""

    def __init__(
        self, free: str, guided: str, *, gives_text: bool, size: int, refuses: bool = False
    ) -> None:
        self.scripts = {False: free, True: guided}
        self.rest: str | None = None  #: the answer to a second request without a guide
        self.gives_text = gives_text
        self.size = size
        self.refuses = refuses
        self.seen: list[Request] = []

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        if request.guide is not None and self.refuses:
            raise RequestError("It cannot be followed.", param="guide")
        self.seen.append(request)
        text = self.scripts[request.guide is not None]
        if self.rest is not None and len(self.seen) > 1:
            text = self.rest
        tokens = list(text.encode())[: request.max_tokens]
        reason: FinishReason = "length" if len(tokens) == request.max_tokens else "stop"
        for start in range(0, len(tokens), self.size):
            yield self._delta(tokens[start : start + self.size])
        end = [] if reason == "length" else [_EOS]
        finish = Finish(reason, len(request.token_ids), len(tokens) + len(end))
        last = Delta(texts=[""] * len(end)) if self.gives_text else Delta(end)
        yield structs.replace(last, finish=finish)

    def _delta(self, tokens: list[int]) -> Delta:
        if self.gives_text:
            return Delta(texts=[TOKENIZER.decode([token]) for token in tokens])
        return Delta(tokens)


async def joined(deltas: AsyncGenerator[Delta, None], asked: Request) -> tuple[str, Finish]:
    """Returns the text of an answer and its finish, whose counts must be right."""
    text, finish, count = "", None, 0
    async for delta in deltas:
        assert finish is None
        shown = [token for token in delta.token_ids if token != _EOS]
        text += "".join(delta.texts) + TOKENIZER.decode(shown)
        count += len(delta.token_ids) or len(delta.texts)
        finish = delta.finish
    assert finish is not None
    assert finish.completion_tokens == count
    assert finish.prompt_tokens == len(asked.token_ids)
    return text, finish
