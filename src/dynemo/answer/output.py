"""Turns an engine's deltas into the pieces of one choice: detokenizes and applies stop strings.

Pure.
"""

from collections.abc import Iterator

from msgspec import structs

from dynemo.answer.stops import StopAutomaton, StopStrings
from dynemo.messages.answer import Delta, EmbeddingPiece, Finish, FinishPiece, Piece, TextPiece
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Detokenizer


class OutputProcessor:
    """The state of one choice. Feed it every delta in order, up to the finish.

    The request's `stop_ids` end the sequence. They are not part of its text, even if they are not
    control tokens, unless the request shows them.
    """

    __slots__ = (
        "_cached",
        "_detokenizer",
        "_hidden_ids",
        "_index",
        "_prompt_tokens",
        "_stop_ids",
        "_stops",
        "_tokens",
    )

    def __init__(
        self,
        index: int,
        request: Request,
        detokenizer: Detokenizer,
        stops: StopAutomaton | None,
    ) -> None:
        self._index = index
        self._prompt_tokens = len(request.token_ids)
        self._stop_ids = frozenset(request.stop_ids)
        self._hidden_ids = self._stop_ids.difference(request.shown)
        self._detokenizer = detokenizer
        self._stops = None if stops is None else StopStrings(stops)
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
        if self._stops is not None:
            text, count, finish = self._with_stops(self._stops, delta)
        elif delta.texts:
            count, text = len(delta.texts), "".join(delta.texts)
        else:
            ids = delta.token_ids if finish is None else self._shown(delta)
            count, text = len(delta.token_ids), self._detokenizer.feed(ids)
        if finish is None:  # nearly every delta is such
            return [TextPiece(self._index, text, count)] if count else []
        if self._stops is None:
            text += self._detokenizer.flush()
        return self._last(delta, text, count, finish)

    def _last(self, delta: Delta, text: str, count: int, finish: Finish) -> list[Piece]:
        pieces: list[Piece] = []
        if text or count:
            pieces.append(TextPiece(self._index, text, count))
        if delta.embedding:
            pieces.append(EmbeddingPiece(self._index, delta.embedding))
        ids = delta.token_ids
        if finish.matched is None and ids and ids[-1] in self._stop_ids:
            finish = structs.replace(finish, matched=ids[-1])
        pieces.append(FinishPiece(self._index, finish))
        return pieces

    def _shown(self, delta: Delta) -> list[int]:
        ids = delta.token_ids
        if delta.finish is not None and ids and ids[-1] in self._hidden_ids:
            return ids[:-1]
        return ids

    def _with_stops(self, stops: StopStrings, delta: Delta) -> tuple[str, int, Finish | None]:
        """Returns the final text, the number of its tokens, and the finish."""
        before = self._tokens
        texts: list[str] = []
        finish = delta.finish
        for text in self._one_by_one(delta):
            self._tokens += 1  # usage counts up to the token that completes the stop string
            settled, is_met = stops.feed(text)
            texts.append(settled)
            if is_met:
                finish = self._stopped(stops, finish)
                break
        else:
            if finish is not None:
                texts += [stops.feed(self._detokenizer.flush())[0], stops.flush()]
                if stops.is_met:
                    finish = self._stopped(stops, finish)
        return "".join(texts), self._tokens - before, finish

    def _one_by_one(self, delta: Delta) -> Iterator[str]:
        """Yields the text that each token adds."""
        if delta.texts:
            yield from delta.texts
            return
        shown = self._shown(delta)
        for token_id in shown:
            yield self._detokenizer.feed([token_id])
        yield from [""] * (len(delta.token_ids) - len(shown))

    def _stopped(self, stops: StopStrings, finish: Finish | None) -> Finish:
        cached = finish.cached_tokens if finish is not None else self._cached
        return Finish("stop", self._prompt_tokens, self._tokens, cached, matched=stops.met)
