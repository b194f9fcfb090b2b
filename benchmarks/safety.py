"""How often the tutor's safety rules find what they should, and how often what they should not.

Recall is over hand-written messages of pupils (tests/safety_messages.jsonl), by set: `first` was
written before the rules, by the same hand; `fresh` and `last` each afterwards, in other words, and
what they showed went into the rules. So all three are known to the rules by now: what unseen words
get is what a set got when it was new (docs/tutor.md).

False alarms are counted over real lessons: what students say and problems, by the rule for pupils;
sentences of teachers and of textbooks, by the rule for the model's words. Files that are not there
are left out, and said.

    python benchmarks/safety.py --data ../shared/data      # about a minute on one core
    python benchmarks/safety.py --show 5                   # with the first false alarms of each
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

import tunelm
from tunelm.tutor.dialogues import STUDENT, TEACHER, read_dialogues
from tunelm.tutor.imports import import_dialogues
from tunelm.tutor.safety import find, is_unfit

ROOT = Path(__file__).parents[1]
MESSAGES = ROOT / "tests" / "safety_messages.jsonl"
BUNDLED = ("edu_dialogues.jsonl", "tutor_dialogues.jsonl")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def main() -> None:
    """Print two tables; `--out` also writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=ROOT.parent / "shared" / "data", type=Path)
    parser.add_argument("--show", default=0, type=int, help="false alarms to print of each source")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {"messages": messages(), "lessons": lessons(args.data, args.show)}
    print("| set | kind | right kind | any kind |\n|---|---|---|---|")
    for row in found["messages"]:
        print(f"| {row['set']} | {row['kind']} | {share(row['right'], row['n'])} |"
              f" {share(row['any'], row['n'])} |")  # fmt: skip
    print("\n| lessons | units | flagged | rate, 95% interval |\n|---|---|---|---|")
    for row in found["lessons"]:
        flagged = "not there" if row["n"] is None else f"{row['flagged']:,}"
        rate = "" if not row["n"] else share(row["flagged"], row["n"])
        print(f"| {row['source']} | {row['n'] or 0:,} | {flagged} | {rate} |")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")


def messages() -> list[dict[str, Any]]:
    """By set and kind: n, how many got the right kind, and how many any kind at all."""
    counts: dict[tuple[str, str], list[int]] = {}
    for line in MESSAGES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        got = find(row["text"])
        name = got.flag.name.lower() if got else ""
        its = counts.setdefault((row["set"], row["kind"] or "harmless"), [0, 0, 0])
        its[0] += 1
        its[1] += name == row["kind"]
        its[2] += bool(name)
    return [
        {"set": part, "kind": kind, "n": n, "right": right, "any": some}
        for (part, kind), (n, right, some) in counts.items()
    ]


def lessons(data: Path, show: int) -> list[dict[str, Any]]:
    """By source: n, and how many were flagged; n is None where the file is not there."""
    tasks = Path(tunelm.__file__).parent / "tasks"
    own = [d for name in BUNDLED for d in read_dialogues(tasks / name)]
    taught = _sentences(t.text for d in own for t in d.by(TEACHER))
    rows = [
        _count("bundled: students", (t.text for d in own for t in d.by(STUDENT)), 0, show),
        _count("bundled: problems", {d.problem.text for d in own}, 0, show),
        _count("bundled: teachers", taught, 1, show),
    ]
    for name in ("mathdial", "bridge", "cima"):
        path = data / name / f"{name}.jsonl"
        if not path.is_file():
            rows.append({"source": name, "n": None, "flagged": None})
            continue
        dialogues = import_dialogues(path, name)
        said = (t.text for d in dialogues for t in d.by(STUDENT))
        taught = (t.text for d in dialogues for t in d.by(TEACHER))
        rows += [
            _count(f"{name}: students", said, 0, show),
            _count(f"{name}: problems", {d.problem.text for d in dialogues}, 0, show),
            _count(f"{name}: teachers", _sentences(taught), 1, show),
        ]
    squad = [json.loads(line) for line in _lines(data / "squad2" / "squad2.jsonl")]
    book = _lines(data / "openstax_python" / "book.txt")
    clinc = [json.loads(line)["text"] for line in _lines(data / "clinc150" / "clinc150.jsonl")]
    medical = [json.loads(line)["question"] for line in _lines(data / "medquad" / "medquad.jsonl")]
    passages = _sentences({row["context"] for row in squad})
    return [
        *rows,
        _count("squad2: questions", (row["question"] for row in squad), 0, show),
        _count("squad2: passages", passages, 1, show),
        _count("openstax_python: text", _sentences(book), 1, show),
        _count("clinc150: queries", clinc, 0, show),
        _count("medquad: questions", medical, 0, show),
    ]


def _count(source: str, texts: Iterable[str], rule: int, show: int) -> dict[str, Any]:
    """`rule`: 0 for a pupil's words, 1 for a teacher's."""
    found: Callable[[str], Any] = is_unfit if rule else find
    units = list(texts)
    flagged = [text for text in units if found(text)]
    for text in flagged[:show]:
        print(f"  {source}: {find(text)} {text[:160]!r}")
    return {"source": source, "n": len(units) or None, "flagged": len(flagged)}


def _sentences(texts: Iterable[str]) -> list[str]:
    return [s for text in texts for s in _SENTENCE.split(text) if s.strip()]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def share(part: int, whole: int) -> str:
    """A count of a count, with its Wilson interval in percent."""
    low, high = binomtest(part, whole).proportion_ci(method="wilson")
    return f"{part:,} of {whole:,}: {part / whole:.2%} [{low:.2%}, {high:.2%}]"


if __name__ == "__main__":
    main()
