"""People's ratings: a blind sheet out, hostile and honest files of ratings in, by the command."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.errors import TunelmError
from tunelm.report.review.agreement import alpha, coincidences, kappa
from tunelm.report.review.sheet import defused, restored

from .browser import chromium, contrasts
from .conftest import make_task
from .test_report import RunMaker, gold, share, wordy, write, write_lines, wrong

SHOTS = os.environ.get("TUNELM_SHOTS")
"""A folder for pictures of the page; none are taken without it."""
EVIL = "=cmd|'/c calc'!A1 <script>window.hit=1</script>\n@SUM(1;2),\"x\"\x00\u202e"
MODEL = "tunelm-nano"

Row = dict[str, str]
Mark = Callable[[Row], dict[str, str]]


def call(*args: object) -> str:
    """What the command prints; raises what it raises."""
    found = CliRunner().invoke(cli, ["review", *map(str, args)], catch_exceptions=False)
    if found.exit_code:
        raise AssertionError(found.output)
    return found.output


def evil(part: str, row: int) -> str:
    return EVIL if row % 4 == 0 else wordy(part, row)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three routes over 24 test rows in 12 groups; two of them often say the same."""
    maker = RunMaker(tmp_path / "run", rows=24)
    maker.route("constant", wrong)
    maker.route("baseline", evil)
    maker.route("lora-r8", share(gold, evil, 3, dev=2, test=2), kind="local")
    maker.route("mipro", share(gold, wrong, 2, dev=1, test=1), kind="prompt")
    return maker.done()


def sheet_rows(folder: Path) -> list[Row]:
    """The rows of the sheet as a rater sees them."""
    text = (folder / "sheet.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    names = [re.sub(r" \(.*\)", "", name) for name in rows[0]]
    return [dict(zip(names, map(restored, row), strict=True)) for row in rows[1:]]


def key_of(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Whose answers they are, by item and letter."""
    key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    return {
        (str(i["number"]), a["letter"]): a["routes"] for i in key["items"] for a in i["answers"]
    }


def predictions(run: Path, route: str) -> list[dict[str, Any]]:
    """What a route answered, dev rows and test rows."""
    file = run / f"routes/{route}/seed-0/predictions.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def rate(folder: Path, path: Path, mark: Mark, **how: Any) -> Path:
    """A rater's file: the sheet with marks, as a spreadsheet would save it."""
    rows = [row | mark(row) for row in sheet_rows(folder)]
    return save(path, rows, **how)


def save(path: Path, rows: Sequence[Row], encoding: str = "utf-8-sig", **dialect: Any) -> Path:
    text = io.StringIO(newline="")
    writer = csv.writer(text, **{"lineterminator": "\r\n", **dialect})
    writer.writerow(rows[0])
    writer.writerows([defused(cell) for cell in row.values()] for row in rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def honest(row: Row) -> dict[str, str]:
    """What somebody says who knows what is right."""
    right = row["answer"] == row["reference"]
    return {
        "right": "yes" if right else "no",
        "complete": "Yes" if right else "partly",
        "clear": "y" if right or row["letter"] == "A" else "n",
    }


def best_of(folder: Path, like: Callable[[Row], bool]) -> dict[str, str]:
    """The best letters by item: all whose row is liked, or all of them."""
    found: dict[str, list[Row]] = {}
    for row in sheet_rows(folder):
        found.setdefault(row["item"], []).append(row)
    return {
        item: "=".join(r["letter"] for r in ([x for x in rows if like(x)] or rows))
        for item, rows in found.items()
    }


def rater(folder: Path, path: Path, mark: Mark = honest, **how: Any) -> Path:
    best = best_of(folder, lambda row: row["answer"] == row["reference"])
    return rate(folder, path, lambda row: mark(row) | {"best": best[row["item"]]}, **how)


def scores(*args: object) -> dict[str, Any]:
    return json.loads(call(*args, "--json"))


# --- out ------------------------------------------------------------------------------------------


def test_the_sheet_is_blind_and_shows_every_routes_answer_once(run: Path):
    said = call(run, "--items", 10)
    assert "10 of 24 test rows in 10 independent groups" in said
    folder = run / "review"
    rows, key = sheet_rows(folder), key_of(folder)
    for name in ("sheet.csv", "sheet.html"):
        text = (folder / name).read_text(encoding="utf-8")
        for told in ("lora-r8", "mipro", "baseline", "constant", MODEL, "seed"):
            assert told not in text, f"{name} says {told}"
    assert "constant" not in json.dumps([*key.values()]), "controls only when they are named"
    answers = {(r["item"], r["letter"]): r["answer"] for r in rows}
    assert answers.keys() == key.keys()
    stored = {
        route: {p["example_id"]: p["output"] for p in predictions(run, route)}
        for route in ("baseline", "lora-r8", "mipro")
    }
    items = json.loads((folder / "key.json").read_text(encoding="utf-8"))["items"]
    assert len({item["group"] for item in items}) == 10, "a group's second row only after all"
    for item in items:
        texts = [a["text"] for a in item["answers"]]
        assert len(texts) == len(set(texts))
        assert sorted(r for a in item["answers"] for r in a["routes"]) == sorted(stored)
        for answer in item["answers"]:
            for route in answer["routes"]:
                whole = stored[route][item["example"]].replace("\x00", "‹U+0000›")
                assert answer["text"] == whole.replace("\u202e", "‹U+202E›")
    shuffled = {tuple(a["routes"][0] for a in item["answers"]) for item in items}
    assert len(shuffled) > 3, "the order tells nothing"


def test_no_cell_is_a_formula_and_every_text_comes_back(run: Path):
    call(run)
    folder = run / "review"
    raw = (folder / "sheet.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    cells = [c for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")) for c in row]
    assert not [c for c in cells if c[:1] in tuple("=+-@\t\r") and c]
    assert any(c.startswith("'=cmd") for c in cells)
    assert {r["answer"][:4] for r in sheet_rows(folder)} >= {"=cmd", "Well"}
    for text in ("=1", "'=1", "''@", "+", "-", "'", "''", "a=b", "", "'a", "\t=", "＝1"):
        assert restored(defused(text)) == text


def test_a_sheet_is_never_written_over_and_rows_nobody_can_rate_are_counted(tmp_path: Path):
    maker = RunMaker(tmp_path / "run", rows=8)
    maker.route("baseline", wordy)
    maker.route("local", lambda part, row: None if row < 3 else gold(part, row))
    path = maker.done()
    said = call(path, "--items", 30)
    assert "5 of 8 test rows" in said
    assert "3 rows were not drawn from because local failed on them" in said
    assert "30 were asked for, and there are no more" in said
    before = (path / "review/sheet.csv").read_bytes()
    with pytest.raises(TunelmError, match=r"holds a sheet already \(sheet\.csv.*--out"):
        call(path)
    assert (path / "review/sheet.csv").read_bytes() == before
    other = scores(path, "--out", tmp_path / "two", "--seed", 1, "--routes", "local")
    assert other["routes"] == ["local"]
    assert other["unanswered"] == {"local": 3}


def test_criteria_of_ones_own(run: Path):
    found = scores(run, "--criteria", "polite: It says please.", "--criteria", "short")
    assert found["criteria"] == ["polite", "short"]
    assert "It says please." in (run / "review/sheet.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--routes", "lora"], r"no finished route 'lora'. There are: constant, baseline"),
        (["--criteria", "=HYPER"], r"letters, digits and spaces"),
        (["--criteria", "best"], r"'best' is a name of every sheet"),
        (["--criteria", "a", "--criteria", "A"], r"'A' is given twice"),
        (["--ratings", "x.csv"], r"no sheet was written there"),
    ],
)
def test_what_cannot_be_drawn_is_said(args: list[str], said: str, run: Path):
    with pytest.raises(TunelmError, match=said) as caught:
        call(run, *args)
    assert "\n" not in str(caught.value)
    assert not (run / "review").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [(["x.csv"], "stand behind --ratings"), (["--items", 3, "--ratings", "x"], "for a new sheet")],
)
def test_wrong_use(args: list[object], said: str, run: Path):
    found = CliRunner().invoke(cli, ["review", str(run), *map(str, args)])
    assert found.exit_code == 2
    assert said in found.output


def test_running_text_and_an_unfinished_run_have_nothing_to_rate(tmp_path: Path):
    maker = RunMaker(tmp_path / "run", rows=4)
    maker.failed("local", "no memory")
    with pytest.raises(TunelmError, match="no route has finished"):
        call(maker.done())
    with pytest.raises(TunelmError, match="no run there"):
        call(tmp_path)
    maker.route("baseline", wordy)
    set_kind(maker.done(), "text")
    with pytest.raises(TunelmError, match="running text has no answers"):
        call(maker.path)


# --- in: known truth ------------------------------------------------------------------------------


def test_scores_and_preferences_are_those_of_a_hand_count(run: Path, tmp_path: Path):
    call(run, "--items", 24)
    folder = run / "review"
    result = scores(run, "--ratings", rater(folder, tmp_path / "ann.csv"))
    key, rows = key_of(folder), sheet_rows(folder)
    right = {(r["item"], r["letter"]): r["answer"] == r["reference"] for r in rows}
    for route in ("baseline", "lora-r8", "mipro"):
        share = [right[place] for place, routes in key.items() if route in routes]
        assert len(share) == 24
        found = result["scores"][route]
        assert found["right"]["value"] == pytest.approx(sum(share) / 24)
        assert (found["right"]["n"], found["right"]["n_groups"]) == (24, 12)
        half = [1.0 if ok else 0.5 for ok in share]
        assert found["complete"]["value"] == pytest.approx(sum(half) / 24)
        low, high = found["complete"]["ci_low"], found["complete"]["ci_high"]
        assert low <= found["complete"]["value"] <= high
    by_item: dict[str, dict[str, bool]] = {}
    for (item, letter), routes in key.items():
        by_item.setdefault(item, {}).update(dict.fromkeys(routes, right[item, letter]))
    pair = next(p for p in result["preferences"] if (p["a"], p["b"]) == ("lora-r8", "baseline"))
    won = sum(i["lora-r8"] and not i["baseline"] for i in by_item.values())
    lost = sum(i["baseline"] and not i["lora-r8"] for i in by_item.values())
    assert (pair["wins"], pair["losses"], lost) == (won, 0, 0)
    told = pair["wins"] + pair["ties"] + pair["losses"]
    assert told + pair["not_told"] == 24
    assert pair["share"] == pytest.approx((won + pair["ties"] / 2) / told)
    assert pair["verdict"] == "better"
    assert pair["share_low"] > 0.5
    assert pair["p_holm"] >= pair["p"]
    diff = next(p for p in result["pairs"] if p["criterion"] == "right" and p["a"] == "lora-r8")
    assert diff["diff"] == pytest.approx(
        result["scores"]["lora-r8"]["right"]["value"]
        - result["scores"]["baseline"]["right"]["value"]
    )
    assert diff["mde"] > 0
    assert result["agreement"] == dict.fromkeys(
        ["right", "complete", "clear", "which is better"]
    ), "one rater agrees with nobody"
    assert "one rater" in result["warnings"][0]
    page = (folder / "review.md").read_text(encoding="utf-8")
    assert "lora-r8 is liked better" in page
    assert json.loads((folder / "scores.json").read_text(encoding="utf-8")) == result


def test_kappa_is_scikit_learns_and_two_raters_who_say_the_same_have_one(run: Path, tmp_path: Path):
    metrics = pytest.importorskip("sklearn.metrics")
    call(run, "--items", 24)
    folder, words = run / "review", ("no", "partly", "yes")

    def ben(row: Row) -> dict[str, str]:
        at = (int(row["item"]) * 7 + ord(row["letter"])) % 5
        return honest(row) | ({"complete": words[at % 3]} if at < 3 else {})

    files = [rater(folder, tmp_path / "ann.csv"), rater(folder, tmp_path / "ben.csv", ben)]
    result = scores(run, "--ratings", files[0], files[1])
    level = {"no": 0, "n": 0, "partly": 1, "yes": 2, "y": 2}
    given = [[level[m(r)["complete"].lower()] for r in sheet_rows(folder)] for m in (honest, ben)]
    found = result["agreement"]["complete"]
    assert found["measure"] == "Cohen's kappa"
    for name, weights in (("nominal", None), ("linear", "linear")):
        value = found[name]["value"]
        assert value == pytest.approx(metrics.cohen_kappa_score(*given, weights=weights))
        assert found[name]["ci_low"] < value < found[name]["ci_high"]
    same = result["agreement"]["right"]
    assert same["nominal"]["value"] == same["linear"]["value"] == same["same"] == 1
    assert same["nominal"]["ci_low"] is None, "no disagreement is no proof that there is none"
    assert 0.5 < result["one_rater"]["value"] < 1
    means = result["scores"]["mipro"]["complete"]
    assert means["value"] == pytest.approx(sum(means["by_rater"].values()) / 2)


def test_alpha_is_a_count_by_hand():
    nan = float("nan")
    places = np.array([[0, 1, 2, 2, nan], [0, 1, 2, 1, 0], [0, 1, nan, 1, nan]])
    sums = np.nansum(coincidences(places), axis=0)
    # values: 3 x 0, 3 x 1, 2 x 2, and of the fourth thing 2, 1, 1: o(1,2) = 2 * (1 * 2) / 2 = 2
    assert sums.reshape(3, 3).tolist() == [[3, 0, 0], [0, 4, 1], [0, 1, 2]]
    n = np.array([3, 5, 3])
    chance = (n.sum() ** 2 - (n**2).sum()) / (n.sum() - 1)
    assert alpha(sums.tolist()) == pytest.approx(1 - 2 / chance)
    far = 2 * (3 * 5 + 5 * 3 + 2 * 3 * 3) / (n.sum() - 1)
    assert alpha(sums.tolist(), "linear") == pytest.approx(1 - 2 / far)
    assert kappa([0, 0, 5, 0, 0, 0, 5, 0, 0]) == -1


def test_three_raters_and_what_was_left_open(run: Path, tmp_path: Path):
    call(run, "--items", 24)
    folder = run / "review"

    def lazy(row: Row) -> dict[str, str]:
        if int(row["item"]) > 6:
            return {}
        return honest(row) | ({"clear": ""} if row["letter"] == "B" else {})

    def contrary(row: Row) -> dict[str, str]:
        return honest(row) | {"right": "no" if honest(row)["right"] == "yes" else "partly"}

    marks = {"ann": honest, "cy": contrary}
    files = [rater(folder, tmp_path / f"{name}.csv", mark) for name, mark in marks.items()]
    files.append(rate(folder, tmp_path / "lazy.csv", lazy))
    result = scores(run, "--ratings", *files)
    rows = sheet_rows(folder)
    lazy_one = result["raters"][2]
    begun = [r for r in rows if int(r["item"]) <= 6]
    half = [r for r in begun if r["letter"] == "B"]
    assert lazy_one["answers"] == len(rows)
    assert (lazy_one["full"], lazy_one["half"]) == (len(begun) - len(half), len(half))
    assert lazy_one["open"] == len(rows) - len(begun)
    assert (lazy_one["best"], result["raters"][0]["best"]) == (0, lazy_one["items"])
    alone = scores(run, "--ratings", files[0])
    both = scores(run, "--ratings", files[0], files[2])
    for route, found in alone["scores"].items():
        assert both["scores"][route]["right"] == found["right"] | {
            "by_rater": both["scores"][route]["right"]["by_rater"]
        }, "an open mark is no zero"
    found = result["agreement"]["right"]
    assert found["measure"] == "Krippendorff's alpha"
    assert found["nominal"]["value"] < 0.5 < result["agreement"]["complete"]["nominal"]["value"]
    assert [(p["a"], p["b"]) for p in found["pairs"]] == [
        ("ann", "cy"), ("ann", "lazy"), ("cy", "lazy")
    ]  # fmt: skip
    assert found["pairs"][1]["nominal"] == 1
    assert found["pairs"][0]["nominal"] < 0
    assert "Each two raters" in call(run, "--ratings", *files)


@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0)])
def test_a_metric_is_trusted_by_how_it_orders_what_people_rated(
    sign: int, value: float, run: Path, tmp_path: Path
):
    call(run, "--items", 24, "--criteria", "right")
    like = ("yes", "no")[::sign]

    def by_metric(row: Row) -> dict[str, str]:
        return {"right": like[row["answer"] != row["reference"]]}

    path = rate(run / "review", tmp_path / "ann.csv", by_metric)
    result = scores(run, "--ratings", path)
    found = result["metrics"]["exact_match"]
    assert found["pairwise"]["value"] == value
    assert found["pairwise"]["n"] >= 12
    assert found["spearman"]["value"] == pytest.approx(sign)
    assert found["pairwise_best"] is None, "nobody named a best answer"
    assert "bleu" not in result["metrics"], "it has no value for a row"
    said = call(run, "--ratings", path)
    assert ("more often than a coin would" in said) == (sign > 0)
    assert ("do not choose by it" in said) == (sign < 0)
    assert "Nobody said whether" in said


# --- in: what spreadsheets and people make of it --------------------------------------------------

SAVED: dict[str, dict[str, Any]] = {
    "excel": {"delimiter": ";", "encoding": "utf-8-sig"},
    "plain": {"encoding": "utf-8", "lineterminator": "\n"},
    "all-quoted": {"quoting": csv.QUOTE_ALL},
    "unicode-text": {"delimiter": "\t", "encoding": "utf-16"},
}


@pytest.mark.parametrize("name", SAVED)
def test_files_of_any_spreadsheet_say_the_same(name: str, run: Path, tmp_path: Path):
    call(run)
    plain = scores(run, "--ratings", rater(run / "review", tmp_path / "ann.csv"))
    other = rater(run / "review", tmp_path / "ben.csv", **SAVED[name])
    found = scores(run, "--ratings", other)
    assert found["raters"][0]["name"] == "ben"
    assert found["preferences"] == plain["preferences"]
    assert found["pairs"] == plain["pairs"]


def test_columns_in_another_order_blank_lines_and_short_rows(run: Path, tmp_path: Path):
    call(run)
    folder = run / "review"
    best = best_of(folder, lambda row: row["answer"] == row["reference"])
    rows = [
        {"Letter ": r["letter"].lower(), "ITEM": f"{r['item']}.0", "best": best[r["item"]],
         "sheet": r["sheet"], "Rater (your name)": "Åsa", **honest(r)}
        for r in sheet_rows(folder)
    ]  # fmt: skip
    path = save(tmp_path / "x.csv", rows, encoding="cp1252", delimiter=";")
    lines = path.read_bytes().split(b"\r\n")
    path.write_bytes(b"sep=;\r\n" + b"\r\n;;;;\r\n".join(lines))
    found = scores(run, "--ratings", path)
    plain = scores(run, "--ratings", rater(folder, tmp_path / "ann.csv"))
    assert found["raters"][0]["name"] == "Åsa"
    assert found["pairs"] == plain["pairs"]


def test_comments_come_back_and_are_no_markup_and_no_formula(run: Path, tmp_path: Path):
    call(run)
    words = "=1+1 | **x** \x1b[2J"
    path = rater(run / "review", tmp_path / "a.csv", lambda r: honest(r) | {"comment": words})
    result = scores(run, "--ratings", path)
    assert result["comments"][0]["text"] == "=1+1 | **x** ‹U+001B›[2J"
    page = (run / "review/review.md").read_text(encoding="utf-8")
    assert r"=1+1 \| \*\*x\*\*" in page


def broken(folder: Path, path: Path, change: Callable[[list[Row]], Any]) -> Path:
    rows = [r | honest(r) for r in sheet_rows(folder)]
    change(rows)
    return save(path, rows)


CHANGES: dict[str, tuple[Callable[[list[Row]], Any], str]] = {
    "sheet": (lambda r: r[2].update(sheet="sheet-0"), r"another sheet \(sheet-0\); this run's is"),
    "letter": (lambda r: r[0].update(letter="Q"), r"a\.csv:2: there is no answer 'Q'; item 1 has"),
    "item": (lambda r: r[0].update(item="99"), r"a\.csv:2: there is no item '99'; items are 1 to"),
    "mark": (lambda r: r[0].update(right="maybe"), r"column right: 'maybe' is no mark; valid are"),
    "best": (lambda r: r[0].update(best="A+Z"), r"column best: 'A\+Z'; valid are A, B"),
    "two bests": (lambda r: (r[0].update(best="A"), r[1].update(best="B")), "'B' here, A above"),
    "twice": (lambda r: r.append(r[0]), r"item 1, answer A stands in line 2 already"),
    "raters": (lambda r: (r[0].update(rater="x"), r[1].update(rater="y")), "several raters"),
    "column": (lambda r: [x.pop("clear") for x in r], r"a\.csv:1: has no column clear"),
    "sorted": (
        lambda r: (r[0].update(answer=r[1]["answer"])), r"is that of B: were columns sorted"),
    "nothing": (lambda r: [x.update(right="", complete="", clear="") for x in r], "nothing is fil"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_understood_is_named_by_file_and_line(name: str, run: Path, tmp_path: Path):
    call(run)
    change, said = CHANGES[name]
    path = broken(run / "review", tmp_path / "a.csv", change)
    with pytest.raises(TunelmError, match=said):
        call(run, "--ratings", path)
    assert not (run / "review/scores.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04xx", "Save it as CSV"),
        (b"a,b\n1,2\n", r"a\.csv:1: has no column sheet, item, letter, best"),
        (b"sheet,\0", "is no text"),
        (b'sheet,item,letter,best,right,complete,clear\n"x', r"a\.csv:2: .*quotation mark"),
    ],
)
def test_files_that_are_no_sheets(content: bytes, said: str, run: Path, tmp_path: Path):
    call(run)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TunelmError, match=said):
        call(run, "--ratings", tmp_path / "a.csv")
    with pytest.raises(TunelmError, match="cannot be read"):
        call(run, "--ratings", tmp_path / "gone.csv")


def test_a_rater_counts_once_and_a_run_that_changed_is_refused(run: Path, tmp_path: Path):
    call(run)
    folder = run / "review"
    (tmp_path / "two").mkdir()
    files = [rater(folder, tmp_path / "ann.csv"), rater(folder, tmp_path / "two/Ann.csv")]
    with pytest.raises(TunelmError, match="are both by 'Ann'"):
        call(run, "--ratings", *files)
    copy = rater(folder, tmp_path / "ben.csv")
    assert "one file twice" in call(run, "--ratings", files[0], copy)
    rows = [row | {"output": "Something else."} for row in predictions(run, "mipro")]
    write_lines(run / "routes/mipro/seed-0/predictions.jsonl", rows)
    with pytest.raises(TunelmError, match="route mipro has another answer to item 1"):
        call(run, "--ratings", files[0])
    key = (folder / "key.json").read_text(encoding="utf-8")
    (folder / "key.json").write_text(key.replace("Clouds", "Clods"), encoding="utf-8")
    with pytest.raises(TunelmError, match="was changed after it was written"):
        call(run, "--ratings", files[0])


# --- whole runs -----------------------------------------------------------------------------------


def test_a_real_run_from_its_task_file_to_its_ratings(tmp_path: Path):
    task = make_task(tmp_path, Path("tunelm-nano-small"))
    routes = 'compare.routes=["constant", "baseline"]'
    tunelm.compare(task, tmp_path / "run", overrides=[routes, "data.test=0.4"])
    call(tmp_path / "run", "--items", 6, "--routes", "constant,baseline")
    path = rater(tmp_path / "run/review", tmp_path / "ann.csv")
    result = scores(tmp_path / "run", "--ratings", path)
    assert result["items"] == result["groups"] == 6
    assert result["primary_metric"] in result["metrics"]
    assert {r["name"] for r in result["routes"]} == {"constant", "baseline"}


def set_kind(run: Path, kind: str) -> None:
    config = json.loads((run / "config.json").read_text())
    config["config"]["task"]["kind"] = kind
    write(run / "config.json", config)


def dialogue_run(path: Path) -> Path:
    """Conversations beside the rows: what a task of dialogues leaves behind."""
    maker = RunMaker(path, rows=8, primary="solved_unaided")
    maker.route("baseline", wordy)
    maker.route("tuned", gold, kind="local")
    set_kind(maker.done(), "dialogue")
    talks = [
        {"part": "test_talks", "example": {
            "id": f"t{i}", "messages": [{"role": "user", "content": "I think 5."}],
            "answers": ["7"], "group": f"p{i}", "context": None,
            "metadata": {"problem": f"What is 3 + 4, part {i}?", "profile": "silent"}}}
        for i in range(8)
    ]  # fmt: skip
    write_lines(path / "talks.jsonl", talks)
    for route, words in (("baseline", "It is 7."), ("tuned", "Why\nis it 5?")):
        rows = predictions(path, route)
        said = f"Student: I think 5.\nTeacher, asked for Socratic question: {words}\nStudent: 7!"
        facts = {"solved_unaided": float(route == "tuned")}
        held = [
            {**rows[0], "example_id": f"t{i}", "part": "test_talks", "output": said, "facts": facts}
            for i in range(8)
        ]
        write_lines(path / f"routes/{route}/seed-0/predictions.jsonl", rows + held)
    return path


def test_conversations_are_rated_whole_and_without_what_the_teacher_was_told(tmp_path: Path):
    run = dialogue_run(tmp_path / "run")
    said = call(run)
    assert "8 of 8 test conversations" in said
    assert "asks, fits, right, kind" in said
    rows = sheet_rows(run / "review")
    assert {r["asked"] for r in rows} == {f"What is 3 + 4, part {i}?" for i in range(8)}
    assert {r["reference"] for r in rows} == {"7"}
    assert {r["answer"] for r in rows} == {
        "Student: I think 5.\nTeacher: It is 7.\nStudent: 7!",
        "Student: I think 5.\nTeacher: Why\nis it 5?\nStudent: 7!",
    }
    best = best_of(run / "review", lambda row: "Why" in row["answer"])

    def mark(row: Row) -> dict[str, str]:
        asks = {"asks": "yes" if "Why" in row["answer"] else "no"}
        return {"fits": "partly", "right": "yes", "kind": "yes", "best": best[row["item"]]} | asks

    result = scores(run, "--ratings", rate(run / "review", tmp_path / "ann.csv", mark))
    assert result["of"] == "conversations"
    assert result["metrics"]["solved_unaided"]["pairwise"]["value"] == 1
    assert "turn_f1" not in result["metrics"]
    (pair,) = result["preferences"]
    assert (pair["a"], pair["wins"], pair["verdict"]) == ("tuned", 8, "better")
    kind = next(p for p in result["pairs"] if p["criterion"] == "kind")
    assert (kind["diff"], kind["mde"], kind["verdict"]) == (0, None, "not distinguishable")


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_filled_in_by_keys_alone_and_its_file_is_read_back(run: Path, tmp_path: Path):
    call(run, "--items", 6)
    address = (run / "review/sheet.html").as_uri()
    rows = sheet_rows(run / "review")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(address)
        assert page.locator("#done").inner_text() == "0 of 6 items filled in"
        page.keyboard.press("Enter")
        page.focus("#rater")
        page.keyboard.press("Enter")
        assert "Write your name first" in page.locator("#told").inner_text()
        page.keyboard.type("Ann / Ärzt")
        picture(page, "review")
        page.focus("#next")
        for _ in range(400):
            page.keyboard.press("Enter")
            if "Everything is filled in" in page.locator("#told").inner_text():
                break
            page.keyboard.press("Space")
            page.focus("#next")
        page.reload()
        assert page.locator("#done").inner_text() == "6 of 6 items filled in"
        page.locator("textarea").first.fill('=1+1, "quoted"\nand more')
        picture(page, "review-filled")
        assert min(contrasts(page))[0] >= 4.5
        page.emulate_media(color_scheme="dark")
        assert min(contrasts(page))[0] >= 4.5
        picture(page, "review-dark")
        page.emulate_media(color_scheme="light")
        with page.expect_download() as download:
            page.locator("button.main").press("Enter")
        download.value.save_as(tmp_path / download.value.suggested_filename)
        page.emulate_media(media="print")
        assert not page.locator(".bar").is_visible()
        assert page.locator(".by-hand").is_visible()
        picture(page, "review-print")
        pdf = page.pdf()
        page.set_viewport_size({"width": 380, "height": 800})
        page.emulate_media(media="screen")
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        picture(page, "review-narrow")
        assert page.evaluate("window.hit") is None
        assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []
        assert errors == []
    assert len(pdf) > 10_000
    found = scores(run, "--ratings", tmp_path / "Ann-Ärzt.csv")
    (one,) = found["raters"]
    assert (one["name"], one["full"], one["open"]) == ("Ann / Ärzt", len(rows), 0)
    assert one["best"] == one["items"]
    assert found["scores"]["mipro"]["right"]["value"] == 1, "Space takes the first: yes"
    assert found["comments"][0]["text"] == '=1+1, "quoted"\nand more'


def picture(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")
