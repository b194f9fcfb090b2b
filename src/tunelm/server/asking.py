"""What an engine is asked, and what it answers piece by piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunelm.types import FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 is greedy.
        top_p: only the likeliest tokens that together have this probability are drawn from.
        seed: the same seed draws the same tokens, whatever else runs; None: another each time.
        frequency_penalty: taken off a token's logit for each time it stands in the answer.
        presence_penalty: taken off once, when it stands there at all.
        bias: added to the logits of these tokens.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: str | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer to generate. The caller sees that prompt and answer fit the context.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: most tokens of the answer; 0 to look at the prompt only.
        adapter: the folder of the adapter to answer with; None: the base model.
        sampling: how tokens are chosen.
        stop: strings that end the answer and are not part of it.
        top: how many of the likeliest tokens to name at each place; None: no log-probabilities.
        score_prompt: whether the prompt's own tokens get log-probabilities too.
        stream: whether text is given out as it comes, or all at the end.
    """

    prompt: list[int]
    max_tokens: int
    adapter: Path | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    top: int | None = None
    score_prompt: bool = False
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Scored:
    """A token with its natural-log probability (None for the first token of a text).

    `top` are the likeliest tokens at its place, best first; `start` is where its text begins in
    the answer, in characters.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    start: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. The last one has `finish` or `error`, and the count of tokens.

    `prompt` holds the scored tokens of the prompt after its first, in the first piece only.
    `error` is a line for the client; the answer ends there.
    """

    text: str
    scored: tuple[Scored, ...] = ()
    prompt: tuple[Scored, ...] = ()
    finish: FinishReason | None = None
    tokens: int = 0
    error: str | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None
