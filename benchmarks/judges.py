"""Judges learned from people's labels, beside a plain ridge on the same folds.

Nested cross-validation by group (tunelm.judging.train): every choice of the judge is made inside
the training rows. The ridge is TF-IDF of the reply (words and pairs) with 20 hand-made features and
an intercept; it gets the best of three penalties as seen on the test folds, which favours it.
Differences are paired, with the groups drawn for both. "Unseen" leaves the system out of the
training rows as well as the problem.

    python benchmarks/judges.py --data ../shared/data --out build/judges.json

With `--tune-encoder` three judges stand beside each other on the same folds instead: without an
encoder, with it as it was, and with it fine-tuned inside the folds. That is long; fewer `--folds`
shorten it.

    python benchmarks/judges.py --parts composite,uptake --tune-encoder ENCODER --folds 3
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from tunelm.cli.progress import shown
from tunelm.judging.check import Judged, agreement, compare
from tunelm.judging.coding import Coding
from tunelm.judging.encoder import open_encoder
from tunelm.judging.features import feature_table
from tunelm.judging.folds import group_folds, splits
from tunelm.judging.labels import Labelled, read_labels
from tunelm.judging.train import Data, foresee, nested
from tunelm.judging.tuning import Tuner
from tunelm.scoring.statistics import Paired

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
Ways = Mapping[str, Sequence[tuple[Any, Any]]]


def main() -> None:
    """Print every figure as it comes; `--out` writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--parts", default="composite,dimensions,uptake,moves")
    parser.add_argument("--encoder", help="a sentence encoder's folder or hub id")
    parser.add_argument("--tune-encoder", help="one that is fine-tuned: its folder or hub id")
    parser.add_argument("--folds", default=5, type=int, help="of the outer cross-validation")
    parser.add_argument("--parts-of-systems", type=int, help="leave out a part, not one by one")
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
                ways = cuts(rows, systems, args.folds, args.parts_of_systems, seed)
                if args.tune_encoder:
                    found += measure_tuned(rows, target, ways, args.tune_encoder, seed)
                else:
                    found += measure(rows, target, ways, args.encoder, seed)
                if args.out:
                    args.out.write_text(json.dumps(found, indent=2) + "\n")


def cuts(rows: Sequence[Labelled], systems: bool, folds: int, parts: int | None, seed: int) -> Ways:
    """(train, test) of every fold, by what the judge has not seen."""
    fold = group_folds([row.group for row in rows], folds, seed)
    names = [row.system for row in rows]
    if parts:
        names = [f"part {part}" for part in group_folds(names, parts, seed)]
    found = {"problem unseen": list(splits(fold))}
    if systems:
        found["problem and system unseen"] = list(splits(fold, names))
    return found


def measure_tuned(
    rows: Sequence[Labelled], target: str, ways: Ways, encoder: str, seed: int
) -> list[dict[str, Any]]:
    """Judges without an encoder, with one, and with it tuned; what tuning adds, paired."""
    coding, opened = Coding.of(rows, target), open_encoder(encoder)
    plain = Data.of(rows, coding, None)
    near = opened.describe([row.example for row in rows], [row.output for row in rows])
    found: list[dict[str, Any]] = []
    for what, its in ways.items():
        begun = time.monotonic()
        with shown() as progress:
            whole = plain.beside(near)
            made = {"tuned": replace(whole, tuner=Tuner(opened, progress))}
            made |= {"with an encoder": whole, "no encoder": plain}
            foresee(made["tuned"], its)
            judged = {name: nested(data, its, seed) for name, data in made.items()}
        line = described(rows, target, what, seed)
        line |= {"encoder": opened.identity, "cuts": len(its)}
        line["seconds"] = round(time.monotonic() - begun)
        for name, one in judged.items():
            line[name] = agreement(rows, coding, plain.gold, one, seed).to_json()
            if name != "tuned":
                less = compare(rows, coding, plain.gold, judged["tuned"], one, seed)
                line[f"tuned less {name}"] = differences(less)
        show(line, "tuned", ("with an encoder", "no encoder"))
        found.append(line)
    return found


def described(rows: Sequence[Labelled], target: str, what: str, seed: int) -> dict[str, Any]:
    """What a line of figures is about."""
    return {
        "target": target,
        "validation": what,
        "fold_seed": seed,
        "n": len(rows),
        "groups": len({row.group for row in rows}),
    }


def differences(found: Mapping[str, Paired]) -> dict[str, Any]:
    """Paired differences as plain data."""
    return {
        figure: {"diff": its.diff, "low": its.low, "high": its.high, "p": its.p}
        for figure, its in found.items()
    }


def measure(
    rows: Sequence[Labelled], target: str, ways: Ways, encoder: str | None, seed: int
) -> list[dict[str, Any]]:
    """The judge and the ridge by cross-validation, and their paired differences."""
    coding = Coding.of(rows, target)
    data = Data.of(rows, coding, open_encoder(encoder) if encoder else None)
    found: list[dict[str, Any]] = []
    for what, its in ways.items():
        begun = time.monotonic()
        ours = nested(data, its, seed)
        line = described(rows, target, what, seed) | {"encoder": bool(encoder)}
        line["seconds"] = round(time.monotonic() - begun)
        line["judge"] = agreement(rows, coding, data.gold, ours, seed).to_json()
        for level in (True, False) if coding.ordered else (True,):
            peers = [peer(data, its, penalty, level) for penalty in PENALTIES]
            best = max(peers, key=lambda judged: main_figure(rows, data, judged))
            name = "ridge" if level else "ridge without intercept"
            line[name] = agreement(rows, coding, data.gold, best, seed).to_json()
            less = compare(rows, coding, data.gold, ours, best, seed)
            line[f"judge less {name}"] = differences(less)
        show(line, "judge", ("ridge", "ridge without intercept"))
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


def show(line: dict[str, Any], ours: str, others: Sequence[str]) -> None:
    """A few lines for people."""
    print(f"{line['target']}, {line['validation']}, n={line['n']}, groups={line['groups']},"
          f" fold seed {line['fold_seed']}, {line['seconds']} s")  # fmt: skip
    for who in (ours, *others):
        for name, its in line.get(who, {}).items():
            print(f"  {who:24} {name:18} {its['value']:.3f} [{its['low']:.3f}, {its['high']:.3f}]")
        for name, its in line.get(f"{ours} less {who}", {}).items():
            print(f"    {ours} less it          {name:18} {its['diff']:+.3f}"
                  f" [{its['low']:+.3f}, {its['high']:+.3f}] p={its['p']:.4f}")  # fmt: skip
    if line["target"] in PUBLISHED:
        print("  published macro-F1 and kappa: {} {}".format(*PUBLISHED[line["target"]]))
    print(flush=True)


if __name__ == "__main__":
    main()
