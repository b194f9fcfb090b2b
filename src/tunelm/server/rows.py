"""One answer under way: its tokens become text, and the text leaves in pieces."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from tunelm.server.asking import Ask, Piece, Scored
from tunelm.server.sampling import Chooser
from tunelm.server.text import Stops, Vocabulary
from tunelm.types import FinishReason


@dataclass(eq=False, slots=True)
class Ticket:
    """One request: `emit` gets (number of the ask, piece). `cancelled` ends the work on it."""

    emit: Callable[[int, Piece], None]
    cancelled: bool = False


Event = tuple[Ticket, int, Piece]
"""A piece, and whose it is."""


class Row:
    """The `number`-th ask of a ticket, being answered.

    Attributes:
        last: the newest token.
        finish: set when the answer is done.
        text: the answer so far, as far as later tokens cannot change it.
        begun: when it left the queue, on the monotonic clock.
    """

    def __init__(
        self, ticket: Ticket, number: int, ask: Ask, vocabulary: Vocabulary, ends: Set[int]
    ) -> None:
        self.ticket, self.number, self.ask = ticket, number, ask
        self.begun = 0.0
        self.chooser = Chooser(ask.sampling)
        self.last = -1
        self.finish: FinishReason | None = None if ask.max_tokens else FinishReason.LENGTH
        self.text = ""
        self._ends = ends
        self._detokenizer = vocabulary.detokenizer()
        self._stops = Stops(ask.stop)
        self._tokens = 0
        self._sent = 0
        self._scored: list[Scored] = []
        self._prompt: tuple[Scored, ...] = ()

    def take(self, token: int, scored: Scored | None = None) -> None:
        """The next token; `scored` has its `start` at the end of `text`."""
        self.last = token
        if token in self._ends:
            self.finish = FinishReason.STOP
            fresh = self._detokenizer.flush()
        else:
            self._tokens += 1
            fresh = self._detokenizer.push(token)
            if self._tokens >= self.ask.max_tokens:
                self.finish = FinishReason.LENGTH
                fresh += self._detokenizer.flush()
            if scored is not None:
                self._scored.append(scored)
        self.text += fresh
        cut = self._stops.find(self.text, len(fresh)) if self.ask.stop and fresh else None
        if cut is not None:
            self.text, self.finish = self.text[:cut], FinishReason.STOP
            self._scored = [scored for scored in self._scored if scored.start < cut]

    def take_prompt(self, scored: list[Scored]) -> None:
        """The scored tokens of the prompt after its first."""
        self._prompt = tuple(scored)

    def event(self) -> Event | None:
        """What can be given out now and has not been; None where there is nothing."""
        piece = self._piece()
        return None if piece is None else (self.ticket, self.number, piece)

    def failed(self, error: str) -> Event:
        """The end of an answer that does not come."""
        return self.ticket, self.number, Piece("", error=error)

    def _piece(self) -> Piece | None:
        if self.finish is None and not self.ask.stream:
            return None
        held = self._stops.held(self.text) if self.ask.stop and self.finish is None else 0
        until = len(self.text) - held
        if self.finish is None and until <= self._sent:
            return None
        text, self._sent = self.text[self._sent : until], until
        scored = [s for s in self._scored if self.finish is not None or s.start < until]
        self._scored = self._scored[len(scored) :]
        prompt, self._prompt = self._prompt, ()
        return Piece(text, tuple(scored), prompt, self.finish, self._tokens)
