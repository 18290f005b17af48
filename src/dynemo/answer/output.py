"""From an engine's deltas to one choice's text: detokenize, hold back stop strings. Pure."""

from collections.abc import Iterator, Sequence

from dynemo.answer.stops import StopStrings
from dynemo.messages import Delta, Finish, Piece, Request
from dynemo.tokenizers.base import Detokenizer


class OutputProcessor:
    """The state of one choice. Feed it each delta in order; after a finish, nothing more.

    `stop_ids` end the sequence and are no part of its text, control tokens or not.
    """

    __slots__ = (
        "_cached",
        "_detokenizer",
        "_index",
        "_prompt_tokens",
        "_stop_ids",
        "_stops",
        "_tokens",
    )

    def __init__(
        self, index: int, request: Request, detokenizer: Detokenizer, stops: Sequence[str]
    ) -> None:
        self._index = index
        self._prompt_tokens = len(request.token_ids)
        self._stop_ids = frozenset(request.stop_ids)
        self._detokenizer = detokenizer
        self._stops = StopStrings(stops) if stops else None
        self._tokens = 0
        self._cached = 0

    def feed(self, delta: Delta) -> Piece:
        """What this delta adds. A finish in the piece may be ours, a stop string's: the engine does
        not know of it and is to be cancelled."""
        if delta.cached_tokens:
            self._cached = delta.cached_tokens
        if self._stops is not None:
            return self._feed_with_stops(self._stops, delta)
        if delta.texts:
            count, text = len(delta.texts), "".join(delta.texts)
        else:
            count, text = len(delta.token_ids), self._detokenizer.feed(self._shown(delta))
        self._tokens += count
        if delta.finish is not None:
            text += self._detokenizer.flush()
        return Piece(self._index, text, count, delta.finish)

    def _shown(self, delta: Delta) -> list[int]:
        ids = delta.token_ids
        if delta.finish is not None and ids and ids[-1] in self._stop_ids:
            return ids[:-1]
        return ids

    def _feed_with_stops(self, stops: StopStrings, delta: Delta) -> Piece:
        before = self._tokens
        texts: list[str] = []
        finish = delta.finish
        for text in self._one_by_one(delta):
            self._tokens += 1  # usage counts up to the token that completes the stop
            settled, is_met = stops.feed(text)
            texts.append(settled)
            if is_met:
                finish = self._stopped(finish)
                break
        else:
            if finish is not None:
                texts += [stops.feed(self._detokenizer.flush())[0], stops.flush()]
                if stops.is_met:
                    finish = self._stopped(finish)
        return Piece(self._index, "".join(texts), self._tokens - before, finish)

    def _one_by_one(self, delta: Delta) -> Iterator[str]:
        """The text that each token adds."""
        if delta.texts:
            yield from delta.texts
            return
        shown = self._shown(delta)
        for token_id in shown:
            yield self._detokenizer.feed([token_id])
        yield from [""] * (len(delta.token_ids) - len(shown))

    def _stopped(self, finish: Finish | None) -> Finish:
        cached = finish.cached_tokens if finish is not None else self._cached
        return Finish("stop", self._prompt_tokens, self._tokens, cached)
