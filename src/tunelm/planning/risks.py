"""What may go wrong with this very plan, and which changes would turn it: from what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunelm.config import MIN_TEST_GROUPS
from tunelm.planning.breakeven import FROM, NEVER
from tunelm.planning.cost_page import money, number
from tunelm.planning.footprint import training
from tunelm.planning.hosts import Way, pays_off, rentable
from tunelm.planning.known import Known
from tunelm.planning.registry import PERMISSIVE, registry
from tunelm.planning.sample import Sample, groups_for, smallest_difference
from tunelm.prices import STALE_DAYS

Row = dict[str, str]
WANTED = 0.05
"""A difference that most people would want to see, on a metric of 0 to 1."""
IMBALANCE = 3.0
NEAR_LIMIT = 0.8
"""Of the longest row that the base takes."""


def risks(known: Known, priced: Sequence[Way]) -> list[Row]:
    """The risks of this plan, each with where it was found and what to do."""
    found = [*_of_rows(known), *_of_models(known), *_of_prices(known, priced)]
    return [{"risk": risk, "found by": how, "what to do": do} for risk, how, do in found]


def changes(known: Known, priced: Sequence[Way]) -> list[Row]:
    """What would change the recommendation, computed where it can be."""
    found = [*_by_volume(known, priced), *_by_rows(known), *_by_memory(known)]
    cheapest = next((w for w in priced if w.month is not None and not w.over), None)
    if known.wishes.budget_usd is not None and cheapest is None and priced:
        listed = [w for w in priced if w.month is not None]
        if listed:
            needed, name = min((max(w.month or 0.0, w.once), w.name) for w in listed)
            found.append(("the budget", f"{money(needed)} a month", f"{name} comes into reach"))
    return [{"if this": what, "reaches": at, "then": then} for what, at, then in found]


def _n(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _of_rows(known: Known) -> Iterator[tuple[str, str, str]]:
    sample = known.sample
    if sample is None:
        yield ("nothing is known of the rows", "none were given", "give --data, and plan again")
        return
    yield from _of_size(sample)
    for kind, rows in sample.personal.items():
        yield (
            f"{kind} in {_n(rows, 'row')}: a fine-tuned model can repeat what it was trained on",
            "a search by form in every row",
            "mask them or leave these rows out: tunelm data check names each",
        )
    if len(sample.labels) > 1 and sample.labels[0][1] > IMBALANCE * sample.labels[-1][1]:
        (most, n), (least, m) = sample.labels[0], sample.labels[-1]
        yield (
            f"labels are uneven: {n} train rows of {most!r}, {m} of {least!r}",
            "train rows counted",
            "judge by macro_f1, not accuracy; add rows of the rare labels",
        )
    if sample.moved:
        yield (
            f"{_n(sample.moved, 'pair')} of rows alike would have been on both sides of the split",
            "near-duplicate search",
            "done: they were put on one side; give rows of one thing one group",
        )
    if (doubles := sample.status.get("duplicate", 0)) > 0:
        yield (f"duplicates: {_n(doubles, 'row')}", "content hash", "done: they are left out")
    if sample.limit and sample.whole.most > NEAR_LIMIT * sample.limit:
        yield (
            (
                f"the longest row has {sample.whole.most:,} of at most {sample.limit:,} tokens: "
                "prompts with examples or passages may not fit"
            ),
            "rows measured by the base's tokenizer",
            "raise model.max_length with a base of longer context, or shorten rows",
        )
    for finding in sample.findings[:2]:
        yield (finding.found, f"profile of the rows, n = {finding.n:,}", finding.do)


def _of_size(sample: Sample) -> Iterator[tuple[str, str, str]]:
    groups = sample.groups["test"]
    if groups < MIN_TEST_GROUPS:
        yield (
            f"{groups} independent test groups prove nothing",
            "rows counted after the split",
            (
                f"collect rows until there are {MIN_TEST_GROUPS} test groups at least, "
                f"{groups_for(WANTED):,} for a difference of {WANTED:.0%}"
            ),
        )
    elif (least := smallest_difference(groups)) is not None and least > WANTED:
        yield (
            f"differences below about {100 * least:.0f} points will read 'not distinguishable'",
            f"formula at p = 0.5, {groups} test groups",
            (
                f"more test rows ({groups_for(WANTED):,} groups for {100 * WANTED:.0f} points), or "
                "accept that small gains stay unseen"
            ),
        )
    if sample.rows["train"] > 3 * sample.groups["train"]:
        yield (
            f"the {sample.rows['train']:,} train rows are of {sample.groups['train']:,} groups",
            "groups counted",
            "more different things rather than more wordings of the same",
        )


def _of_models(known: Known) -> Iterator[tuple[str, str, str]]:
    top = known.models.top
    if known.base is not None and known.base.name == "tunelm-nano":
        yield (
            "scores of tunelm-nano say nothing of a real model's",
            "its model card: 3.4M parameters, simple facts",
            "use it to try the plan; then run it again with the model of section 2",
        )
    for candidate in top[:1]:
        model = candidate.model
        if model.licence_class != PERMISSIVE:
            yield (
                f"{model.name} comes under {model.licence}, with conditions",
                f"registry, {model.as_of}",
                "have them read before you ship, or plan with --licence permissive",
            )
        elif model.doubtful():
            yield (
                f"of {model.name}, {', '.join(model.doubtful())} were not read at the publisher",
                f"registry, {model.as_of}",
                "read its model card before relying on them",
            )
    sample = known.sample
    english = 1.0 if sample is None or sample.english is None else sample.english
    if english < 0.5 and known.wishes.language == "en":
        yield (
            f"only {english:.0%} of the rows look English",
            "common English words counted",
            "say the language (--language de) so that models are chosen for it",
        )


def _of_prices(known: Known, priced: Sequence[Way]) -> Iterator[tuple[str, str, str]]:
    ending = [w for w in priced if w.ends is not None and w.months < known.wishes.months]
    if ending:
        names = "; ".join(f"{way.name} on {way.ends}" for way in ending)
        yield (
            f"models that shut down within your {known.wishes.months:g} months: {names}",
            ending[0].source,
            "plan what follows them, or choose one that stays",
        )
    stale = [w.name for w in priced if w.stale]
    if stale:
        yield (
            f"prices older than {STALE_DAYS} days: {', '.join(stale)}",
            "dates in the price table",
            "look them up before you decide: tunelm prices --update",
        )


def _by_volume(known: Known, priced: Sequence[Way]) -> Iterator[tuple[str, str, str]]:
    found = pays_off(priced)
    if found is None:
        return
    host, rented, at = found
    if at.kind == NEVER:
        yield ("the volume", "never", f"{rented.name} does not get cheaper than {host.name}")
    elif at.kind == FROM:
        yield (
            "the volume",
            f"{number(at.spans[0][0])} requests a month",
            f"{rented.name} costs less than {host.name}, if one machine can answer them all",
        )
    else:
        yield ("the volume", at.kind, f"{rented.name} costs less than {host.name}")


def _by_rows(known: Known) -> Iterator[tuple[str, str, str]]:
    rows = 0 if known.sample is None else known.sample.rows["train"]
    if known.config.task.kind != "text" and rows < 50:
        yield ("the train rows", "50", "an adapter is worth trying beside the prompt")
    if known.config.task.kind == "classification" and rows < 200:
        yield ("the train rows", "200", "a small classifier is the first thing to try")
    groups = 0 if known.sample is None else known.sample.groups["test"]
    needed = groups_for(WANTED)
    if groups < needed:
        yield (
            "the test groups",
            f"{needed:,} (now {groups:,})",
            f"a difference of {100 * WANTED:.0f} points shows 4 times in 5",
        )


def _by_memory(known: Known) -> Iterator[tuple[str, str, str]]:
    """The next larger model, and the memory that it takes; a GPU, where there is none."""
    top, machine = known.models.top, known.wishes.hardware
    if (rent := rentable(known.wishes, known.today)) is not None:
        found = known.models_on(rent[1]).top
        if found:
            then = f"{found[0].model.name} fits, by formula"
            yield ("the machine", f"a GPU such as {rent[0].name}, rented", then)
        return
    largest = top[0].model.parameters if top else 0
    for model in sorted(registry(), key=lambda m: m.parameters):
        high = training(model, "lora", known.load, 1).memory.high or 0.0
        if model.parameters > largest and model.chat_template and high > machine.memory_bytes:
            yield (
                "the memory",
                f"{high / 1e9:.1f} GB (now {machine.memory_bytes / 1e9:.1f})",
                f"{model.name} fits, a row a step, by formula",
            )
            return
