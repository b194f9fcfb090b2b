"""The prompt route: what it chooses, what it sends, what it counts."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, ModelError, PrerequisiteError, RunDirError
from tunelm.route_settings import PromptSettings
from tunelm.routes.base import FitContext
from tunelm.routes.programs.pool import POOL_ROWS, demo_pool
from tunelm.routes.programs.program import FILE, Program
from tunelm.routes.prompt import PromptRoute
from tunelm.testing import ScriptedModel
from tunelm.types import Adapted, Example, Message, Request, Usage, content_hash

INSTRUCTIONS = "  Answer the question.\nIn one sentence. \n"
"""With the outer whitespace that DSPy would strip."""


def row(number: int, group: str | None = None, question: str | None = None) -> Example:
    question = question or f"What is the name of thing {number}?\n "
    answer = f"Thing {number} is called name{number}."
    messages = (Message("user", question),)
    return Example(content_hash([question, answer]), messages, (answer,), group or f"fact-{number}")


TRAIN = tuple(row(n) for n in range(40))
DEV = tuple(row(n) for n in range(100, 120))


def number_in(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


def demos_in(request: Request) -> int:
    return sum(m.role == "assistant" for m in request.messages)


def helped(request: Request) -> str:
    """Knows every name, and takes the wanted form from demonstrations: a better one of more."""
    number = number_in(request.messages[-1].content)
    if demos_in(request) == 0:
        return f"name{number}, I think"
    return f"Thing {number} is called name{number}."


def stubborn(request: Request) -> str:
    """Knows a third of the names, and never looks at demonstrations."""
    number = number_in(request.messages[-1].content)
    return f"Thing {number} is called name{number}." if int(number) % 3 == 0 else "No idea"


def context(work: Path, metric: str = "token_f1", **changes: object) -> FitContext:
    ctx = FitContext(
        name="prompt",
        task=TaskConfig(name="things", instructions=INSTRUCTIONS),
        model=ModelConfig(base="scripted"),
        metric=metric,
        train=TRAIN,
        dev=DEV,
        work=work,
    )
    return replace(ctx, **changes)


def fit(
    model: ScriptedModel, ctx: FitContext, **settings: object
) -> tuple[PromptRoute, Adapted, Program]:
    defaults = {"candidates": 3, "demos": 3, "threads": 8}
    route = PromptRoute(
        PromptSettings.model_validate({**defaults, **settings}), open_model=lambda config: model
    )
    adapted = route.fit(ctx)
    return route, adapted, Program.load(Path(adapted.folder))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory):
    """One random search with a model that demonstrations help."""
    model = ScriptedModel(helped)
    work = tmp_path_factory.mktemp("searched")
    route, adapted, program = fit(model, context(work))
    return model, work, route, adapted, program


def test_random_search_shows_demonstrations_where_they_help(searched):
    _, _, _, adapted, program = searched
    assert len(program.last.demos) == 3
    scores = {c["name"]: c["dev_score"] for c in adapted.detail["candidates"]}
    assert scores["labeled"] == 1.0
    assert scores["zero-shot"] < 0.6
    # All few-shot candidates are perfect: the tie goes to the one that needs no bootstrapping.
    assert adapted.detail["chosen"] == "labeled"
    assert list(scores) == ["zero-shot", "labeled", *(f"bootstrapped-{n}" for n in (1, 2, 3))]
    groups = {row.id: row.group for row in TRAIN}
    assert len({groups[demo.example_id] for demo in program.last.demos}) == 3


def test_random_search_returns_zero_shot_where_nothing_helps(tmp_path):
    _, adapted, program = fit(ScriptedModel(stubborn), context(tmp_path))
    assert program.last.demos == ()
    assert adapted.detail["chosen"] == "zero-shot"
    assert len({c["dev_score"] for c in adapted.detail["candidates"]}) == 1


def test_bootstrapped_demonstrations_are_the_models_own_answers_that_pass(tmp_path):
    def wordy(request: Request) -> str:
        """Follows the demonstrations' form only if the first one is its own wording."""
        number = number_in(request.messages[-1].content)
        turns = [m.content for m in request.messages if m.role == "assistant"]
        own = f"Thing {number} is the called name{number}."  # "the" is no token of F1
        return own if turns and (len(request.messages) == 6 or "the" in turns[0]) else "No idea"

    ctx = context(tmp_path, metric="exact_match")
    _, adapted, program = fit(ScriptedModel(wordy), ctx, demos=2, candidates=2)
    summary = {c["name"]: c for c in adapted.detail["candidates"]}
    boot = [d["source"] for d in summary["bootstrapped-1"]["demos"]]
    assert boot == ["bootstrapped", "bootstrapped"]
    assert [d["source"] for d in summary["labeled"]["demos"]] == ["labeled", "labeled"]
    chosen = adapted.detail["chosen"]
    for demo, said in zip(program.last.demos, summary[chosen]["demos"], strict=True):
        assert (demo.example_id, demo.source) == (said["example_id"], said["source"])


def test_labeled_takes_gold_answers_and_only_probes_the_length(tmp_path):
    model = ScriptedModel(helped)
    _, adapted, program = fit(model, context(tmp_path), strategy="labeled")
    gold = {row.id: row for row in TRAIN}
    assert len(program.last.demos) == 3
    for demo in program.last.demos:
        asked = gold[demo.example_id]
        assert demo.source == "labeled"
        assert demo.messages == (*asked.messages, Message("assistant", asked.answers[0]))
    assert model.calls == 4
    assert adapted.detail["candidates"][0]["dev_score"] is None


def test_every_token_that_the_model_counted_is_metered(searched):
    model, _, _, adapted, _ = searched
    assert adapted.usage == {"optimize": model.usage}
    assert model.usage.prompt_tokens > 0
    calls = adapted.detail["calls"]
    assert (calls["made"], calls["failed"]) == (model.calls, 0)


def test_no_request_is_paid_twice_and_the_forecast_holds(searched):
    model, work, route, adapted, _ = searched
    assert len(set(model.requests)) == model.calls
    assert adapted.detail["calls"]["repeated"] > 0  # bootstrapping reads the teacher's answers
    forecast = route.plan(context(work)).forecasts
    assert 0 <= forecast["calls"].value - model.calls <= 4  # the search may ask a probe's again
    characters = sum(len(m.content) for r in model.requests for m in r.messages)
    assert forecast["prompt_tokens"].value * 4 == pytest.approx(characters, rel=0.05)
    assert forecast["usd"].value is None


def test_failed_rows_are_counted_and_do_not_stop_the_search(tmp_path):
    def refusing(request: Request) -> str:
        if request.messages[-1].content == DEV[0].messages[0].content:
            raise ValueError("content_filter: refused")
        return helped(request)

    model = ScriptedModel(refusing)
    _, adapted, _ = fit(model, context(tmp_path))
    for candidate in adapted.detail["candidates"]:
        assert candidate["failed_rows"] == 1
        assert candidate["dev_score"] <= 19 / 20
    failed = {request for request in model.requests if request.messages[-1] == DEV[0].messages[0]}
    assert adapted.detail["calls"]["failed"] == len(failed)
    assert adapted.detail["calls"]["first_error"] == "content_filter: refused"


def test_an_empty_answer_is_wrong_and_not_failed(tmp_path):
    model = ScriptedModel(lambda request: "")
    route, adapted, _ = fit(model, context(tmp_path))
    assert {c["failed_rows"] for c in adapted.detail["candidates"]} == {0}
    assert {c["dev_score"] for c in adapted.detail["candidates"]} == {0.0}
    # Where no answer may be bootstrapped the pool is still asked once only.
    assert model.calls <= route.plan(context(tmp_path)).forecasts["calls"].value


def test_the_same_seed_gives_the_same_program_whatever_the_threads(tmp_path):
    def some(request: Request) -> str:
        """Right or wrong by what the prompt holds, so that candidates differ."""
        number = number_in(request.messages[-1].content)
        right = int(content_hash([m.content for m in request.messages]), 16) % 3 > 0
        return f"Thing {number} is called name{number}." if right else "No idea"

    texts: list[dict[str, object]] = []
    for run, threads in enumerate((8, 8, 1)):
        work = tmp_path / str(run)
        fit(ScriptedModel(some), context(work), threads=threads)
        texts.append(json.loads((work / "adapted" / FILE).read_text(encoding="utf-8")))
    assert texts[0] == texts[1] == texts[2]
    assert len({c["dev_score"] for c in texts[0]["search"]["candidates"]}) > 1
    _, other, _ = fit(ScriptedModel(some), context(tmp_path / "seed", seed=1))
    assert other.detail["candidates"][1] != texts[0]["search"]["candidates"][1]
    shuffled = context(tmp_path / "order", train=TRAIN[::-1])
    _, reordered, _ = fit(ScriptedModel(some), shuffled)
    assert reordered.detail["demos"] == [
        {"example_id": d["example_id"], "source": d["source"]}
        for d in texts[0]["steps"][-1]["demos"]
    ]


def test_a_program_saved_and_opened_again_answers_the_same(searched, tmp_path):
    _, work, route, adapted, program = searched
    copy = tmp_path / "elsewhere"
    program.save(copy)
    assert (copy / FILE).read_bytes() == (work / "adapted" / FILE).read_bytes()
    moved = Adapted.from_json(json.loads(json.dumps(adapted.to_json())), str(copy))
    requests = [Request(row.messages) for row in DEV]
    answers = [c.text for c in route.open(moved).complete(requests)]
    assert answers == [c.text for c in route.open(adapted).complete(requests)]
    assert answers == [row.answers[0] for row in DEV]


def test_the_folder_holds_one_json_file_with_its_provenance(searched):
    _, work, _, adapted, _ = searched
    assert [p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file()] == [
        f"adapted/{FILE}"
    ]
    data = json.loads((work / "adapted" / FILE).read_text(encoding="utf-8"))
    assert set(data["versions"]) == {"tunelm", "dspy", "gepa"}
    assert data["made_from"]["dev"] == {
        "rows": len(DEV),
        "ids": content_hash(sorted(row.id for row in DEV)),
    }
    json.dumps(adapted.to_json())


def test_fitting_again_returns_the_finished_program_and_refuses_another(searched):
    model, work, route, adapted, _ = searched
    calls = model.calls
    assert route.fit(context(work)) == adapted
    assert model.calls == calls
    with pytest.raises(RunDirError, match="made with other dev, seed"):
        route.fit(context(work, seed=5, dev=DEV[1:]))


def test_a_damaged_program_says_what_to_do(tmp_path):
    (tmp_path / FILE).write_text('{"format": "something"}')
    with pytest.raises(RunDirError, match="fit the route again"):
        Program.load(tmp_path)


def limited(words: int):
    """`helped`, for a model with a context of so many words."""

    def answer(request: Request) -> str:
        if sum(len(m.content.split()) for m in request.messages) > words:
            raise ValueError("context_length_exceeded")
        return helped(request)

    return answer


@pytest.mark.parametrize("strategy", ["labeled", "random-search"])
def test_demonstrations_that_overflow_the_context_are_left_out(tmp_path, strategy):
    # Instructions 6 words, a question 7, a demonstration 12: two of them fit in 37.
    model = ScriptedModel(limited(37))
    route, adapted, program = fit(model, context(tmp_path), strategy=strategy)
    assert adapted.detail["demos_that_fit"] == len(program.last.demos) == 2
    assert adapted.detail["calls"]["failed"] > 0
    done = route.open(adapted).complete([Request(row.messages) for row in DEV])
    assert [c.error for c in done] == [None] * len(DEV)


def test_room_for_the_answer_counts_too(tmp_path):
    # 6 + 12 a demonstration + 7 words, and the answer's 64, in max_length = 100: one fits.
    ctx = context(tmp_path, model=ModelConfig(base="scripted", max_length=100))
    _, _, program = fit(ScriptedModel(helped), ctx, strategy="labeled")
    assert len(program.last.demos) == 1


def test_a_corpus_metric_is_searched_with_token_f1_and_says_so(tmp_path):
    _, adapted, program = fit(ScriptedModel(helped), context(tmp_path, metric="bleu"), candidates=1)
    assert adapted.detail["metric"] == "token_f1"
    assert program.made_from["metric"] == "bleu"


def test_demonstrations_share_a_group_only_when_there_are_too_few_groups():
    paraphrases = [row(n, group=f"fact-{n % 5}") for n in range(40)]
    assert len(demo_pool(paraphrases, 4, seed=0)) == 5
    assert len({r.group for r in demo_pool(paraphrases, 4, seed=0)}) == 5
    filled = demo_pool(paraphrases, 7, seed=0)
    assert (len(filled), len({r.group for r in filled})) == (7, 5)
    assert demo_pool(paraphrases[::-1], 4, seed=0) == demo_pool(paraphrases, 4, seed=0)
    assert len(demo_pool([row(n) for n in range(99)], 4, seed=0)) == POOL_ROWS


def test_a_model_that_breaks_ends_the_route_at_once(tmp_path):
    def broken(request: Request) -> str:
        if len(model.requests) > 60:
            raise MemoryError("out of memory")
        return helped(request)

    model = ScriptedModel(broken)
    with pytest.raises(ModelError, match="MemoryError: out of memory"):
        fit(model, context(tmp_path))
    assert model.calls < 80
    assert not (tmp_path / "adapted").exists()


def test_a_model_that_fails_every_row_is_no_result(tmp_path):
    def down(request: Request) -> str:
        raise ValueError("503 overloaded")

    with pytest.raises(ModelError, match=r"all \d+ calls to scripted failed.*503 overloaded"):
        fit(ScriptedModel(down), context(tmp_path), demos=1, candidates=1)


def test_missing_rows_are_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"routes\.prompt\.strategy = 'labeled'"):
        fit(ScriptedModel(helped), context(tmp_path, dev=()))
    with pytest.raises(ConfigError, match="no train rows"):
        fit(ScriptedModel(helped), context(tmp_path, train=()))


def test_progress_counts_up_to_the_forecast(tmp_path):
    seen: list[tuple[int, int]] = []
    lock = threading.Lock()

    def progress(what: str, done: int, total: int) -> None:
        with lock:
            seen.append((done, total))

    fit(ScriptedModel(helped), context(tmp_path, progress=progress), candidates=1)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    assert seen[-1][0] == seen[-1][1]


def test_unknown_usage_stays_unknown(tmp_path):
    class Silent(ScriptedModel):
        def complete(self, requests):
            return [replace(c, usage=Usage()) for c in super().complete(requests)]

    _, adapted, _ = fit(Silent(helped), context(tmp_path), strategy="labeled")
    assert adapted.usage["optimize"] == Usage()


def test_a_local_model_is_searched_and_opens_with_the_same_answers(tmp_path):
    from tunelm.testing import make_tiny_model

    base = make_tiny_model(tmp_path / "base")
    ctx = context(
        tmp_path / "work",
        model=ModelConfig(base=str(base), device="cpu", max_length=400),
        task=TaskConfig(name="things", instructions=INSTRUCTIONS, max_tokens=8),
        train=TRAIN[:6],
        dev=DEV[:6],
    )
    route = PromptRoute(PromptSettings(demos=2, candidates=1, threads=4))
    adapted = route.fit(ctx)
    calls = adapted.detail["calls"]
    assert (calls["failed"], calls["made"]) == (0, 4 + 6 + 3 * 6)
    assert adapted.usage["optimize"].completion_tokens <= 8 * calls["made"]
    assert set(adapted.base["identity"]) == {"weights", "tokenizer", "chat_template"}
    requests = [Request(row.messages, max_tokens=8) for row in DEV]
    again = PromptRoute(PromptSettings()).open(adapted)
    assert again.complete(requests)[0].text == route.open(adapted).complete(requests)[0].text
    assert [c.error for c in again.complete(requests)] == [None] * len(DEV)


def in_python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_route_and_opening_a_program_load_no_dspy(searched):
    _, _, _, adapted, _ = searched
    out = in_python(
        "import sys\n"
        "from tunelm.routes.prompt import PromptRoute\n"
        "from tunelm.route_settings import PromptSettings\n"
        "from tunelm.testing import ScriptedModel\n"
        "from tunelm.types import Adapted, Message, Request\n"
        "model = ScriptedModel(lambda request: str(len(request.messages)))\n"
        "route = PromptRoute(PromptSettings(), open_model=lambda config: model)\n"
        f"adapted = Adapted('prompt', {adapted.folder!r}, {dict(adapted.base)!r}, 'Hello')\n"
        "print(route.open(adapted).complete([Request((Message('user', 'x'),))])[0].text)\n"
        "print([m for m in ('dspy', 'torch', 'transformers', 'litellm') if m in sys.modules])\n"
    )
    assert out == "8\n[]\n"


def test_a_search_is_silent_and_writes_nothing_to_the_home_folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    out = in_python(
        "import sys, pathlib\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_route_prompt as t\n"
        f"t.fit(t.ScriptedModel(t.helped), t.context(pathlib.Path({str(tmp_path / 'w')!r})))\n"
        "print('litellm' in sys.modules)\n",
        HOME=str(home),
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert out == "False\n"
    assert list(home.rglob("*")) == []


def test_a_missing_or_newer_dspy_is_named_with_its_command(tmp_path, monkeypatch):
    import importlib.metadata

    def gone(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    for version, said in ((gone, "is not installed"), (lambda name: "3.5.0", "here as 3.5.0")):
        monkeypatch.setattr(importlib.metadata, "version", version)
        with pytest.raises(PrerequisiteError, match=said) as caught:
            fit(ScriptedModel(helped), context(tmp_path))
        assert "pip install 'tunelm[prompt]'" in str(caught.value)
