"""Conversations as files: for people, for programs, and as rows to train on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tunelm.chat.records import Conversation, Turn
from tunelm.chat.turns import dialogue_of, messages_of
from tunelm.errors import ConfigError
from tunelm.tutor.dialogues import TEACHER
from tunelm.tutor.dialogues import Turn as DialogueTurn
from tunelm.tutor.strategies import Strategy

if TYPE_CHECKING:
    from tunelm.chat.store import ChatStore

FORMS = ("json", "jsonl", "markdown")
_THUMBS = {1: "thumbs up", -1: "thumbs down"}


def exported(store: ChatStore, id: str | None, form: str) -> str:
    """A conversation, or all of them (None), in one of `FORMS`.

    `json` is an object, or a list of all; `jsonl` a line a conversation; both hold everything that
    is kept, the exact prompts too. Raises ConfigError for another form, or an unknown id.
    """
    if form not in FORMS:
        raise ConfigError(f"no form {form!r}, expected one of {', '.join(FORMS)}")
    ids = store.all_ids() if id is None else [id]
    if form == "markdown":
        return "\n\n".join(_markdown(store.conversation(one)) for one in ids) + "\n"
    if form == "jsonl":
        return "".join(json.dumps(_whole(store, one), ensure_ascii=False) + "\n" for one in ids)
    found = [_whole(store, one) for one in ids]
    data = found if id is None else found[0]
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _whole(store: ChatStore, id: str) -> dict[str, Any]:
    kept = store.conversation(id)
    data = dataclasses.asdict(kept)
    del data["replaced"]
    turns = sorted((*kept.turns, *kept.replaced), key=lambda turn: turn.at)
    data["turns"] = [turn.to_json() | {"sent": _sent(store, turn)} for turn in turns]
    data["pairs"] = [
        {
            "id": pair.id,
            "asked": pair.asked,
            "a": pair.a.id,
            "b": pair.b.id,
            "a_is_model": pair.a_is_model,
            "choice": pair.choice,
        }
        for pair in store.pairs(id)
    ]
    return data


def _sent(store: ChatStore, turn: Turn) -> list[dict[str, str]] | None:
    sent = store.sent(turn.id) if turn.role == "assistant" else None
    return None if sent is None else [dataclasses.asdict(message) for message in sent]


def _markdown(kept: Conversation) -> str:
    who = {"user": "Student", "assistant": "Teacher"} if kept.tutor else {
        "user": "You", "assistant": "Model"
    }  # fmt: skip
    versus = f" beside {kept.other}" if kept.other else ""
    parts = [
        f"# {_line(kept.title) or 'Untitled'}",
        f"{_time(kept.started)}, with {kept.model}{versus}",
    ]
    if kept.problem:
        parts += ["**Problem**", _quoted(kept.problem.text)]
    for turn in kept.turns:
        more = [turn.strategy, None if turn.complete else "cut off", _THUMBS.get(turn.rating)]
        said = "; ".join(part for part in more if part)
        parts += [f"**{who[turn.role]}**" + (f" ({said})" if said else ""), _quoted(turn.text)]
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    """As a quotation, so that what is said cannot pass for a heading of ours."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines() or [""])


def _line(text: str) -> str:
    return " ".join(text.split())


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "minutes")


# --- rows to train on -------------------------------------------------------------------------


def training_rows(store: ChatStore) -> Iterator[dict[str, Any]]:
    """A chat row for every answer that was liked, in the form of docs/formats.md.

    An answer counts as liked with thumbs up; also where it took the place of one with thumbs down
    and has none itself, and where it won a blind pair. What it was preferred to stands in
    `rejected`. A row is the conversation up to the answer, and trains on that alone; a tutor's has
    `strategies`, the problem and its solutions beside it, as `read_dialogues` takes them. Rows of
    one problem, of a plain model those of one conversation, have one group.
    """
    for id in store.all_ids():
        kept = store.conversation(id)
        lost = _lost(store, id)
        for turn in sorted((*kept.turns, *kept.replaced), key=lambda t: t.at):
            if turn.role != "assistant" or not turn.complete or not turn.text.strip():
                continue
            others = [t for t in (*kept.turns, *kept.replaced) if t.answers == turn.answers]
            worse = [
                other.text
                for other in others
                if other.id != turn.id and other.text.strip() and other.text != turn.text
                and ((other.rating < 0 and not turn.replaced) or other.id in lost.get(turn.id, ()))
            ]  # fmt: skip
            if turn.rating > 0 or (turn.rating == 0 and worse):
                yield _row(kept, turn, worse)


def _lost(store: ChatStore, id: str) -> Mapping[str, set[str]]:
    """The winner of each pair -> what it was preferred to."""
    found: dict[str, set[str]] = {}
    for pair in store.pairs(id):
        if pair.choice in ("a", "b"):
            won, lost = (pair.a, pair.b) if pair.choice == "a" else (pair.b, pair.a)
            found.setdefault(won.id, set()).add(lost.id)
    return found


def _row(kept: Conversation, turn: Turn, worse: Sequence[str]) -> dict[str, Any]:
    before = [t for t in kept.turns if t.at < turn.at and t.answers != turn.answers]
    end = next((i for i, t in enumerate(before) if t.id == turn.answers), len(before) - 1)
    before = before[: end + 1]
    if kept.tutor and kept.problem is not None:
        strategy = Strategy(turn.strategy) if turn.strategy else None
        last = DialogueTurn(TEACHER, turn.text.strip(), strategy)
        row = dialogue_of(kept.problem, before).plus(last).to_json()
    else:
        system = str(kept.settings.get("instructions") or "")
        head = [{"role": "system", "content": system}] if system else []
        messages = [dataclasses.asdict(message) for message in messages_of(before)]
        said = {"role": "assistant", "content": turn.text}
        row = {"messages": [*head, *messages, said], "group": kept.id}
    return row | ({"rejected": list(worse)} if worse else {})
