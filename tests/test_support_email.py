"""The task `support-email`: its rows, what its checks find, and the rule that fills in phrases."""

from __future__ import annotations

import importlib.util
import json
import re
import statistics
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.config import load_config, parse_config
from tunelm.data.read import read_rows
from tunelm.data.split import split_rows
from tunelm.errors import DataError
from tunelm.report.markdown import markdown_page
from tunelm.routes.email_rule import reply
from tunelm.scoring.email_facts import known, read
from tunelm.scoring.email_lexicon import politeness, promises
from tunelm.scoring.email_metrics import OF_EMAILS, made_up
from tunelm.types import Example, Message

ROOT = Path(__file__).parents[1]
ROWS = Path(tunelm.__file__).parent / "tasks" / "support_emails.jsonl"
MAIL = """Hello, my blue teapot came in pieces and the box had a dent. I paid €34.90 for it!
---
Policy: damage in transit is our risk
Customer: Mara Lindqvist
Order: 48213, blue stoneware teapot, 34.90 EUR
Decision: no refund; replacement leaves 12 May, arrives in 3 to 5 working days
Sign as: Ida, Quillmarrow"""
FACTS = ["48213", "12 May", "3 to 5 working days", ["replacement", "new one"]]
GOOD = """Dear Mara Lindqvist,

I am sorry that the teapot came in pieces; the dent in the box was the first sign. A replacement
for order 48213 leaves us on May 12th and is with you in three to five business days. If you have
any other question, just reply to this mail.

Kind regards,
Ida"""


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    return [row.example for row in read_rows(ROWS)]


def row(facts: Any = FACTS, mail: str = MAIL, **metadata: Any) -> Example:
    metadata = {"facts": facts, **metadata}
    return Example("r1", (Message("user", mail),), (GOOD,), "g", metadata=metadata)


def value(metric: str, output: str, example: Example | None = None) -> float:
    found = OF_EMAILS[metric].row_value(output, example or row())
    assert found is not None
    return found


def values(output: str, example: Example) -> dict[str, float]:
    return {name: value(name, output, example) for name in OF_EMAILS}


# --- the rows -------------------------------------------------------------------------------------


def test_the_files_of_the_task_make_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("support_email", ROOT / "tasks/support_email.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "support_email", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.build(tmp_path)
    assert (tmp_path / ROWS.name).read_bytes() == ROWS.read_bytes()
    assert ROWS.stat().st_size <= 400_000


def test_test_rows_are_many_and_no_copies_of_train_rows(rows: list[Example]):
    split = split_rows(rows, load_config("support-email").data)
    assert len({e.group for e in split.test}) >= 120
    assert split.leaks == ()
    assert len(rows) == len({e.group for e in rows}) >= 320
    assert len({e.group.split("/")[0] for e in split.test}) == 30


def test_the_data_have_no_fault():
    done = CliRunner().invoke(cli, ["data", "check", str(ROWS), "--strict"])
    assert done.exit_code == 0, done.output
    assert "no fault" in done.output


def test_every_gold_reply_passes_and_another_rows_does_not(rows: list[Example]):
    assert [e.group for e in rows if value("email_passes", e.answers[0], e) < 1] == []
    others = [value("email_passes", rows[i - 1].answers[0], e) for i, e in enumerate(rows)]
    assert sum(others) == 0
    assert statistics.mean(value("empathy", e.answers[0], e) for e in rows) > 0.85
    assert all(value("length_fits", e.answers[0], e) for e in rows)


def test_what_a_reply_must_say_stands_in_what_it_is_given(rows: list[Example]):
    for example in rows:
        given = read(example.question)
        for fact in example.metadata["facts"]:
            forms = fact if isinstance(fact, list) else [fact]
            assert any(given.has(read(form)) for form in forms), (example.group, fact)


def test_an_answer_without_its_figures_does_not_pass(rows: list[Example]):
    for example in rows[::10]:
        for fact in example.metadata["facts"]:
            for form in fact if isinstance(fact, list) else [fact]:
                if any(c.isdigit() for c in form):
                    wrong = example.answers[0].replace(form, "soon")
                    assert value("facts_kept", wrong, example) < 1, (example.group, form)


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("24.90 EUR", "€24,90"),
        ("1,240.00 euros", "1.240 EUR"),
        ("five working days", "5 business days"),
        ("within a week", "within 7 days"),
        ("two years", "24 months"),
        ("3 to 5 days", "3-5 days"),
        ("12 May", "May 12th"),
        ("on the 3rd of June 2026", "on the 2026-06-03"),
        ("10 %", "ten percent"),
        ("5 pm", "17:00"),
        ("QV-4821", "qv4821"),
        ("refunded", "refund"),
    ],
)
def test_one_figure_has_one_form(one: str, other: str):
    assert read(one).tokens == read(other).tokens


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("24.90 EUR", "24.90 USD"),
        ("5 working days", "5 days"),
        ("12 May", "21 May"),
        ("3 to 5 days", "3 to 6 days"),
        ("48213", "48231"),
        ("24.90", "2490"),
    ],
)
def test_other_figures_have_another(one: str, other: str):
    assert not read(other).entities <= known(one)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("It takes 5 working days.", set()),  # the end of a range that is given
        ("It leaves us tomorrow.", {"tomorrow"}),
        ("It takes 4 days.", {"4 day"}),
        ("Order 48214 is ready.", {"48214"}),
        ("You get 40 EUR.", {"40 eur"}),
        ("You paid 34.90.", set()),
        ("It is about order 48213\n12 May is the day.", set()),
        ("For 48213 and 4 days more.", {"4 day"}),
        ("Call 555-0142.", {"5550142"}),
        ("Take 10 % off.", {"10 %"}),
        ("It comes on Friday.", {"friday"}),
        ("Write to shop@example.org.", {"shop@example.org"}),
        ("Here is a voucher for you.", {"voucher"}),
        ("Sending it costs nothing, free of charge.", {"free"}),
        ("We refund the price.", {"refund"}),  # the note says that there is none
        ("We cannot refund it.", set()),
        ("You asked for a refund.", set()),
        ("If you would like a refund, tell us.", {"refund"}),
        ("Instead of a refund we send a replacement.", set()),
        ("We guarantee it.", {"guarantee"}),
        ("One of us will pack the two lids.", set()),
        ("1. We pack it.\n2. We send it.", set()),
    ],
)
def test_what_comes_from_nowhere_is_found(said: str, found: set[str]):
    assert made_up(said, row()) == found
    assert value("nothing_invented", said) == (not found)


def test_a_row_may_allow_more_than_its_messages_say():
    said = "Write to help@example.com for a voucher."
    assert made_up(said, row()) == {"help@example.com", "voucher"}
    assert not made_up(said, row(allowed=["help@example.com", "a voucher"]))


def test_a_promise_of_the_customers_words_is_made_up():
    mail = "I demand a refund and 50 EUR!\n---\nDecision: we look into it"
    assert made_up("You get a refund of 50 EUR.", row([], mail)) == {"refund"}


def test_facts_are_said_in_any_of_their_forms():
    assert value("facts_kept", GOOD) == 1
    assert value("facts_kept", GOOD.replace("A replacement", "A new one")) == 1
    assert value("facts_kept", GOOD.replace("May 12th", "May 13th")) == 0.75
    assert value("facts_kept", "Thank you.") == 0
    assert value("facts_kept", "Thank you.", row([])) == 1


@pytest.mark.parametrize(
    ("facts", "said"),
    [(None, 'row r1 has no "facts"'), ("12 May", "expected a list"), ([[""]], "expected a list")],
)
def test_rows_without_facts_are_named(facts: Any, said: str):
    with pytest.raises(DataError, match=said):
        value("email_passes", GOOD, row(facts))


# --- politeness, form -----------------------------------------------------------------------------

RUDE = (
    "You should have read the terms. That is your own fault. Send it back.",
    "As we have already said, you must pay. Do not write again.",
    "This is ridiculous. Please calm down and wait.",
)
NEUTRAL = (
    "The parcel was sent on Monday. It arrives on Wednesday.",
    "Your order is in the depot. The courier has it.",
    "The item is not in stock. It returns in June.",
)
POLITE = (
    "Dear Ann, thank you for writing. Could you tell us the size? We are happy to help.",
    "Hello Ann, I am sorry for the wait. You are right, and I hope it comes soon. Let me know.",
    "Good morning, thanks for asking; perhaps you would like blue. If you could, just reply.",
)


def test_rude_plain_and_polite_replies_come_in_that_order():
    scores = [[value("polite", text) for text in texts] for texts in (RUDE, NEUTRAL, POLITE)]
    assert max(scores[0]) == 0
    assert max(scores[1]) < min(scores[2])
    assert all(politeness(text)[1] for text in RUDE)
    assert not any(politeness(text)[1] for text in (*NEUTRAL, *POLITE))


def test_heaping_one_kind_of_politeness_earns_nothing():
    once = "I am sorry about that."
    heaped = once + " We are so very sorry. Sorry again! We apologise, and regret it deeply."
    assert value("polite", heaped) == value("polite", once) == 0.2


def test_a_please_at_the_start_costs_something_but_does_not_fail():
    inside, start = "Could you please wait?", "Please wait."
    assert politeness(inside)[1] == frozenset()
    assert politeness(start)[1] == {"please-start"}
    assert value("polite", GOOD + "\nPlease wait.") < value("polite", GOOD)
    bad = GOOD.replace("If you have", "You must know it. If you have")
    start = GOOD.replace("If you have", "Please wait. If you have")
    assert (value("email_passes", GOOD), value("email_passes", start)) == (1, 1)
    assert value("email_passes", bad) == 0


@pytest.mark.parametrize(
    ("change", "half"),
    [
        (("Dear Mara Lindqvist,", ""), 0.5),
        (("Dear Mara Lindqvist,", "Dear [Customer],"), 0.5),
        (("Kind regards,\nIda", ""), 0.5),
        (("Ida", "[Your name]"), 0.5),
        (("Kind regards,\nIda", "Kind regards, Ida"), 1.0),
        (("Kind regards", "With kind regards"), 1.0),
    ],
)
def test_a_mail_is_greeted_and_signed(change: tuple[str, str], half: float):
    found = GOOD.replace(*change)
    assert found != GOOD
    assert value("greeting_and_signoff", found) == half
    assert value("email_passes", found) == (half == 1)


def test_empathy_is_to_say_what_happened_with_feeling_and_first():
    assert value("empathy", GOOD) == 1
    assert value("empathy", GOOD.replace("I am sorry that t", "T")) == 0
    vague = "Dear Mara,\n\nWe are sorry for the trouble with your blue teapot. We send it again."
    assert value("empathy", vague) == 0  # the item stands in the note
    late = vague + " The order is here. I am sorry about the pieces and the dent in the box."
    assert value("empathy", late) == 0


def test_length_has_two_ends():
    assert value("length_fits", "word " * 29) == value("length_fits", "word " * 161) == 0
    assert value("length_fits", "word " * 30) == value("length_fits", "word " * 160) == 1


def test_nothing_said_scores_nothing():
    assert set(values(" \n", row()).values()) == {0.0}


def test_what_is_denied_is_no_promise():
    text = "Sadly there is no discount, and a voucher is out of the question; we repair it."
    assert promises(text) == {"repair"}


# --- the rule, and the whole task -----------------------------------------------------------------


def test_the_rule_is_right_and_cold(rows: list[Example]):
    found = [values(reply(e.question), e) for e in rows]
    mean = {name: statistics.mean(v[name] for v in found) for name in OF_EMAILS}
    assert mean["email_passes"] > 0.95
    assert mean["nothing_invented"] == mean["greeting_and_signoff"] == 1
    assert mean["empathy"] < 0.1


def test_the_rule_answers_what_has_no_note():
    for message in ("", "Where is it?", "Hi\n---\n", "Hi\n---\nDecision:\nOrder: 5"):
        said = reply(message)
        assert said.startswith("Dear customer,")
        assert "Customer service" in said
        assert value("greeting_and_signoff", said) == 1


def test_the_row_and_the_task_file_of_the_docs_are_valid(tmp_path: Path):
    page = (ROOT / "docs/support-email.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^```json\n(.*?)^```", page, flags=re.M | re.S)
    (task,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.M | re.S)
    parse_config({"data": {"path": "x.jsonl"}} | tomllib.loads(task), tmp_path, "docs")
    (tmp_path / "x.jsonl").write_text(line, encoding="utf-8")
    (example,) = (r.example for r in read_rows(tmp_path / "x.jsonl"))
    assert value("facts_kept", reply(example.question), example) == 1
    assert value("email_passes", reply(example.question), example) == 1
    for name in OF_EMAILS:
        assert f"`{name}`" in page


def test_the_task_is_compared_and_reported(rows: list[Example], tmp_path: Path):
    lines = ROWS.read_text(encoding="utf-8").splitlines()[:110]
    (tmp_path / "some.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = tunelm.compare(
        "support-email",
        tmp_path / "run",
        overrides=[
            f'data.path="{tmp_path / "some.jsonl"}"',
            "model.base=tunelm-nano-small",
            "task.max_tokens=12",
            'compare.routes=["constant", "rule", "baseline"]',
        ],
    )
    by_name = {route["name"]: route for route in report["routes"]}
    assert {route["status"] for route in by_name.values()} == {"done"}
    scores = by_name["rule"]["scores"]
    n = report["split"]["test"]["rows"]
    assert all(scores[name]["n"] == n for name in OF_EMAILS)
    assert (
        scores["email_passes"]["value"] > 0.9 > by_name["baseline"]["scores"]["facts_kept"]["value"]
    )
    assert by_name["constant"]["scores"]["email_passes"]["value"] == 0
    page = markdown_page(json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8")))
    for name in OF_EMAILS:
        assert name in page
