"""Judges learned from people's labels, beside a plain ridge on the same folds.

Nested cross-validation by group (tunelm.judging.train): every choice of the judge is made inside
the training rows. The ridge is TF-IDF of the reply (words and pairs) with 20 hand-made features and
an intercept; it gets the best of three penalties as seen on the test folds, which favours it.
Differences are paired, with the groups drawn for both. "Unseen" leaves the system out of the
training rows as well as the problem.

    python benchmarks/judges.py --data ../shared/data --out build/judges.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from tunelm.judging.check import Judged, agreement, compare
from tunelm.judging.coding import Coding
from tunelm.judging.encoder import open_encoder
from tunelm.judging.features import feature_table
from tunelm.judging.folds import group_folds, splits
from tunelm.judging.labels import Labelled, read_labels
from tunelm.judging.train import Data, nested

PUBLISHED = {
    "mistake_identification": (0.637, 0.52),
    "mistake_location": (0.524, 0.36),
    "providing_guidance": (0.503, 0.26),
    "actionability": (0.580, 0.46),
    "revealing_of_the_answer": (0.848, 0.70),
    "tutor_tone=Encouraging": (0.818, 0.64),
    "coherence": (0.526, 0.34),
    "humanlikeness": (0.596, 0.41),
}
"""Macro-F1 and kappa of TF-IDF with hand-made features, logistic, by problem: on the published
files, which hold about half as many rows again."""
COMPOSITE = "+".join(list(PUBLISHED)[:4])
HAND = [
    *("words", "sentences", "questions", "asks_last", "exclaims"),
    *("numbers", "of_work", "of_path", "says_goal", "reveals_goal", "equations"),
    *("in_last", "in_any", "repeats_teacher"),
    *("cue_praise", "cue_agrees", "cue_mistake", "cue_contrast", "cue_recheck", "cue_you"),
]
HAND_UPTAKE = [
    *("words", "sentences", "questions", "asks_last", "exclaims"),
    *("last_words", "words_over_last", "numbers", "of_last"),
    *("in_last", "takes_last", "taken_up", "repeats_student", "strange", "echo"),
    *("cue_praise", "cue_agrees", "cue_what", "cue_why", "cue_you"),
]
PENALTIES = (1.0, 3.0, 10.0)


def main() -> None:
    """Print every figure as it comes; `--out` writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--parts", default="composite,dimensions,uptake,moves")
    parser.add_argument("--encoder", help="a sentence encoder's folder or hub id")
    parser.add_argument("--seeds", default="0", help="of the folds, with commas")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    mrbench = args.data / "mrbench" / "mrbench.jsonl"
    jobs: dict[str, list[tuple[Path, str, str, bool]]] = {
        "composite": [(mrbench, COMPOSITE, "mrbench", True)],
        "dimensions": [(mrbench, name, "mrbench", False) for name in PUBLISHED],
        "uptake": [(args.data / "uptake" / "uptake.jsonl", "uptake", "uptake", False)],
        "moves": [(args.data / "mathdial" / "mathdial.jsonl", "move", "mathdial", False)],
    }
    found: list[dict[str, Any]] = []
    for part in args.parts.split(","):
        for path, target, source, systems in jobs[part]:
            rows = read_labels(path, target, source)
            if "=" in target:  # two classes, so that there are F1 and kappa
                rows = [replace(row, label="Yes" if row.label else "No") for row in rows]
            for seed in map(int, args.seeds.split(",")):
                found += measure(rows, target, systems, args.encoder, seed)
                if args.out:
                    args.out.write_text(json.dumps(found, indent=2) + "\n")


def measure(
    rows: Sequence[Labelled], target: str, systems: bool, encoder: str | None, seed: int
) -> list[dict[str, Any]]:
    """The judge and the ridge by cross-validation, and their paired differences."""
    coding = Coding.of(rows, target)
    data = Data.of(rows, coding, open_encoder(encoder) if encoder else None)
    folds = group_folds(data.groups, 5, seed)
    names = [row.system for row in rows] if systems else None
    found: list[dict[str, Any]] = []
    for what, by in {"problem unseen": None, "problem and system unseen": names}.items():
        if what != "problem unseen" and by is None:
            continue
        begun = time.monotonic()
        ours = nested(data, splits(folds, by), seed)
        seconds = time.monotonic() - begun
        line: dict[str, Any] = {
            "target": target,
            "validation": what,
            "fold_seed": seed,
            "encoder": bool(encoder),
            "n": len(rows),
            "groups": len(set(data.groups)),
            "judge": agreement(rows, coding, data.gold, ours, seed).to_json(),
            "seconds": round(seconds),
        }
        for level in (True, False) if coding.ordered else (True,):
            peers = [peer(data, list(splits(folds, by)), penalty, level) for penalty in PENALTIES]
            best = max(peers, key=lambda judged: main_figure(rows, data, judged))
            name = "ridge" if level else "ridge without intercept"
            line[name] = agreement(rows, coding, data.gold, best, seed).to_json()
            differences = compare(rows, coding, data.gold, ours, best, seed)
            line[f"judge less {name}"] = {
                figure: {"diff": its.diff, "low": its.low, "high": its.high, "p": its.p}
                for figure, its in differences.items()
            }
        show(line)
        found.append(line)
    return found


def peer(data: Data, cuts: Iterable[tuple[Any, Any]], penalty: float, level: bool) -> Judged:
    """The plain ridge; a balanced logistic regression for the labels of classes."""
    names, _ = feature_table([data.rows[0].example], [data.rows[0].output])
    chosen = HAND if data.rows[0].example.metadata else HAND_UPTAKE  # uptake names no problem
    hand = data.table[:, [names.index(name) for name in chosen]]
    texts = np.array([row.output for row in data.rows], dtype=object)
    scores = np.full(len(texts), np.nan)
    labels: list[str | None] = [None] * len(texts)
    from scipy.sparse import csr_matrix, hstack

    for train, test in cuts:
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        scale = StandardScaler().fit(hand[train])
        inputs = [
            hstack([counted, csr_matrix(scale.transform(hand[part]) * 0.3)]).tocsr()
            for counted, part in (
                (words.fit_transform(texts[train]), train),
                (words.transform(texts[test]), test),
            )
        ]
        if data.coding.ordered:
            model = Ridge(alpha=penalty).fit(inputs[0], data.gold[train])
            scores[test] = model.predict(inputs[1]) - (0 if level else model.intercept_)
        if data.coding.labels:
            classes = data.target.argmax(axis=1)
            chooser = LogisticRegression(C=3 / penalty, class_weight="balanced", max_iter=2000)
            for place, label in zip(
                test, chooser.fit(inputs[0], classes[train]).predict(inputs[1]), strict=True
            ):
                labels[place] = data.coding.labels[label]
    return Judged(scores, scores, labels)


def main_figure(rows: Sequence[Labelled], data: Data, judged: Judged) -> float:
    """What the best penalty is chosen by."""
    figures = agreement(rows, data.coding, data.gold, judged).figures
    for name in ("pairwise", "spearman", "macro_f1"):
        if name in figures and figures[name].n:
            return figures[name].value or 0.0
    return 0.0


def show(line: dict[str, Any]) -> None:
    """A few lines for people."""
    print(f"{line['target']}, {line['validation']}, n={line['n']}, groups={line['groups']},"
          f" fold seed {line['fold_seed']}, {line['seconds']} s")  # fmt: skip
    for who in ("judge", "ridge", "ridge without intercept"):
        for name, its in line.get(who, {}).items():
            print(f"  {who:24} {name:18} {its['value']:.3f} [{its['low']:.3f}, {its['high']:.3f}]")
        for name, its in line.get(f"judge less {who}", {}).items():
            print(f"    judge less it          {name:18} {its['diff']:+.3f}"
                  f" [{its['low']:+.3f}, {its['high']:+.3f}] p={its['p']:.4f}")  # fmt: skip
    if line["target"] in PUBLISHED:
        print("  published macro-F1 and kappa: {} {}".format(*PUBLISHED[line["target"]]))
    print(flush=True)


if __name__ == "__main__":
    main()
