"""Searches by every optimizer: what is chosen, counted, limited, and gone on with."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tunelm.config import BudgetConfig
from tunelm.errors import BudgetError, ConfigError, DataError, ModelError, RunDirError
from tunelm.models.budget import Wallet
from tunelm.route_settings import PromptSettings
from tunelm.routes.programs.program import FILE, Program
from tunelm.routes.prompt import ANSWERS, PromptRoute
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import ZERO_USAGE, Request, Usage, content_hash

from .test_route_prompt import DEV, TRAIN, context, demos_in, fit, in_python, number_in, row

PROPOSING = ("mipro", "gepa", "simba")
SEARCHING = ("random-search", *PROPOSING)
WANTED = "Answer in a full sentence, such as: Thing 1 is called name1."


SIZES = {"trials": 2, "candidates": 2}


def is_proposal(request: Request) -> bool:
    return "[[ ## " in "".join(m.content for m in request.messages)


def proposal(request: Request) -> str:
    """What a good proposer answers, in the form that it is asked for."""
    asked = "".join(m.content for m in request.messages)
    if "module_advice" in asked:
        advice = json.dumps({"step_answer": WANTED})
        return f"[[ ## discussion ## ]]\nLate.\n\n[[ ## module_advice ## ]]\n{advice}"
    return f"[[ ## new_instruction ## ]]\n{WANTED}" if "new_instruction" in asked else WANTED


def teachable(request: Request) -> str:
    """Knows every name; says it as is wanted when told how, when shown how, and now and then."""
    if is_proposal(request):
        return proposal(request)
    number = number_in(request.messages[-1].content.split("thing")[-1])
    told = "full sentence" in request.messages[0].content
    by_chance = request.temperature > 0 and (request.seed or 0) % 3 == 0
    if told or demos_in(request) or by_chance:
        said = f"Thing {number} is called name{number}."
    else:
        said = f"name{number}, I think"
    if "Reasoning: ..." in request.messages[0].content:
        said = f"Reasoning: it is {number}.\nAnswer: {said}"
    return said


def search(work: Path, strategy: str, model: ScriptedModel | None = None, **settings: object):
    model = model or ScriptedModel(teachable)
    ctx = settings.pop("ctx", None) or context(work, train=TRAIN[:16])
    return model, *fit(model, ctx, strategy=strategy, **{**SIZES, **settings})


@pytest.mark.parametrize("program", ["answer", "cot", "steps"])
@pytest.mark.parametrize("strategy", PROPOSING)
def test_every_optimizer_improves_every_form_and_every_token_is_metered(
    tmp_path, strategy, program
):
    steps = {"steps": [{"name": "plan", "instructions": "Plan."}]} if program == "steps" else {}
    sizes = {"trials": 4, "candidates": 4}
    model, _, adapted, found = search(tmp_path, strategy, program=program, **sizes, **steps)
    first, *others = adapted.detail["candidates"]
    assert first["name"] == "zero-shot"
    assert all(name.startswith(strategy) for name in (c["name"] for c in others))
    best = max(c["dev_score"] for c in adapted.detail["candidates"] if c["dev_score"] is not None)
    chosen = next(c for c in adapted.detail["candidates"] if c["name"] == adapted.detail["chosen"])
    assert chosen["dev_score"] == best >= first["dev_score"]
    assert best == 1.0 or (strategy, program) in (("mipro", "steps"), ("mipro", "cot"))
    assert adapted.usage["optimize"] + adapted.usage["propose"] == model.usage
    made = (adapted.detail["calls"]["made"], adapted.detail["proposer"]["calls"]["made"])
    asked = sum(is_proposal(r) for r in model.requests)
    assert made == (model.calls - asked, asked)
    assert asked > 0
    greedy = [r for r in model.requests if not r.temperature]
    assert len(set(greedy)) == len(greedy)
    assert adapted.detail["ended_by"] is None
    assert Program.load(Path(adapted.folder)) == found


@pytest.mark.parametrize("strategy", SEARCHING)
def test_the_start_is_kept_where_nothing_helps(tmp_path, strategy):
    def stubborn(request: Request) -> str:
        if is_proposal(request):
            return proposal(request)
        number = int(number_in(request.messages[-1].content))
        return f"Thing {number} is called name{number}." if number % 3 == 0 else "No idea"

    _, _, adapted, found = search(tmp_path, strategy, ScriptedModel(stubborn))
    assert adapted.detail["chosen"] == "zero-shot"
    assert len({c["dev_score"] for c in adapted.detail["candidates"]}) == 1
    assert found.last.demos == ()
    assert found.last.instructions == context(tmp_path).task.instructions


def test_what_the_optimizer_takes_for_better_on_train_is_not_taken_where_dev_says_no(tmp_path):
    train = {content_hash(r.question) for r in TRAIN}

    def misled(request: Request) -> str:
        """Told how, it is right on train rows only."""
        if is_proposal(request):
            return proposal(request)
        question = request.messages[-1].content
        number = number_in(question)
        told = "full sentence" in request.messages[0].content
        right = told == (content_hash(question) in train)
        return f"Thing {number} is called name{number}." if right else "No idea"

    _, _, adapted, _ = search(tmp_path, "gepa", ScriptedModel(misled))
    scores = {c["name"]: c["dev_score"] for c in adapted.detail["candidates"]}
    assert scores == {"zero-shot": 1.0, "gepa-1": 0.0}
    assert adapted.detail["chosen"] == "zero-shot"


@pytest.mark.parametrize("strategy", SEARCHING)
def test_a_limit_in_calls_is_kept_exactly_and_the_best_so_far_is_returned(tmp_path, strategy):
    most = {"random-search": 60, "mipro": 75, "gepa": 50, "simba": 190}[strategy]
    model, _, adapted, _ = search(tmp_path, strategy, limit={"calls": most}, trials=9, candidates=3)
    assert model.calls == most or (strategy == "simba" and model.calls < most)
    if strategy != "simba":
        assert adapted.detail["ended_by"] == f"limit.calls = {most} was reached"
    assert adapted.detail["limit_used"]["calls"] == model.calls
    best = max((c["dev_score"] or 0.0) for c in adapted.detail["candidates"])
    assert best == 1.0
    assert adapted.detail["chosen"] != "zero-shot"
    total = sum(adapted.usage.values(), ZERO_USAGE)
    assert total == model.usage


def test_limits_in_tokens_and_minutes_end_a_search_too(tmp_path):
    free, *_ = search(tmp_path / "free", "random-search")
    used = free.usage.prompt_tokens + free.usage.completion_tokens
    model, _, adapted, _ = search(
        tmp_path / "tokens", "random-search", limit={"tokens": used // 2}, threads=1
    )
    assert adapted.detail["ended_by"] == f"limit.tokens = {used // 2:g} was reached"
    assert used // 2 <= adapted.detail["limit_used"]["tokens"] < used // 2 + 100
    assert model.calls < free.calls
    _, _, adapted, found = search(tmp_path / "time", "gepa", limit={"minutes": 1e-6})
    assert adapted.detail["ended_by"] == "limit.minutes = 1e-06 was reached"
    # Not even the start could be scored: it is what there is.
    assert (adapted.detail["chosen"], found.last.demos) == ("zero-shot", ())
    assert adapted.detail["candidates"][0]["dev_score"] is None


def test_where_tokens_are_unknown_the_most_there_can_be_is_counted(tmp_path):
    class Silent(ScriptedModel):
        def complete(self, requests):
            return [replace(c, usage=Usage()) for c in super().complete(requests)]

    model = Silent(teachable)
    limit = {"tokens": 20_000}
    _, _, adapted, _ = search(tmp_path, "random-search", model, limit=limit, threads=1)
    assert adapted.detail["ended_by"] == "limit.tokens = 20000 was reached"
    assert adapted.usage["optimize"] == Usage()


def paid(work: Path, url: str, cap: float, usd: float | None, **changes: object):
    """A search with a proposer that charges a dollar a thousand tokens."""
    proposer = {"model": "scripted", "base_url": url, **changes}
    settings = {"strategy": "gepa", "trials": 3, "proposer": proposer, "limit": {"usd": usd}}
    wallet = Wallet(BudgetConfig(spend=True, max_usd=cap))
    model = ScriptedModel(teachable)
    route = PromptRoute(PromptSettings.model_validate(settings), wallet, lambda config: model)
    return route.fit(context(work)), wallet, model


PRICES = {"usd_per_million_in": 1000.0, "usd_per_million_out": 1000.0}


def test_a_limit_in_dollars_counts_what_the_proposer_charges(tmp_path):
    with ChatServer(ScriptedModel(lambda request: "Be short.")) as server:
        adapted, wallet, model = paid(tmp_path, server.url, 1000.0, 0.5, **PRICES)
        used = adapted.usage["propose"]
        assert wallet.spent == pytest.approx((used.prompt_tokens + used.completion_tokens) / 1000)
        assert adapted.detail["limit_used"]["usd"] == pytest.approx(wallet.spent)
        assert adapted.detail["ended_by"] == "limit.usd = 0.5 was reached"
        assert len(server.bodies) == adapted.detail["proposer"]["calls"]["made"]
        assert adapted.usage["optimize"] == model.usage


def test_a_limit_in_dollars_without_a_price_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"limit\.usd = 1 can end nothing: no model"):
        search(tmp_path, "gepa", limit={"usd": 1})
    with (
        ChatServer(ScriptedModel(proposal)) as server,
        pytest.raises(ConfigError, match="the price of scripted is not known"),
    ):
        paid(tmp_path, server.url, 1000.0, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_proposer_that_may_not_be_paid_any_more_ends_the_search_and_no_more(tmp_path):
    with ChatServer(ScriptedModel(lambda request: "Be short.")) as server:
        adapted, wallet, _ = paid(tmp_path, server.url, 9.0, None, **PRICES)
        assert "BudgetError" in adapted.detail["notes"][0]
        assert wallet.spent <= 9.0
        assert adapted.detail["candidates"][0]["dev_score"] is not None
    far = {"model": "m", "base_url": "https://example.com/v1"}
    with pytest.raises(BudgetError, match="nothing may be spent"):
        search(tmp_path / "far", "gepa", proposer=far)


@pytest.mark.parametrize("strategy", PROPOSING)
@pytest.mark.parametrize("how", ["refuses", "fails", "away", "babbles"])
def test_a_proposer_that_is_no_help_loses_nothing(tmp_path, strategy, how, monkeypatch):
    def fail(body: object, seen: int) -> Failure | None:
        status = {"refuses": 401, "fails": 422}.get(how)
        return None if status is None else Failure(status)

    waits: list[float] = []
    monkeypatch.setattr(
        "tunelm.models.remote.RemoteModel._pause", lambda *asked: waits.append(0.0) or 0.0
    )
    with ChatServer(ScriptedModel(lambda request: ""), fail=fail) as server:
        place = {"model": "scripted", "base_url": server.url}
        if how != "away":
            _, _, adapted, _ = search(tmp_path, strategy, proposer=place, candidates=4, trials=4)
    if how == "away":
        _, _, adapted, _ = search(tmp_path, strategy, proposer=place, candidates=4, trials=4)
    detail = adapted.detail
    scores = {c["name"]: c["dev_score"] for c in detail["candidates"]}
    assert scores["zero-shot"] == 0.25
    assert scores[detail["chosen"]] == max(s for s in scores.values() if s is not None)
    assert detail["proposer"]["calls"]["made"] or how in ("refuses", "away")
    if how in ("refuses", "away"):
        assert "there were no more proposals: scripted broke" in " ".join(detail["notes"])
    if strategy != "gepa":  # these go on with demonstrations
        assert scores[detail["chosen"]] == 1.0


def test_proposals_are_sampled_anew_with_seeds_that_the_run_decides(tmp_path):
    def seeds(work: Path, **changes: object) -> list[int | None]:
        ctx = context(work, train=TRAIN[:16], **changes)
        model, *_ = search(work, "simba", ctx=ctx, threads=8)
        sampled = [r for r in model.requests if r.temperature]
        assert len(set(sampled)) == len(sampled)
        assert len({replace(r, seed=None) for r in sampled}) < len(sampled)
        return sorted(r.seed for r in sampled)

    first = seeds(tmp_path / "a")
    assert None not in first
    assert seeds(tmp_path / "b") == first
    assert seeds(tmp_path / "c", seed=1) != first


@pytest.mark.parametrize("strategy", PROPOSING)
def test_the_same_seed_gives_the_same_program_whatever_the_threads(tmp_path, strategy):
    texts: list[bytes] = []
    for threads in (8, 1):
        work = tmp_path / str(threads)
        search(work, strategy, threads=threads)
        texts.append((work / "adapted" / FILE).read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("strategy", SEARCHING)
def test_a_killed_search_goes_on_and_asks_nothing_twice(tmp_path, strategy):
    whole, *_ = search(tmp_path / "whole", strategy, threads=1)
    lock, killed_at = threading.Lock(), whole.calls * 3 // 4

    def dying(request: Request) -> str:
        with lock:
            if model.calls >= killed_at:
                raise KeyboardInterrupt
        return teachable(request)

    work = tmp_path / "killed"
    model = ScriptedModel(dying)
    with pytest.raises(KeyboardInterrupt):
        search(work, strategy, model, threads=1)
    before = list(model.requests)
    assert (work / ANSWERS).exists()
    with (work / ANSWERS).open("a") as file:
        file.write('{"phase": "optimize", "asked": "cut sho')
    again = ScriptedModel(teachable)
    _, _, adapted, found = search(work, strategy, again, threads=1)
    kept = set(before) & set(again.requests)
    assert not kept
    assert sum(adapted.usage.values(), ZERO_USAGE) == model.usage + again.usage
    assert again.calls + len(before) == whole.calls
    assert not (work / ANSWERS).exists()
    uninterrupted = Program.load(tmp_path / "whole" / "adapted")
    assert found.steps == uninterrupted.steps
    calls = again.calls
    search(work, strategy, again, threads=1)
    assert again.calls == calls  # it is finished


def test_answers_of_another_search_are_not_taken(tmp_path):
    def dying(request: Request) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, "gepa", ScriptedModel(dying))
    with pytest.raises(RunDirError, match="other rows, settings or seed"):
        search(tmp_path, "gepa", ctx=context(tmp_path, seed=3))


@pytest.mark.parametrize("strategy", SEARCHING)
def test_a_metric_that_raises_ends_the_route_with_its_error(tmp_path, strategy):
    odd = replace(DEV[3], metadata={"key_answers": "a text"})
    ctx = context(tmp_path, metric="contains", train=TRAIN[:16], dev=(*DEV[:3], odd))
    with pytest.raises(DataError, match="must be a list of short texts"):
        search(tmp_path, strategy, ctx=ctx)
    assert not (tmp_path / "adapted").exists()


@pytest.mark.parametrize("strategy", PROPOSING)
def test_a_model_that_fails_every_row_is_no_result(tmp_path, strategy):
    def down(request: Request) -> str:
        raise ValueError("503 overloaded")

    with pytest.raises(ModelError, match=r"all 20 calls to scripted failed.*503 overloaded"):
        search(tmp_path, strategy, ScriptedModel(down))


def by_tries(request: Request) -> str:
    """Greedy it is wrong; one sample in two is right. Demonstrations do not help."""
    number = number_in(request.messages[-1].content)
    right = request.temperature > 0 and int(content_hash([number, request.seed]), 16) % 2
    return f"Thing {number} is called name{number}." if right else "No idea"


@pytest.mark.parametrize(
    ("answer", "worth_it", "optimizer"),
    [(teachable, True, "random-search"), (by_tries, True, "random-search")],
)
def test_auto_searches_where_there_is_headroom(tmp_path, answer, worth_it, optimizer):
    model, route, adapted, _ = search(tmp_path, "auto", ScriptedModel(answer))
    room = adapted.detail["headroom"]
    assert room["verdict"] in adapted.detail["notes"], "the report says it"
    assert room["worth_it"] is worth_it
    assert "looks worth it: " in room["verdict"]
    assert adapted.detail["optimizer"] == optimizer
    assert room["rows"] == room["best_of_n"]["n"] == 20
    assert room["best_of_n"]["ci_low"] > 0.05
    calls = route.plan(context(tmp_path, train=TRAIN[:16])).forecasts["calls"]
    assert calls.low <= model.calls <= calls.high


def test_auto_leaves_it_at_the_better_of_two_where_there_is_none(tmp_path):
    def fixed(request: Request) -> str:
        number = int(number_in(request.messages[-1].content))
        return f"Thing {number} is called name{number}." if number % 3 == 0 else ""

    model, _, adapted, _ = search(tmp_path, "auto", ScriptedModel(fixed))
    room = adapted.detail["headroom"]
    assert "does not look worth it" in room["verdict"]
    assert [c["name"] for c in adapted.detail["candidates"]] == ["zero-shot", "labeled"]
    assert adapted.detail["chosen"] == "zero-shot"
    assert "optimizer" not in adapted.detail
    assert room["form"] == {
        "rows": 20,
        "failed": 0,
        "format_errors": 0,
        "cut_at_max_tokens": 0,
        "scored_zero": 14,
    }
    assert model.calls == 4 + 20 + 80 + 20


def test_auto_reflects_where_a_proposer_is_given(tmp_path):
    with ChatServer(ScriptedModel(proposal)) as server:
        place = {"model": "scripted", "base_url": server.url}
        _, _, adapted, _ = search(tmp_path, "auto", proposer=place, trials=4)
    assert adapted.detail["optimizer"] == "gepa"
    assert adapted.usage["propose"].prompt_tokens > 0


@pytest.mark.parametrize("strategy", ["random-search", "gepa"])
def test_where_the_wanted_form_is_missing_prompting_beats_zero_shot_for_sure(tmp_path, strategy):
    from tunelm.routes.programs.model import open_program
    from tunelm.routes.programs.start import bare, start_steps
    from tunelm.scoring.metrics import get_metric
    from tunelm.scoring.statistics import paired

    model, route, adapted, _ = search(tmp_path, strategy)
    held_out = [row(n) for n in range(300, 340)]
    start = open_program(bare(start_steps(route.settings, context(tmp_path).task)), model)
    metric = get_metric("token_f1")

    def scores(opened) -> list[tuple[float, ...]]:
        got = opened.complete([Request(r.messages) for r in held_out])
        return [metric.statistics(c.text, r) for c, r in zip(got, held_out, strict=True)]

    found = paired(scores(route.open(adapted)), scores(start), [r.group for r in held_out])
    assert found.n == 40
    assert found.low > 0.3


@pytest.mark.parametrize("strategy", SEARCHING)
def test_metered_tokens_are_the_servers_own_to_the_token(tmp_path, strategy):
    task, helper = ScriptedModel(teachable, "task"), ScriptedModel(proposal, "helper")

    def limited(body: object, seen: int) -> Failure | None:
        """Now and then it is told to come again."""
        now_and_then = seen == 0 and len(str(body)) % 7 == 0
        return Failure(429, headers={"Retry-After": "0"}) if now_and_then else None

    with ChatServer(task, fail=limited) as server, ChatServer(helper) as other:
        from tunelm.models.remote import open_remote

        model = open_remote("task", server.url)
        proposer = {"model": "helper", "base_url": other.url}
        settings = {"strategy": strategy, "trials": 2, "candidates": 2, "demos": 2, "threads": 4}
        route = PromptRoute(
            PromptSettings.model_validate({**settings, "proposer": proposer}),
            open_model=lambda config: model,
        )
        adapted = route.fit(context(tmp_path, train=TRAIN[:16]))
        assert 1 < server.most_at_once <= 8
    assert adapted.usage["optimize"] == replace(task.usage, cached_tokens=0)
    assert adapted.usage.get("propose", ZERO_USAGE) == helper.usage
    assert adapted.detail["calls"]["made"] == task.calls
    assert adapted.detail["model"]["endpoint"] == server.url


def test_searches_are_silent_and_write_nothing_to_the_home_folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    out = in_python(
        "import sys, pathlib\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from tests import test_route_prompt_search as t\n"
        f"work = pathlib.Path({str(tmp_path / 'w')!r})\n"
        "for strategy in t.PROPOSING:\n"
        "    t.search(work / strategy, strategy)\n"
        "print('litellm' in sys.modules)\n",
        HOME=str(home),
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert out == "False\n"
    assert list(home.rglob("*")) == []
