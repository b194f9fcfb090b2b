"""A conversation that outgrows the context: what is kept, what is left out, and how that is shown.

Nothing is lost in silence. The system message, the opening (the problem), pinned facts and the last
turn always stay; earlier turns are left out in whole pairs of student and teacher, the oldest
first; one plain line in the prompt says how many; and `Fitted` tells the caller. Dropping the
oldest turns loses what was agreed early, and a free summary loses exact figures, which is why the
summary by rule keeps sentences with figures and names word by word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tunelm.errors import ConfigError
from tunelm.models.base import ChatModel, innermost
from tunelm.models.render import encode_prompt, rendered
from tunelm.types import Message, Request

Policy = Literal["drop", "summarize", "pinned+recent"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
Fits = Callable[[str], bool]
Summarize = Callable[[Sequence[Message], Fits], str]
"""(messages that are left out, whether a text fits) -> the text that stands for them."""

RECENT = 6
UNKNOWN_CONTEXT = 8192
"""Tokens taken for a model behind an API whose context nobody has given."""
_BYTES_A_TOKEN = 3
_TOKENS_A_MESSAGE = 4
_SUMMARY_SHARE = 4
"""A quarter of the budget is kept free for a summary."""
_LEAST_KEPT = 40
_MOST_CHARS_A_TOKEN = 20
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_FIGURE = re.compile(r"\d")
_NAME = re.compile(r"(?<=[^.!?]\s)(?!I\b)[A-Z]\w+")
_OWN = re.compile(r"\b(I|my|me|we|our)\b", re.IGNORECASE)
_SPEAKERS = {"user": "Student", "assistant": "Teacher"}


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens a prompt may have.

    `count` counts a prompt with all that the model puts around it; `how` says by what, and
    `exact` whether it is a count or an estimate.
    """

    limit: int
    count: Callable[[Sequence[Message]], int]
    how: str
    exact: bool = True


@dataclass(frozen=True, slots=True)
class History:
    """What becomes of a conversation that is too long.

    - `drop`: as many of the latest pairs as fit.
    - `summarize`: likewise, with a summary of the others before them (`by_rule`, or `by_model`).
    - `pinned+recent`: the last `recent` pairs and no more, even where there is room: a turn costs
      the same however long the conversation is.

    `pinned` facts stand in every prompt, whatever the policy.
    """

    policy: Policy = "drop"
    pinned: tuple[str, ...] = ()
    recent: int = RECENT
    summarize: Summarize | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(f"no policy {self.policy!r}, expected one of {', '.join(POLICIES)}")
        if self.recent < 0:
            raise ConfigError(f"recent is {self.recent}, expected 0 or more pairs of turns")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, and what it cost the conversation.

    Attributes:
        messages: what is sent.
        left_out: the messages that are not in it, in order.
        summary: what stands for them; "" for nothing.
        cut: characters taken out of the middle of the last turn.
        tokens: of `messages`; None where nobody counted.
        limit: the budget; None without one.
    """

    messages: tuple[Message, ...]
    left_out: tuple[Message, ...] = ()
    summary: str = ""
    cut: int = 0
    tokens: int | None = None
    limit: int | None = None

    def told(self) -> str:
        """What a person should be told of it, "" if all is there.

        >>> Fitted((), left_out=(Message("user", "Hi."), Message("assistant", "Hello."))).told()
        '2 earlier messages are left out'
        """
        found: list[str] = []
        if self.left_out:
            found.append(_line(len(self.left_out), bool(self.summary)).strip("[]"))
        if self.cut:
            found.append(f"{self.cut} characters of the last message are left out")
        return "; ".join(found)


def budget_of(model: ChatModel, max_tokens: int, context: int | None = None) -> Budget:
    """The room for a prompt beside an answer of `max_tokens`.

    Counted by the tokenizer and chat template of a model that runs here, with the prompt that its
    adaptation puts in front. For a model behind an API it is an estimate, a token for every three
    bytes of UTF-8, which is on the safe side for most languages.

    Args:
        model: who is asked.
        max_tokens: of its answer.
        context: tokens of prompt and answer together; None: the model's own, and
            `UNKNOWN_CONTEXT` where that is not known here.

    Raises:
        ConfigError: no room is left for a prompt.
    """
    engine = innermost(model)
    if not hasattr(engine, "tokenizer"):
        room = UNKNOWN_CONTEXT if context is None else context
        how = f"estimated: a token for every {_BYTES_A_TOKEN} bytes"
        budget = Budget(room - max_tokens, lambda m: estimate(rendered(model, m)), how, False)
    else:
        tokenizer, most = engine.tokenizer, engine.max_length
        room = most if context is None else min(context, most)
        how = f"counted by the tokenizer of {engine.name}"
        budget = Budget(
            room - max_tokens, lambda m: len(encode_prompt(tokenizer, rendered(model, m))), how
        )
    if budget.limit < 1:
        raise ConfigError(
            f"an answer of {max_tokens} tokens leaves no room in a context of {room}: lower"
            " max_tokens"
        )
    return budget


def estimate(messages: Sequence[Message]) -> int:
    """Tokens of a prompt where no tokenizer is at hand; see `budget_of`."""
    return sum(
        _TOKENS_A_MESSAGE + -(-len(m.content.encode("utf-8")) // _BYTES_A_TOKEN) for m in messages
    )


def fit_history(
    messages: Sequence[Message],
    budget: Budget | None = None,
    history: History | None = None,
    opening: str = "",
    closing: str = "",
) -> Fitted:
    """A conversation as a prompt that fits.

    `opening`, pinned facts, the line on what is left out and a summary stand before the text of the
    first message that is kept, `closing` after that of the last: the system message stays as it
    is, and the roles take turns. Where the last turn alone is too long, its middle is cut out and
    a mark put there; a fixed part that is too long is an error.

    Args:
        messages: maybe a system message, then user and assistant in turn, the user last. The
            assistant may begin where there is an opening; with an opening alone, there may be none.
        budget: None: there is room for everything.
        history: the policy and pinned facts; None: `drop` and none.
        opening: what the conversation is about; always stays.
        closing: a note for this turn; always stays.

    Raises:
        ConfigError: roles out of turn, or fixed parts larger than the budget.
    """
    its = history or History()
    system, pairs, last = _parts(messages, opening)
    pinned = "Keep in mind:\n" + "\n".join(f"- {p}" for p in its.pinned) if its.pinned else ""

    def shown(drop: int, text: str, summary: str) -> tuple[Message, ...]:
        omitted = len(_said(pairs[:drop]))
        line = _line(omitted, bool(summary)) if omitted else ""
        head = _joined(opening, pinned, "\n".join(t for t in (line, summary) if t))
        rest = [*(m for pair in pairs[drop:] for m in pair), Message("user", text)]
        rest[0] = Message("user", _joined(head, rest[0].content))
        return (*system, *rest[:-1], Message("user", _joined(rest[-1].content, closing)))

    least = max(0, len(pairs) - its.recent) if its.policy == "pinned+recent" else 0
    if budget is None:
        return Fitted(shown(least, last, ""), _said(pairs[:least]))
    limit = budget.limit

    def fits(drop: int, text: str = last, summary: str = "", spare: int = 0) -> bool:
        return budget.count(shown(drop, text, summary)) <= limit - spare

    drop, text, cut, summary = least, last, 0, ""
    if not fits(drop):
        spare = limit // _SUMMARY_SHARE if its.policy == "summarize" else 0
        drop = _first(min(least + 1, len(pairs)), len(pairs), lambda n: fits(n, spare=spare))
        if not fits(drop):
            drop = len(pairs)
            text, cut = _shortened(last, limit, lambda t: fits(drop, t))
        if its.policy == "summarize" and drop:
            write = its.summarize or by_rule
            summary = write(_said(pairs[:drop]), lambda s: fits(drop, text, s))
    sent = shown(drop, text, summary)
    return Fitted(sent, _said(pairs[:drop]), summary, cut, budget.count(sent), limit)


# --- summaries --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sentence:
    place: int
    speaker: str
    text: str
    worth: float


def by_rule(messages: Sequence[Message], fits: Fits) -> str:
    """Sentences of the messages, word by word, as many as fit, with who said them.

    First those with a figure or a name, and those in which a student speaks of themselves; then the
    first sentences of messages; questions last. Of equals, the later one.
    """
    found: dict[str, _Sentence] = {}
    for message in messages:
        for number, text in enumerate(_SENTENCE.split(message.content.strip())):
            worth = bool(_FIGURE.search(text)) + bool(_NAME.search(text)) + (number == 0) / 2
            worth += message.role == "user" and bool(_OWN.search(text))
            worth -= 2 * text.endswith("?")
            if text and text not in found:
                found[text] = _Sentence(len(found), _SPEAKERS[message.role], text, worth)
    kept: list[_Sentence] = []
    for sentence in sorted(found.values(), key=lambda s: (-s.worth, -s.place)):
        if fits(_transcript([*kept, sentence])):
            kept.append(sentence)
    return _transcript(kept)


def by_model(model: ChatModel, max_tokens: int = 128) -> Summarize:
    """A summary that a model writes; `by_rule` where it fails or says nothing.

    It costs a call for every prompt that is too long. A summary that does not fit loses its last
    sentences.
    """

    def summarize(messages: Sequence[Message], fits: Fits) -> str:
        said = "\n".join(f"{_SPEAKERS[m.role]}: {m.content}" for m in messages)
        order = (
            "Sum up this conversation in a few short sentences. Keep every name and every figure."
        )
        request = Request((Message("user", f"{order}\n\n{said}"),), max_tokens)
        answer = model.complete([request])[0]
        sentences = _SENTENCE.split(answer.text.strip()) if answer.error is None else []
        while sentences and not fits(" ".join(sentences)):
            sentences.pop()
        return " ".join(sentences) or by_rule(messages, fits)

    return summarize


def _transcript(sentences: Sequence[_Sentence]) -> str:
    lines: list[str] = []
    speaker = ""
    for sentence in sorted(sentences, key=lambda s: s.place):
        if sentence.speaker == speaker:
            lines[-1] += f" {sentence.text}"
        else:
            lines.append(f"{sentence.speaker}: {sentence.text}")
        speaker = sentence.speaker
    return "\n".join(lines)


# --- parts ------------------------------------------------------------------------------------


def _parts(
    messages: Sequence[Message], opening: str
) -> tuple[tuple[Message, ...], list[tuple[Message, Message]], str]:
    """(the system message or none, pairs of user and assistant, the text of the last turn)."""
    rest = list(messages)
    system = (rest.pop(0),) if rest and rest[0].role == "system" else ()
    if opening and (not rest or rest[0].role == "assistant"):
        rest.insert(0, Message("user", ""))
    for number, message in enumerate(rest, 1):
        expected = "user" if number % 2 else "assistant"
        if message.role != expected:
            raise ConfigError(
                f"message {number} of the conversation has role {message.role!r}, expected"
                f" {expected!r}: user and assistant take turns. Join turns of one speaker."
            )
    if len(rest) % 2 == 0:
        raise ConfigError("the conversation must end with the user's message: it is answered next")
    return system, list(zip(rest[:-1:2], rest[1::2], strict=True)), rest[-1].content


def _said(pairs: Sequence[tuple[Message, Message]]) -> tuple[Message, ...]:
    """Their messages; the empty one before a teacher who opens is none."""
    return tuple(message for pair in pairs for message in pair if message.content)


def _line(number: int, summed: bool) -> str:
    some = "1 earlier message is" if number == 1 else f"{number} earlier messages are"
    return f"[{some} {'summed up' if summed else 'left out'}]"


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest number from `low` to `high` for which it holds, `high` if none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _shortened(text: str, limit: int, fits: Fits) -> tuple[str, int]:
    """(the beginning and the end of a text with a mark between them, characters cut out).

    Raises ConfigError where not even a few words fit: then it is not this text that is too long.
    """

    def kept(cut: int) -> str:
        end = (len(text) - cut) // 2
        mark = f" [... {cut} characters are left out ...] "
        return text[: len(text) - cut - end] + mark + text[len(text) - end :]

    least = max(1, len(text) - limit * _MOST_CHARS_A_TOKEN)
    most = len(text) - _LEAST_KEPT
    cut = _first(least, most, lambda n: fits(kept(n)))
    if most < 1 or not fits(kept(cut)):
        raise ConfigError(
            f"the prompt may have {limit} tokens, and the instructions, the problem and the pinned"
            " facts leave no room for the conversation: shorten them, or raise the context"
        )
    return kept(cut), cut
