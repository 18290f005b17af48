"""Turns an engine's deltas into the pieces of one choice: detokenizes and applies stop strings.

Pure.
"""

from collections.abc import Iterator

from msgspec import structs

from dynemo.answer.logprobs import TokenEntries, prompt_entries
from dynemo.answer.stops import StopAutomaton, StopStrings
from dynemo.messages.answer import (
    Delta,
    EmbeddingPiece,
    Finish,
    FinishPiece,
    Piece,
    PromptPiece,
    TextPiece,
)
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.spelling import is_control, spelled_bytes


class OutputProcessor:
    """The state of one choice. Feed it every delta in order, up to the finish.

    The request's `stop_ids` end the sequence. They are not part of its text, even if they are not
    control tokens, unless the request shows them.
    """

    __slots__ = (
        "_cached",
        "_detokenizer",
        "_entries",
        "_hidden_ids",
        "_index",
        "_is_whole",
        "_late",
        "_request",
        "_stops",
        "_tokenizer",
        "_tokens",
    )

    def __init__(
        self, index: int, request: Request, tokenizer: Tokenizer, stops: StopAutomaton | None
    ) -> None:
        self._index = index
        self._request = request
        self._tokenizer = tokenizer
        hidden = () if request.include_stop else request.stop_ids
        self._hidden_ids = frozenset(hidden).difference(request.shown)
        self._detokenizer = tokenizer.detokenizer(request.shown)
        self._stops = None if stops is None else StopStrings(stops)
        self._entries = None if request.logprobs is None else _entries(tokenizer)
        #: A delta's tokens need not be looked at one by one.
        self._is_whole = stops is None and request.logprobs is None
        self._late = ""  # text whose last token is not complete, if log probabilities are wanted
        self._tokens = 0
        self._cached = 0

    def feed(self, delta: Delta) -> list[Piece]:
        """Returns the pieces of this delta. The list is empty without a token and a finish.

        A stop string may cause a `FinishPiece` that the engine does not know about: then the caller
        must cancel the engine's request.
        """
        if delta.cached_tokens:
            self._cached = delta.cached_tokens
        finish = delta.finish
        if not self._is_whole:
            return self._one_by_one(delta)
        if delta.texts:
            count, text = len(delta.texts), "".join(delta.texts)
        else:
            ids = delta.token_ids if finish is None else self._shown(delta)
            count, text = len(delta.token_ids), self._detokenizer.feed(ids)
        if finish is None and delta.scores is None:  # nearly every delta is such
            return [TextPiece(self._index, text, count)] if count else []
        if finish is not None:
            text += self._detokenizer.flush()
        piece = TextPiece(self._index, text, count)
        return self._all(delta, piece, finish)

    def _all(self, delta: Delta, said: TextPiece, finish: Finish | None) -> list[Piece]:
        pieces: list[Piece] = []
        if delta.scores is not None and delta.scores.prompt:
            pieces.append(self._prompt(delta.scores.prompt))
        if said.text or said.tokens or said.logprobs:
            pieces.append(said)
        if delta.embedding:
            pieces.append(EmbeddingPiece(self._index, delta.embedding))
        if finish is not None:
            ids = delta.token_ids
            if finish.matched is None and ids and ids[-1] in self._request.client_stop_ids:
                finish = structs.replace(finish, matched=ids[-1])
            pieces.append(FinishPiece(self._index, finish))
        return pieces

    def _prompt(self, scores: list[bytes]) -> PromptPiece:
        ids, tokenizer = self._request.token_ids, self._tokenizer
        entries = prompt_entries(ids, scores, lambda token_id: spelled_bytes(tokenizer, token_id))
        return PromptPiece(self._index, entries)

    def _shown(self, delta: Delta) -> list[int]:
        ids = delta.token_ids
        if delta.finish is not None and ids and ids[-1] in self._hidden_ids:
            return ids[:-1]
        return ids

    def _one_by_one(self, delta: Delta) -> list[Piece]:
        """Looks at each token, for stop strings and log probabilities."""
        before, finish = self._tokens, delta.finish
        stops, entries, least = self._stops, self._entries, self._request.min_tokens
        scores = iter(()) if entries is None else self._scores(delta)
        texts: list[str] = []
        is_met = False
        for text in self._texts(delta):
            self._tokens += 1  # usage counts up to the token that completes the stop string
            if entries is not None:
                entries.add(text, next(scores, b""))
            if stops is None or self._tokens <= least:
                texts.append(text)
                continue
            settled, is_met = stops.feed(text)
            texts.append(settled)
            if is_met:
                break
        else:
            if finish is not None:
                is_met = self._flush(texts)
        if is_met and stops is not None:
            finish = self._stopped(stops, finish)
            if self._request.include_stop:
                texts.append(stops.met or "")
        said = TextPiece(self._index, "".join(texts), self._tokens - before)
        if entries is not None:
            said = self._with_entries(entries, said, is_last=finish is not None)
        elif finish is None and delta.scores is None:
            return [said] if said.tokens else []
        return self._all(delta, said, finish)

    def _with_entries(self, entries: TokenEntries, said: TextPiece, *, is_last: bool) -> TextPiece:
        """Holds back the text of a token until all of it has come, so that it has its entry."""
        taken, shown = entries.take(len(said.text))
        text = self._late + said.text
        if is_last:
            taken, shown = taken + entries.cut(), len(text)
        self._late = text[shown:]
        return TextPiece(said.index, text[:shown], said.tokens, taken)

    def _texts(self, delta: Delta) -> Iterator[str]:
        """Yields the text that each token adds."""
        if delta.texts:
            yield from delta.texts
            return
        shown = self._shown(delta)
        for token_id in shown:
            yield self._detokenizer.feed([token_id])
        yield from [""] * (len(delta.token_ids) - len(shown))

    def _scores(self, delta: Delta) -> Iterator[bytes]:
        """Gives the scores of the tokens that the answer shows."""
        if delta.scores is None:
            return iter(())
        scores = delta.scores.tokens
        return iter(scores if delta.texts else scores[: len(self._shown(delta))])

    def _flush(self, texts: list[str]) -> bool:
        """Adds the text that was held back. Returns whether a stop string has ended the answer."""
        text, stops = self._detokenizer.flush(), self._stops
        if self._entries is not None:
            self._entries.flush(text)
        if stops is None or self._tokens <= self._request.min_tokens:
            texts.append(text)
        else:
            texts.append(stops.feed(text)[0])
        if stops is not None:
            texts.append(stops.flush())
        return stops is not None and stops.is_met

    def _stopped(self, stops: StopStrings, finish: Finish | None) -> Finish:
        cached = finish.cached_tokens if finish is not None else self._cached
        prompt_tokens = len(self._request.token_ids)
        return Finish("stop", prompt_tokens, self._tokens, cached, matched=stops.met)


def _entries(tokenizer: Tokenizer) -> TokenEntries:
    return TokenEntries(
        lambda token_id: spelled_bytes(tokenizer, token_id),
        lambda token_id: is_control(tokenizer, token_id),
    )
