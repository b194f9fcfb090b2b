"""What is read off a reply and the dialogue before it: about 140 numbers, no model needed.

They say what the reply does (asks, praises, denies, tells), which numbers it names and where those
come from (the problem, the student's work, the known solution, nowhere), what it takes up of the
student's words, and where in the reply that happens. Where the solution or the problem is not
known, features that need it are zero and a feature of their own says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tunelm.judging.lexicon import CUES, STOP
from tunelm.tutor.teaching import without_note
from tunelm.types import Example

VERSION = 1
"""Counts up when any feature changes: a judge made by another version is refused."""

Matrix = NDArray[np.float64]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
_SUM = re.compile(
    r"(\d[\d,]*(?:\.\d+)?)\s*([-+*/x×÷])\s*\$?(\d[\d,]*(?:\.\d+)?)\s*=\s*\$?(\d[\d,]*(?:\.\d+)?)"
)
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+|\n|$)")
_CLAUSE = re.compile(r"[.!?\n;,:]|\s[-–—]\s|\bbut\b|\bhowever\b")


@dataclass(frozen=True)
class Scene:
    """A reply and what stands before it, taken apart."""

    reply: str
    last: str
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    problem: str
    solution: str


def scene_of(example: Example, output: str) -> Scene:
    """Take an example apart: a teacher's note at its end is cut off, as is the problem's text."""
    problem = str(example.metadata.get("problem") or "")
    solutions: Sequence[str] = example.metadata.get("solutions") or example.answers
    said: list[tuple[str, str]] = []
    for message in example.messages:
        if message.role in ("user", "assistant"):
            text = without_note(message.content.replace("’", "'"))
            if problem and text.startswith(problem):
                text = text[len(problem) :].strip()
            said.append((message.role, text))
    student = tuple(text for role, text in said if role == "user" and text)
    teacher = tuple(text for role, text in said if role == "assistant")
    last = student[-1] if student else ""
    return Scene(
        output.replace("’", "'").strip(), last, student, teacher, problem, "\n".join(solutions)
    )


def words(text: str) -> list[str]:
    """Words in lower case, without figures."""
    return _WORD.findall(text.lower().replace("’", "'"))


def numbers(text: str) -> list[str]:
    """The numbers of a text in one form.

    >>> numbers("$1,000.50 and 20/4")
    ['1000.5', '20', '4']
    """
    return [f"{float(found.replace(',', '')):.10g}" for found in _NUMBER.findall(text)]


def slips(text: str) -> list[str]:
    """Results of sums in the text that are wrong: "6 x 7 = 48" gives 48."""
    found: list[str] = []
    for left, sign, right, result in _SUM.findall(text):
        a, b, c = (float(part.replace(",", "")) for part in (left, right, result))
        if sign in "/÷" and not b:
            continue
        true = {"+": a + b, "-": a - b}.get(sign, a * b if sign in "*x×" else a / b if b else 0.0)
        if abs(true - c) > 0.01 * max(1.0, abs(true)):
            found.append(f"{c:.10g}")
    return found


def describe(example: Example, output: str) -> Mapping[str, float]:
    """All features of one reply, by name."""
    scene = scene_of(example, output)
    return {
        **_shape(scene),
        **_cues(scene.reply),
        **_places(scene.reply),
        **_figures(scene),
        **_overlaps(scene),
        **_uptake(scene),
        **_moment(scene),
    }


def feature_table(
    examples: Sequence[Example], outputs: Sequence[str]
) -> tuple[tuple[str, ...], Matrix]:
    """The names of the features and their values, (n, d)."""
    rows = [describe(example, output) for example, output in zip(examples, outputs, strict=True)]
    names = tuple(rows[0]) if rows else ()
    return names, np.array([list(row.values()) for row in rows], dtype=np.float64)


def _shape(scene: Scene) -> dict[str, float]:
    """How long the reply is, and of what it is made."""
    reply = scene.reply
    said, sentences = words(reply), sentences_of(reply)
    count = len(said)
    asked = [s for s in sentences if s.rstrip("\"'*) ").endswith("?")]
    return {
        "words": math.log1p(count),
        "words_over_last": math.log1p(count) - math.log1p(len(words(scene.last))),
        "sentences": math.log1p(len(sentences)),
        "words_a_sentence": math.log1p(count / max(1, len(sentences))),
        "word_length": sum(map(len, said)) / max(1, count),
        "distinct": len(set(said)) / max(1, count),
        "asks": float(bool(asked)),
        "questions": math.log1p(len(asked)),
        "asks_last": float(bool(sentences) and sentences[-1] in asked),
        "asks_first": float(bool(sentences) and sentences[0] in asked),
        "asks_only": float(bool(sentences) and len(asked) == len(sentences)),
        "question_words": math.log1p(len(words(asked[-1]))) if asked else 0.0,
        "exclaims": math.log1p(reply.count("!")),
        "lines": math.log1p(reply.count("\n")),
        "emphasis": float("*" in reply),
        "quotes": math.log1p(reply.count('"') // 2),
        "commas": math.log1p(reply.count(",")),
        "capital": float(reply[:1].isupper()),
        "ended": float(reply[-1:] in ".!?"),
        "cut": float(reply.endswith("...")),
    }


def _cues(reply: str) -> dict[str, float]:
    """How often each cue is found."""
    text = reply.lower()
    return {f"cue_{name}": math.log1p(len(cue.findall(text))) for name, cue in CUES.items()}


_OPENING = ("praise", "agrees", "almost", "denies", "contrast", "recall", "together", "mistake",
            "how", "what", "recheck", "you", "invites", "general", "tells")  # fmt: skip
_ENDING = ("invites", "what", "how", "recheck", "consider", "together", "moveson", "tells",
           "praise", "should", "recall", "you")  # fmt: skip


def _places(reply: str) -> dict[str, float]:
    """Cues where they count: in the first clause, in the last sentence, before and after "but"."""
    text = reply.lower()
    opening = next((part for part in _CLAUSE.split(text) if part.strip()), "")
    sentences = sentences_of(text)
    ending = sentences[-1] if sentences else ""
    found = {f"opens_{n}": float(bool(CUES[n].search(opening))) for n in _OPENING}
    found |= {f"ends_{n}": float(bool(CUES[n].search(ending))) for n in _ENDING}
    praised = bool(CUES["praise"].search(text) or CUES["agrees"].search(text))
    turned = bool(CUES["contrast"].search(text) or CUES["almost"].search(text))
    names_it = bool(CUES["mistake"].search(text) or CUES["denies"].search(text))
    sent_back = bool(CUES["recheck"].search(text) or CUES["recall"].search(text))
    found["praise_alone"] = float(praised and not (turned or names_it or sent_back or "?" in text))
    found["praise_but"] = float(praised and turned)
    found["points_out"] = float(turned or names_it)
    found["points_and_asks"] = float((turned or names_it) and "?" in text)
    found["sends_back"] = float(sent_back)
    found["neither"] = float(not (turned or names_it or sent_back or "?" in text))
    return found


def _figures(scene: Scene) -> dict[str, float]:
    """The numbers of the reply by where they come from."""
    said = numbers(scene.reply)
    named = set(said)
    given = set(numbers(scene.problem))
    work = set(numbers(" ".join(scene.student)))
    taught = set(numbers(" ".join(scene.teacher)))
    solved = numbers(scene.solution)
    path = set(solved)
    goal = solved[-1] if solved else None
    lasts = numbers(scene.last)
    answer = lasts[-1] if lasts else None
    wrong = work - path - given if solved else work - given
    fresh = path - work - given - taught
    before = given | work | taught
    share = 1.0 / max(1, len(named))
    false = set(slips(scene.reply))
    return {
        "numbers": math.log1p(len(said)),
        "numbers_distinct": math.log1p(len(named)),
        "of_problem": len(named & given) * share,
        "of_work": len(named & work) * share,
        "of_last": len(named & set(lasts)) * share,
        "of_wrong": math.log1p(len(named & wrong)),
        "of_path_fresh": math.log1p(len(named & fresh)),
        "of_path": len(named & path) * share,
        "of_nowhere": math.log1p(len(named - before - path)),
        "new": math.log1p(len(named - before)),
        "new_share": len(named - before) * share,
        "says_goal": float(goal is not None and goal in named),
        "reveals_goal": float(goal is not None and goal in named - before),
        "says_answer": float(answer is not None and answer in named),
        "equations": math.log1p(scene.reply.count("=")),
        "equation_new": float("=" in scene.reply and bool(named - before)),
        "operators": math.log1p(len(re.findall(r"\d\s*[-+*/x×÷]\s*\$?\d", scene.reply))),
        "slips": float(bool(false)),
        "student_slips": float(bool(slips(" ".join(scene.student)))),
        "names_slip": float(bool(named & set(slips(" ".join(scene.student))))),
        "student_at_goal": float(goal is not None and goal in lasts),
        "student_has_goal": float(goal is not None and goal in work),
    }


def _overlaps(scene: Scene) -> dict[str, float]:
    """What the reply takes up of what was said, in words that carry meaning."""
    own = _content(scene.reply)
    last, work = _content(scene.last), _content(" ".join(scene.student))
    problem, solution = _content(scene.problem), _content(scene.solution)
    before = _content(scene.teacher[-1]) if scene.teacher else set[str]()
    taught = _content(" ".join(scene.teacher))
    all_before = last | work | problem | before | taught
    size = max(1, len(own))
    return {
        "in_last": len(own & last) / size,
        "in_work": len(own & work) / size,
        "in_problem": len(own & problem) / size,
        "in_solution": len(own & solution) / size,
        "in_solution_only": len(own & solution - all_before) / size,
        "in_before": len(own & before) / size,
        "in_any": len(own & all_before) / size,
        "taken_up": math.log1p(len(own & all_before)),
        "takes_last": len(own & last) / max(1, len(last)),
        "repeats_teacher": len(own & before) / max(1, len(own | before)),
        "repeats_student": len(own & last) / max(1, len(own | last)),
        "strange": math.log1p(len(own - all_before)),
        "echo": _longest_run(words(scene.last), words(scene.reply)),
        "echo_teacher": _longest_run(words(" ".join(scene.teacher)), words(scene.reply)),
    }


def _uptake(scene: Scene) -> dict[str, float]:
    """Whether the reply goes on from the student's words, and with which of them."""
    last, reply = words(scene.last), words(scene.reply)
    meant, own = set(last) - STOP, set(reply) - STOP
    shared = set(last) & set(reply)
    asked = [s for s in sentences_of(scene.reply) if s.endswith("?")]
    gap = abs(len(last) - len(reply))
    return {
        "shared": math.log1p(len(meant & own)),
        "shared_of_reply": len(shared) / max(1, len(set(reply))),
        "shared_of_last": len(shared) / max(1, len(set(last))),
        "shared_pairs": math.log1p(len(set(pairwise(last)) & set(pairwise(reply)))),
        "shared_early": float(bool(set(reply[:8]) & meant)),
        "shared_end": float(bool(last) and last[-1] in reply),
        "asks_of_it": float(bool(asked) and bool(set(words(asked[0])) & meant)),
        "meant": math.log1p(len(meant)),
        "own": math.log1p(len(own)),
        "last_short": float(len(last) < 4),
        "last_broken": float(scene.last[-1:] in ("-", "–", "—") or "[" in scene.last),
        "gap": math.log1p(gap),
    }


def _moment(scene: Scene) -> dict[str, float]:
    """Where the dialogue stands: the same for every reply to one turn."""
    last = scene.last.lower()
    return {
        "turns": math.log1p(len(scene.student)),
        "last_words": math.log1p(len(words(last))),
        "last_asks": float("?" in last),
        "last_numbers": math.log1p(len(numbers(last))),
        "last_denies": float(bool(CUES["denies"].search(last))),
        "last_agrees": float(bool(CUES["agrees"].search(last))),
        "last_unsure": float(bool(re.search(r"\b(not sure|don't know|idk|help|stuck)\b", last))),
        "last_sorry": float(bool(re.search(r"\b(sorry|oh|i see|mistake|oops)\b", last))),
        "solution_known": float(bool(scene.solution)),
        "problem_known": float(bool(scene.problem)),
    }


def sentences_of(text: str) -> list[str]:
    """Sentences, with the sign that ends them; a point inside a number ends none."""
    whole = re.sub(r"(?<=\d)\.(?=\d)", "․", text)
    return [found.strip() for found in _SENTENCE.findall(whole) if found.strip()]


def _content(text: str) -> set[str]:
    """The words that carry meaning, cut to six letters: endings matter little."""
    return {word[:6] for word in words(text) if word not in STOP and len(word) > 2}


def _longest_run(said: Sequence[str], reply: Sequence[str]) -> float:
    """Length of the longest run of words that stands in both, as a share of the reply."""
    best = 0
    starts = {word: [i for i, w in enumerate(said) if w == word] for word in set(reply)}
    for at, word in enumerate(reply):
        for start in starts[word]:
            size = 1
            while (
                at + size < len(reply)
                and start + size < len(said)
                and said[start + size] == reply[at + size]
            ):
                size += 1
            best = max(best, size)
    return best / max(1, len(reply))
