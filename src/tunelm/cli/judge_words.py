"""What judges said of a run, in words on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from tunelm.cli.tables import Footnotes, print_table


def without_ratings(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result without what was said of each row, which stands in its file."""
    routes = [{k: v for k, v in r.items() if k != "ratings"} for r in result.get("routes", [])]
    bare = {k: v for k, v in result.items() if k not in ("ratings", "routes")}
    return {**bare, "routes": routes} if routes else bare


def print_rating(result: Mapping[str, Any]) -> None:
    """Print the result of `judge rate`."""
    notes = Footnotes()
    who = result["judge"]
    click.echo(f"{who['name']} by {who['target']}, part {result['part']} of {result['run']}")
    agreement = _agreement(result["agreement"])
    click.echo(f"agreement with people: {agreement}")
    if said := _left_out(result.get("labels")):
        click.echo(said)
    rows = [
        (
            route["name"] + (notes.mark(route["family"]) if route["family"] else ""),
            _number(route["value"]),
            _between(route),
            str(route["n"]),
            str(route["unanswered"] + sum(route["not_judged"].values())),
            *_corrected(route, notes),
            _main_figure(result["agreement"]),
        )
        for route in result["routes"]
    ]
    head = ("route", "judge's mean", "95%", "n", "failed", "as people", "95%", "agreement")
    print_table(head, rows)
    _print_labels(result["routes"])
    for pair in result["pairs"]:
        click.echo(_pair_line(pair))
    for line in (*notes.lines(), *_asking(result)):
        click.echo(line)


def print_pairs(result: Mapping[str, Any]) -> None:
    """Print the result of `judge pairs`."""
    a, b, who = result["a"], result["b"], result["judge"]
    click.echo(f"{a} beside {b}, {who['dimension']} by {who['target']}, part {result['part']}")
    lost = sum(result["failures"].values())
    unpaired = result["rows"] - result["pairs"]
    click.echo(
        f"{result['pairs']} pairs: {a} wins {result['wins']}, {b} wins {result['losses']}, ties"
        f" {result['ties']}, without a verdict {lost}; rows that not both answered {unpaired}"
    )
    figures = (
        (f"win rate of {a}, ties as one half", result["win_rate"]),
        ("pairs on which the two orders disagree (ties)", result["flips"]),
        ("verdicts for the reply shown first (.5: no bias)", result["first"]),
        ("decided pairs that the longer reply wins", result["longer"]),
    )
    rows = [(what, _number(f["value"]), _limits(f), str(f["n"])) for what, f in figures]
    print_table(("", "value", "95% interval", "n"), rows)
    click.echo(f"sign test by group: p = {_p(result['p_sign_test'])}")
    click.echo(f"agreement with people: {_agreement(result['agreement'])}")
    click.echo(_pair_line(result["against_half"], f"{a}'s win rate less one half"))
    for note in dict.fromkeys(n for n in result["families"].values() if n):
        click.echo(f"note: {note}")
    for line in _asking(result):
        click.echo(line)


def _pair_line(pair: Mapping[str, Any], what: str = "") -> str:
    """One comparison in words, with the refusal to rank where there is one."""
    said = what or f"{pair['a']} less {pair['b']}"
    if pair["diff"] is None:
        return f"{said}: {pair['verdict']}: {pair['reason']}"
    line = (
        f"{said}: {pair['diff']:+.3f} ({_limits(pair)}, n {pair['n']} in {pair['n_groups']} groups)"
    )
    if pair["basis"] == "own labels":
        line += ", corrected"
    if pair["reason"]:
        return f"{line}: {pair['verdict']}: {pair['reason']}"
    return f"{line}: {pair['verdict']} (p {_p(pair['p_holm'])}, can show {pair['smallest']:.3f})"


def _corrected(route: Mapping[str, Any], notes: Any) -> tuple[str, str]:
    found = route["corrected"]
    if found is None or found["value"] is None:
        return "unknown", ""
    if route["basis"] == "own labels":
        why = (
            f"corrected by labels of its own replies ({found['n_labelled']} of them, the"
            f" judge's weight is {found['weight']:.2f}): right if these are a random part of all"
        )
    else:
        why = (
            f"corrected by {found['n_labelled']} labels of other systems' replies: not guaranteed,"
            " it takes the judge to err on these as it does on those"
        )
    return f"{found['value']:.3f}{notes.mark(why)}", _limits(found)


def _agreement(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "unknown: give --labels"
    if "figures" not in found:  # of pairs
        pairwise = found["pairwise"]
        return f"pairwise {_number(pairwise['value'])} ({_limits(pairwise)}, n {pairwise['n']})"
    parts = [
        f"{name} {_number(f['value'])} ({_limits(f)}, n {f['n']})"
        for name, f in found["figures"].items()
    ]
    lost = f"; not judged: {found['not_judged']}" if found["not_judged"] else ""
    return f"{', '.join(parts)} [{found['source']}]{lost}"


def _left_out(labels: Mapping[str, Any] | None) -> str:
    """How many labels do not count, since the judge was trained on them."""
    if labels is None or labels["trained_on"] == 0:
        return ""
    if labels["trained_on"] is None:
        return "whether the judge was trained on these labels is unknown: an earlier tunelm made it"
    return (
        f"left out: {labels['trained_on']} of {labels['given']} labels, on which the judge was "
        "trained"
    )


def _main_figure(found: Mapping[str, Any] | None) -> str:
    figures = (found or {}).get("figures") or {}
    name = next((n for n in ("pairwise", "kappa", "spearman") if n in figures), None)
    return "unknown" if name is None else f"{name} {_number(figures[name]['value'])}"


def _print_labels(routes: Sequence[Mapping[str, Any]]) -> None:
    for route in routes:
        if route["labels"]:
            total = sum(route["labels"].values())
            shares = ", ".join(f"{k} {v / total:.2f}" for k, v in route["labels"].items())
            click.echo(f"{route['name']}: {shares} (n {total})")
        for note, count in route["not_judged"].items():
            click.echo(f"{route['name']}: not judged {count}: {note}")


def _asking(result: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if result.get("spread") is not None:
        lines.append(f"repeated answers differ by {result['spread']:.3f} (SD, mean over replies)")
    if "usage" in result:
        used = result["usage"]["judge"]
        counts = [
            f"{what} {'unknown' if used[key] is None else used[key]}"
            for what, key in (("in", "prompt_tokens"), ("out", "completion_tokens"))
        ]
        lines.append(f"tokens of the judge: {', '.join(counts)}")
    return [*lines, f"written to {result['file']}"]


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    return "unknown" if value is None else "below .001" if value < 0.001 else f"{value:.3f}"


def _between(route: Mapping[str, Any]) -> str:
    return _limits({"low": route["ci_low"], "high": route["ci_high"]})


def _limits(found: Mapping[str, Any]) -> str:
    return "" if found["low"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
