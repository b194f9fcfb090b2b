"""What OpenAI's fine-tuning takes: the form of supervised and DPO files, their size, their length.

The rules are those of the published specification and guides; the checks of
`check_rows` (roles, weights, tools, special tokens) belong to them and are not repeated here.
Not checked, because nobody outside can: moderation, and what the account may do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from tunelm.data.check_codes import fault, file_fault
from tunelm.data.check_text import excerpt
from tunelm.data.check_tools import NAME
from tunelm.data.records import Fault, Record, Turn, turn_text

Method = Literal["supervised", "dpo"]

MIN_EXAMPLES, GOOD_EXAMPLES = 10, 50
LEARNED_AS_IT_IS = frozenset(
    (
        *("mojibake", "replacement-character", "control-character"),
        *("first-not-user", "two-users", "two-assistants", "system-not-first"),
    )
)
"""Errors of `tunelm data check` that no provider refuses a row for: its text is trained on as it
is, and an order of turns that a model's template does not write is found by rendering it."""
MAX_BYTES = 512 * 1024 * 1024
EXAMPLE_TOKENS = {
    "gpt-4.1-nano": 32_768,
    "gpt-4.1": 65_536,
    "gpt-4o": 65_536,
    "gpt-3.5-turbo": 16_385,
    "gpt-35-turbo": 16_385,
}
"""Most tokens of one example by the beginning of the model's name; the first that fits holds.

From the tables of Azure OpenAI's fine-tuning pages ("training example context length"), read
in 2026; OpenAI's own pages name none for gpt-4.1 and gpt-4o.
"""

_MESSAGE_KEYS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {
        *("role", "content", "name", "weight", "refusal"),
        *("tool_calls", "function_call"),
    },
    "tool": {"role", "content", "tool_call_id"},
    "function": {"role", "content", "name"},
}
_ROW_KEYS = {"tools", "parallel_tool_calls", "functions"}
"""Beside messages; tools that are out of form have a code of their own."""

Found = tuple[str, str]


def check_openai(record: Record, method: Method) -> Iterator[Fault]:
    """What OpenAI refuses in one row, beside the faults every row is checked for."""
    for code, found in _row(record, method):
        yield fault(code, record, found)


def _row(record: Record, method: Method) -> Iterator[Found]:
    expected = "openai-dpo" if method == "dpo" else "messages"
    if record.shape != expected:
        yield "openai-shape", f"the row is {record.shape}, and {method} takes {expected}"
        return
    for key, value in _other_fields(record).items():
        if value is not None and key not in _ROW_KEYS:
            yield "openai-key", f"has the field {excerpt(repr(key))}"
    parallel = record.extra.get("parallel_tool_calls")
    if parallel is not None and (not isinstance(parallel, bool) or not record.tools):
        what = f"is {excerpt(repr(parallel))}" if record.tools else "stands without tools"
        yield "openai-parallel-tool-calls", f"parallel_tool_calls {what}"
    for part, turns in record.parts:
        for number, turn in enumerate(turns, 1):
            if isinstance(turn, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                yield from _message(f"{part}message {number}", turn, method)
        if part and len(turns) > 1:
            yield "openai-dpo-output", f"the {part}output has {len(turns)} messages"


def _other_fields(record: Record) -> Mapping[str, Any]:
    """Fields of the row beside those that the record holds; of a pair, those of its input too."""
    extra = dict(record.extra)
    if record.shape == "openai-dpo":
        given = extra.pop("input", None)
        for key in ("preferred_output", "non_preferred_output"):  # empty: another fault
            extra.pop(key, None)
        extra |= dict(given) if isinstance(given, Mapping) else {}
    return extra


def _message(place: str, turn: Turn, method: Method) -> Iterator[Found]:
    role = str(turn.get("role"))
    allowed = _MESSAGE_KEYS.get(role)
    if allowed is None:
        return
    for key, value in turn.items():
        # weight and tool_calls on the wrong turn have codes of their own
        if value is not None and key not in allowed | {"weight", "tool_calls", "function_call"}:
            yield "openai-message-key", f"{place} ({role}) has the field {excerpt(repr(key))}"
    called = turn.get("name")
    if called is not None and not (isinstance(called, str) and NAME.fullmatch(called)):
        yield "openai-name", f"{place} has the name {excerpt(repr(called))}"
    content = turn.get("content")
    kinds = {"text"}
    if role == "user" and method == "supervised":
        kinds.add("image_url")
    if role == "assistant":
        kinds.add("refusal")
    parts = cast(list[Any], content) if isinstance(content, list) else []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(kind, str) and kind not in kinds:
            yield "openai-content", f"{place} ({role}) has a part of type {excerpt(kind)!r}"


def check_file(path: Path, rows: int) -> Iterator[Fault]:
    """What OpenAI refuses about a file as a whole; `rows` counts its examples."""
    if not _is_jsonl(path):
        yield file_fault("openai-not-jsonl", str(path), "the file is not JSONL.")
    size = path.stat().st_size if path.is_file() else 0
    if size > MAX_BYTES:
        yield file_fault("openai-file-size", str(path), f"the file has {size / 2**20:.0f} MB.")
    if rows < MIN_EXAMPLES:
        yield file_fault("too-few-examples", str(path), f"the file has {rows} examples.")
    elif rows < GOOD_EXAMPLES:
        yield file_fault("few-examples", str(path), f"the file has {rows} examples.")


def _is_jsonl(path: Path) -> bool:
    """Whether the first line that is not blank is a JSON object, or means to be one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    line = start.split(b"\n", 1)[0].strip()
    # a damaged first row is another fault; a JSON file begins with [ or with a bare {
    return not start or (line.startswith(b"{") and line != b"{")


# --- tokens ----------------------------------------------------------------------------------

Counter = Callable[[str], int]


class TokenCount:
    """Tokens of examples as a provider counts them, summed.

    An estimate: 3 tokens a message and 3 a conversation, as OpenAI's cookbook counts; how tools
    are rendered is not published, so a row with tools is counted by its declarations' JSON.
    """

    def __init__(self, model: str | None, count: Counter) -> None:
        self.model = model
        self.limit = example_limit(model)
        self.total = 0
        self._count = count

    def check(self, record: Record) -> Iterator[Fault]:
        """Add the row; a fault where it is longer than the model takes."""
        tokens = self.tokens(record)
        self.total += tokens
        if self.limit is not None and tokens > self.limit:
            found = f"about {tokens:,} tokens, {self.model} takes {self.limit:,}"
            yield fault("openai-over-long", record, found)

    def tokens(self, record: Record) -> int:
        """Of one row; of a preference pair, its prompt with the longer of its answers."""
        answers = (self._turns(record.preferred), self._turns(record.rejected))
        tools = self._count(json.dumps(record.tools, default=str)) if record.tools else 0
        return 3 + self._turns(record.messages) + max(answers) + tools

    def _turns(self, turns: Sequence[Turn]) -> int:
        total = 0
        for turn in turns:
            total += 3 + self._count(turn_text(turn)) + self._count(str(turn.get("role", "")))
            if turn.get("name"):
                total += 1 + self._count(str(turn["name"]))
            for key in ("tool_calls", "function_call"):
                if turn.get(key):
                    total += self._count(json.dumps(turn[key], default=str))
        return total


def example_limit(model: str | None) -> int | None:
    """Most tokens of one example, or None where that is not known.

    >>> example_limit("gpt-4.1-mini-2025-04-14"), example_limit("another")
    (65536, None)
    """
    name = (model or "").removeprefix("ft:")
    return next((n for start, n in EXAMPLE_TOKENS.items() if name.startswith(start)), None)


_VOCABULARIES = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
"""The file name tiktoken caches a vocabulary under, and the SHA-256 it requires of the file."""


def encoding_name(model: str | None) -> str:
    """cl100k_base for gpt-3.5-turbo, else o200k_base (gpt-4o, gpt-4.1 and later)."""
    old = (model or "").removeprefix("ft:").startswith(("gpt-3.5", "gpt-35"))
    return "cl100k_base" if old else "o200k_base"


def openai_counter(model: str | None) -> tuple[Counter | None, str]:
    """(tokens of a text, "") by tiktoken, or (None, why it cannot be known here).

    Never goes to the network: tiktoken would, for a vocabulary that is not on disk or damaged.
    """
    name = encoding_name(model)
    if importlib.util.find_spec("tiktoken") is None:
        return None, "tiktoken is not installed: pip install tiktoken"
    file, digest = _VOCABULARIES[name]
    folder = next((f for f in _vocabulary_folders() if (f / file).is_file()), None)
    if folder is None:
        return None, (
            f"tiktoken has no vocabulary {name} on this disk, and nothing is downloaded here: "
            "set TIKTOKEN_CACHE_DIR to a folder that holds it"
        )
    if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
        return None, f"{folder / file} is not the vocabulary {name}: remove the file"
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    try:
        import tiktoken

        encoding = tiktoken.get_encoding(name)
    except (ImportError, OSError, ValueError) as error:
        return None, f"tiktoken cannot load {name}: {excerpt(str(error), 120)}"
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before
    # as text: a special token's name in the data is reported, not a reason to stop
    return lambda text: len(encoding.encode(text, disallowed_special=())), ""


def _vocabulary_folders() -> Iterator[Path]:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
            return  # tiktoken looks nowhere else then
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    spec = importlib.util.find_spec("litellm")  # ships the vocabularies; not imported
    for place in (spec.submodule_search_locations if spec else None) or ():
        yield Path(place) / "litellm_core_utils" / "tokenizers"
