"""The rows of the task `support-email`: customers' e-mails, and a shop's replies.

    python tasks/build.py      (writes support_emails.jsonl with the other files)

Everything is written for this task; shop, people and towns are made up. The files in
`support_email/` hold situations. Each has `mails` (what a customer writes), for each of them one of
`acks` (how the reply takes it up), and two or more `outcome`s: the shop's `note` on what was
decided, the `facts` that a reply must say, `bodies` that say them, and where there is one, how its
`fee` comes about and which of the `mails` it fits.

`[a|b]` is one of several wordings, `{item}` a slot (see `Slots`); a slot with `~` is written the
way people write it (`May 3rd`, `24,90 EUR`). Of several drafts of a row the one is taken that
shares least with the rows before it, so that rows of one situation are not copies of each other.
"""

from __future__ import annotations

import datetime
import json
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "support_email"
SHOP = "Quillmarrow"
ROWS_A_SITUATION = 11
DRAFTS = 100
PIECE = 13
"""Words in a row that two rows should not share."""

ALLOWED = ["help@example.com", "555-0142", "Monday to Friday"]
"""What the task's instructions say, so that a reply may say it too."""

HI = "[Hello,|Hi,|Hi there,|Good morning,|Good evening,|Dear team,|Dear shop,|Hello Quillmarrow,|]"
BYE = ("[\n{first}|\n{first} {last}|\nThanks, {first}|\nBest, {first} {last}|\nRegards, {last}"
       "|\nBest wishes, {first}|\nThank you! {first} {last}|\nYours, {first}]")  # fmt: skip
WORDS: dict[str, Any] = tomllib.loads((FOLDER / "words.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Slots:
    """The values of one row's slots, and how some of them are written by people."""

    values: dict[str, str]
    dates: dict[str, datetime.date]
    money: dict[str, float]

    def fill(self, text: str, rng: random.Random) -> str:
        """The text with its wordings chosen and its slots filled."""
        text = spin(text.replace("{hi}", HI).replace("{bye}", BYE), rng)

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if not name.endswith("~"):
                return self.values[name]
            name = name[:-1]
            return (
                loose_date(self.dates[name], rng)
                if name in self.dates
                else loose_money(self.money[name], rng)
            )

        filled = re.sub(r"\{([\w~]+)\}", value, text)
        lines = [" ".join(line.split()) for line in filled.strip().split("\n")]
        return "\n".join(line[:1].upper() + line[1:] if line else "" for line in lines)


def spin(text: str, rng: random.Random) -> str:
    """The text with one wording of each `[a|b]`."""
    return re.sub(r"\[([^\[\]]*)\]", lambda m: rng.choice(m.group(1).split("|")), text)


def loose_date(day: datetime.date, rng: random.Random) -> str:
    """A date as people write it."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day // 10 != 1 else 0, "th")
    return rng.choice(
        (f"{day.day} {day:%B}", f"{day:%B} {day.day}", f"{day.day}{ending} {day:%B}",
         f"the {day.day}{ending} of {day:%B}", f"{day:%B} {day.day}{ending}")
    )  # fmt: skip


def loose_money(value: float, rng: random.Random) -> str:
    """An amount as people write it."""
    return rng.choice(
        (f"{value:.2f} EUR", f"{value:.2f} euros", f"€{value:.2f}", f"EUR {value:.2f}",
         f"{value:.2f} €".replace(".", ","), f"{value:.2f} EUR".replace(".", ","))
    )  # fmt: skip


def fee_of(kind: str, price: float, percent: int, rng: random.Random) -> float:
    """The sum that `{fee}` stands for."""
    if kind == "share":
        return round(price * percent / 100, 2)
    low, high, step = {
        "small": (3.9, 6.9, 0.5),
        "freight": (9.9, 19.9, 1),
        "round": (5, 20, 5),
        "gift": (25, 60, 5),
        "repair": (12.5, 28.5, 2),
        "drop": (price * 0.1, price * 0.25, 0.5),
        "near": (price * 0.8, price * 1.3, 1),
    }[kind]
    steps = int((high - low) / step)
    return round(round(low, 1) + step * rng.choice(range(steps + 1)), 2)


def slots_of(situation: dict[str, Any], fee: str, rng: random.Random) -> Slots:
    """Fresh values for one row."""
    pick = rng.choice
    kinds = situation["items"] or ["fragile"]
    name, thing, price = pick([item for kind in kinds for item in WORDS["items"][kind]])
    other = pick([item for kind in kinds for item in WORDS["items"][kind] if item[0] != name])[0]
    percent = pick((5, 8, 10, 12, 15, 20))
    first, first2 = pick(WORDS["first"]), pick(WORDS["first"])
    n = pick(range(24, 96))
    money = {"price": price, "fee": fee_of(fee, price, percent, rng)}
    money |= {"rest": price - money["fee"], "sum": round(n * price * (1 - percent / 100), 2)}
    decided = datetime.date(2025, 2, 1) + datetime.timedelta(pick(range(300)))

    def days(low: int, high: int) -> datetime.timedelta:
        return datetime.timedelta(pick(range(low, high)))

    arrived = decided - days(3, 9)
    ordered = arrived - datetime.timedelta(situation.get("age", 0)) - days(3, 8)
    fourth = decided + days(4, 10)
    dates = {"d1": ordered, "d2": arrived, "d3": decided, "d4": fourth, "d5": fourth + days(9, 30)}
    agent = pick(WORDS["agents"])
    plain = {
        "first": first, "last": pick(WORDS["last"]), "first2": first2,
        "pronoun": pick(("her", "his")),
        "agent": agent, "agent2": pick([a for a in WORDS["agents"] if a != agent]),
        "order": str(pick(range(20000, 99999))),
        "item": name, "thing": thing, "other": other,
        "a_item": ("an " if name[0] in "aeiou" else "a ") + name,
        "the_item": f"the {name}", "The_item": f"The {name}", "my_item": f"my {name}",
        "the_thing": f"the {thing}", "The_thing": f"The {thing}",
        "pct": str(percent), "n": str(n), "n2": str(n - pick(range(6, 20))),
        "days": str(pick((2, 3, 4, 5, 6, 7, 8, 10, 12))), "range": pick(WORDS["ranges"]),
        "mins": pick(("15", "20", "30", "45")), "degrees": pick(("20", "30", "40")),
        "hours": pick(("8:00 and 12:00", "9:00 and 13:00", "14:00 and 17:00", "16:00 and 20:00")),
        "hours2": pick(("12", "24", "36", "48")), "size": pick(("S", "M", "L", "XL", "38", "44")),
        "town": pick(WORDS["towns"]), "street": f"{pick(range(2, 90))} {pick(WORDS['streets'])}",
        "country": pick(WORDS["countries"]), "shop": pick(WORDS["parcel_shops"]),
        "allergen": pick(WORDS["allergens"]),
        "part": f"{pick('BDHKMRT')}{pick(range(2, 49))}",
        "voucher": f"GV-{pick(range(2000, 9999))}", "track": f"RK{pick(range(200000, 999999))}",
        "batch": f"L{pick(range(2000, 9999))}", "inv": f"INV-{pick(range(10000, 99999))}",
    }  # fmt: skip
    plain |= {name: f"{day.day} {day:%B}" for name, day in dates.items()}
    plain |= {name: f"{value:.2f} EUR" for name, value in money.items()}
    return Slots(plain, dates, money)


def plain_text(text: str) -> str:
    """A source text on one line: its line breaks are those of the file."""
    return " ".join(text.split())


def draft(situation: dict[str, Any], number: int, rng: random.Random) -> dict[str, Any]:
    """One row of a situation; its number says which mail and which outcome."""
    mail = number % len(situation["mails"])
    fitting = [o for o in situation["outcome"] if mail + 1 in o.get("mails", [mail + 1])]
    outcome = fitting[number // len(situation["mails"]) % len(fitting)]
    slots = slots_of(situation, outcome.get("fee", "round"), rng)

    def fill(text: str) -> str:
        return slots.fill(plain_text(text), rng)

    decision, policy = outcome["note"]
    note = [policy, "Customer: {first} {last}"]
    if situation["items"]:
        begin = "Order: {order}, " if situation.get("order", True) else "Item: "
        note.append(begin + "{item}, {price}")
    note += [decision, "Sign as: {agent}, " + SHOP]
    body = fill(situation["acks"][mail]) + " " + fill(rng.choice(outcome["bodies"]))
    sign_off = fill(WORDS["sign_off"]) + f",\n{slots.values['agent']}\n{SHOP}"
    parts = [fill(WORDS["greeting"]) + ",", body, fill(rng.choice(WORDS["closings"])), sign_off]
    return {
        "question": fill(situation["mails"][mail]) + "\n---\n" + "\n".join(map(fill, note)),
        "answer": "\n\n".join(parts),
        "facts": [
            [fill_plain(slots, form) for form in fact]
            if isinstance(fact, list) and len(fact) > 1
            else fill_plain(slots, fact[0] if isinstance(fact, list) else fact)
            for fact in outcome["facts"]
        ],
        "allowed": ALLOWED,
        "group": f"{situation['name']}/{number + 1}",
    }


def fill_plain(slots: Slots, text: str) -> str:
    """A fact with its slots filled."""
    return re.sub(r"\{(\w+)\}", lambda m: slots.values[m.group(1)], text)


def pieces(row: dict[str, Any]) -> set[tuple[str, ...]]:
    """All runs of `PIECE` words in a row's question and in its answer."""
    found: set[tuple[str, ...]] = set()
    for text in (row["question"], row["answer"]):
        words = re.findall(r"\w+", text.casefold())
        found |= {tuple(words[i : i + PIECE]) for i in range(len(words) - PIECE + 1)}
    return found


def situations() -> list[dict[str, Any]]:
    """Those of all files, by name."""
    found: list[dict[str, Any]] = []
    for path in sorted(FOLDER.glob("*.toml")):
        found += tomllib.loads(path.read_text(encoding="utf-8")).get("situation", [])
    return found


def rows() -> Iterator[dict[str, Any]]:
    """All rows, situation by situation."""
    seen: set[tuple[str, ...]] = set()
    for situation in situations():
        for number in range(ROWS_A_SITUATION):
            drafts: list[tuple[int, dict[str, Any]]] = []
            for attempt in range(DRAFTS):
                rng = random.Random(f"{situation['name']}/{number}/{attempt}")
                row = draft(situation, number, rng)
                drafts.append((len(pieces(row) & seen), row))
                if not drafts[-1][0]:
                    break
            best = min(drafts, key=lambda d: d[0])[1]
            seen |= pieces(best)
            yield best


def build(target: Path) -> None:
    """Write support_emails.jsonl into a folder, situations mixed."""
    made = list(rows())
    random.Random(SHOP).shuffle(made)
    lines = [json.dumps(row, ensure_ascii=False) for row in made]
    (target / "support_emails.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
