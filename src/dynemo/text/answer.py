"""From an engine's deltas to one choice's text: detokenize, hold back stop strings. Pure."""

from collections.abc import Sequence

from dynemo.messages import Delta, Finish, Piece
from dynemo.text.stops import StopStrings
from dynemo.text.tokenizer import Detokenizer


class Answer:
    """The state of one choice. Feed it each delta in order; after a finish, nothing more."""

    def __init__(
        self, index: int, prompt_tokens: int, detokenizer: Detokenizer, stops: Sequence[str]
    ) -> None:
        self._index = index
        self._prompt_tokens = prompt_tokens
        self._detokenizer = detokenizer
        self._stops = StopStrings(stops) if stops else None
        self._tokens = 0

    def feed(self, delta: Delta) -> Piece:
        """What this delta adds. A finish in the piece may be ours, a stop string's: the engine does
        not know of it and is to be cancelled."""
        if self._stops is not None:
            return self._feed_with_stops(self._stops, delta)
        count = len(delta.token_ids)
        self._tokens += count
        text = self._detokenizer.feed(delta.token_ids) if count else delta.text
        if delta.finish is not None:
            text += self._detokenizer.flush()
        return Piece(self._index, text, count, delta.finish)

    def _feed_with_stops(self, stops: StopStrings, delta: Delta) -> Piece:
        before = self._tokens
        parts = [delta.text] if delta.text else delta.token_ids
        texts: list[str] = []
        finish = delta.finish
        for part in parts:  # one by one: usage counts up to the token that completes the stop
            self._tokens += 1
            text = part if isinstance(part, str) else self._detokenizer.feed([part])
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

    def _stopped(self, finish: Finish | None) -> Finish:
        cached = finish.cached_tokens if finish is not None else 0
        return Finish("stop", self._prompt_tokens, self._tokens, cached)
