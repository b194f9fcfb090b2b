"""The route rag: what it shows, what it makes, and what it brings where knowledge is missing."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from tunelm.config import ModelConfig, TaskConfig
from tunelm.errors import ConfigError, DataError, ModelError, RunDirError
from tunelm.retrieval.chunks import read_corpus
from tunelm.retrieval.index import build_retriever
from tunelm.route_settings import PromptSettings, RagSettings
from tunelm.routes.base import FitContext
from tunelm.routes.prompt import PromptRoute
from tunelm.routes.rag import RagRoute
from tunelm.routes.rag_generator import Generator
from tunelm.scoring.metrics import get_metric
from tunelm.scoring.statistics import paired
from tunelm.testing import ScriptedModel
from tunelm.types import Adapted, Example, Message, Request, content_hash

from .test_retrieval import make_embedder

pytest.importorskip("bm25s")

CITIES = ("Aronda", "Belmuth", "Corvane", "Dessin", "Elgarth", "Fenwick", "Gorlitz", "Halden")
GOODS = ("amber", "barley", "copper", "damask", "ebony", "flax", "glass", "honey")


def fact(city: str, year: int) -> tuple[str, str]:
    """What was sold in a city in a year, and the sentence that says so: nobody can guess it."""
    goods = GOODS[(CITIES.index(city) * 5 + year * 3) % len(GOODS)]
    return goods, f"In the year {year} the market of {city} sold {goods}."


def rows(years: range) -> tuple[Example, ...]:
    made: list[Example] = []
    for city in CITIES:
        for year in years:
            _, sentence = fact(city, year)
            messages = (Message("user", f"What did the market of {city} sell in the year {year}?"),)
            key = {"key_answers": [sentence.rstrip(".")]}
            identity = content_hash([city, year])
            made.append(Example(identity, messages, (sentence,), f"{city}-{year}", metadata=key))
    return tuple(made)


TRAIN, DEV = rows(range(1100, 1104)), rows(range(1200, 1206))


def write_corpus(
    path: Path, years: tuple[range, ...] = (range(1100, 1104), range(1200, 1206))
) -> Path:
    lines = [fact(city, year)[1] for city in CITIES for span in years for year in span]
    path.write_text("# Markets\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def reader(request: Request) -> str:
    """Says the sentence of its prompt that has the question's city and year; guesses otherwise."""
    question = request.messages[-1].content.rsplit("Question: ", 1)[-1]
    city, year = re.search(r"of (\w+) sell in the year (\d+)", question).groups()
    for message in request.messages:
        for line in message.content.split("\n"):
            if f"year {year} the market of {city} sold" in line:
                number, sentence = re.match(r"(?:Passage: )?(?:\[(\d+)\] )?(.*)", line).groups()
                cites = "in brackets" in request.messages[0].content
                return sentence.replace(".", f" [{number}].") if cites else sentence
    return f"In the year {year} the market of {city} sold honey."


def context(work: Path, corpus: Path | None, **changes: object) -> FitContext:
    ctx = FitContext(
        name="rag",
        task=TaskConfig(name="markets", instructions="Answer.", max_tokens=24),
        model=ModelConfig(base="scripted"),
        metric="exact_match",
        train=TRAIN,
        dev=DEV,
        work=work,
        corpus=corpus,
    )
    return dataclasses.replace(ctx, **changes)


def rag(model: ScriptedModel | None = None, **settings: object) -> RagRoute:
    made = RagSettings.model_validate(settings)
    return RagRoute(made, open_model=(lambda config: model) if model else None)


def values(model, examples=DEV) -> list[tuple[float, float]]:
    answers = model.complete([Request(row.messages, max_tokens=24) for row in examples])
    metric = get_metric("exact_match")
    return [metric.statistics(a.text, row) for a, row in zip(answers, examples, strict=True)]


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "markets.md")


# --- what it brings -------------------------------------------------------------------------------


def test_where_knowledge_is_missing_rag_has_it_and_examples_in_the_prompt_do_not(corpus, tmp_path):
    model = ScriptedModel(reader)
    plain = values(model)
    with_rag = rag(model)
    found = values(with_rag.open(with_rag.fit(context(tmp_path / "rag", corpus))))
    groups = [row.group for row in DEV]
    gain = paired(found, plain, groups)
    assert gain.low > 0.5
    assert gain.p < 0.001

    pytest.importorskip("dspy")
    few = PromptRoute(PromptSettings(strategy="labeled"), open_model=lambda config: model)
    shots = values(few.open(few.fit(context(tmp_path / "prompt", None))))
    assert paired(shots, plain, groups).diff == 0


def test_the_generator_is_adapted_by_prompt_to_rows_that_show_their_passages(corpus, tmp_path):
    pytest.importorskip("dspy")

    def formed(request: Request) -> str:
        """Takes the wanted form from demonstrations only."""
        shown = sum(m.role == "assistant" for m in request.messages)
        return reader(request) if shown else f"Well. {reader(request)}"

    route = rag(ScriptedModel(formed), generator="prompt")
    adapted = route.fit(context(tmp_path / "work", corpus, train=TRAIN[:8], dev=DEV[:8]))
    shutil.move(tmp_path / "work" / "adapted", tmp_path / "moved")
    model = route.open(dataclasses.replace(adapted, folder=str(tmp_path / "moved")))
    rendered = model.render(DEV[9].messages)
    demos = [m.content for m in rendered if m.role == "user"][:-1]
    assert demos
    assert all(m.startswith("Passage: [1] In the year") for m in demos)
    assert sum(v for v, _ in values(model)) == len(DEV)
    assert adapted.usage["optimize"].prompt_tokens > 0
    assert adapted.detail["calls"] == adapted.detail["generator"]["calls"]
    assert adapted.detail["calls"]["made"] > 0


# --- what it shows --------------------------------------------------------------------------------


def test_the_model_sees_the_passages_before_the_question_in_chat_and_stream(corpus, tmp_path):
    model = ScriptedModel(reader)
    route = rag(model, top_k=2)
    opened = route.open(route.fit(context(tmp_path / "work", corpus)))
    (system, user) = opened.render(DEV[0].messages)
    assert system == Message("system", "Answer.")
    own = fact("Aronda", 1200)[1]
    assert user.content.startswith(f"Passage: [1] {own}\n[2] In the year ")
    assert user.content.endswith(f"\n\nQuestion: {DEV[0].question}")
    request = Request(DEV[0].messages, max_tokens=24)
    (whole,) = opened.complete([request])
    assert model.requests[-1].messages == (system, user)
    assert "".join(d.text for d in opened.stream(request)) == whole.text == own
    follow_up = (*DEV[0].messages, Message("assistant", own), Message("user", "And in 1203?"))
    last = opened.render(follow_up)[-1].content
    assert fact("Aronda", 1203)[1] in last
    assert last.endswith("\n\nQuestion: And in 1203?")
    assert opened.notes == ()
    hello = (Message("user", "Zzz"),)  # nothing has a word in common with it
    assert opened.render(hello) == (system, *hello)


def test_passages_that_do_not_fit_are_left_out_from_the_last_and_counted(
    corpus, tmp_path, tiny_model
):
    route = RagRoute(RagSettings(top_k=8))
    model = ModelConfig(base=str(tiny_model), device="cpu", max_length=300)
    opened = route.open(route.fit(context(tmp_path / "local", corpus, model=model)))
    request = Request(DEV[0].messages, max_tokens=24)
    (kept,) = opened.shown([request])
    assert 0 < len(kept) < 8
    assert kept[0].text == fact("Aronda", 1200)[1]
    (answer,) = opened.complete([request])
    assert answer.error is None
    assert answer.usage.prompt_tokens <= 300 - 24
    assert opened.notes[0].startswith("1 of 1 questions were shown fewer passages than found")

    def narrow(request: Request) -> str:
        if sum(len(m.content) for m in request.messages) > 250:
            raise ValueError("context_length_exceeded: 250 characters at most")
        return reader(request)

    route = rag(ScriptedModel(narrow), top_k=8)
    opened = route.open(route.fit(context(tmp_path / "elsewhere", corpus)))
    assert sum(v for v, _ in values(opened)) == len(DEV)
    assert opened.shortened == len(DEV)
    assert "".join(d.text for d in opened.stream(request)) == fact("Aronda", 1200)[1]
    assert "of them none" in opened.notes[0]
    assert opened.bare == 0
    long = Request((Message("user", "What year? " * 99),), max_tokens=24)
    assert "context_length_exceeded" in opened.complete([long])[0].error
    assert opened.bare == 1
    with pytest.raises(ModelError, match="context_length_exceeded"):
        list(opened.stream(long))


def test_training_rows_are_what_the_model_is_asked_later_and_cite_if_that_is_wanted(
    corpus, tmp_path, tiny_model
):
    settings = RagSettings(top_k=3, cite=True)
    config = ModelConfig(base=str(tiny_model), device="cpu", max_length=330)
    ctx = context(tmp_path / "work", corpus, model=config)
    passages = read_corpus(corpus, 80, 15).passages
    generator = Generator(settings)
    its, shortened = generator.context(ctx, passages, build_retriever(passages, None))
    assert 0 < shortened <= len(TRAIN) + len(DEV)
    opened = RagRoute(settings).open(RagRoute(settings).fit(ctx))
    for before, row in zip(TRAIN, its.train, strict=True):
        asked = opened.render(before.messages)
        assert asked[0] == Message("system", its.task.instructions)
        assert asked[1:] == row.messages
        assert row.id == before.id
    assert "in brackets" in its.task.instructions
    sentence = TRAIN[0].answers[0]
    assert its.train[0].answers == (sentence.replace(".", " [1]."), sentence)


# --- what it makes --------------------------------------------------------------------------------


def test_it_opens_again_without_the_corpus_and_is_not_made_twice(corpus, tmp_path):
    model = ScriptedModel(reader)
    route = rag(model)
    ctx = context(tmp_path / "work", corpus)
    adapted = route.fit(ctx)
    assert route.fit(ctx) == adapted
    assert sorted(p.name for p in ctx.work.iterdir()) == ["adapted", "made_from.json"]
    figure = adapted.detail["retrieval_dev"]
    assert figure["known"] == figure["rows"] == len(DEV)
    assert figure["recall@4"]["value"] == 1
    assert adapted.detail["measured"]["retrieval_recall_at_4_dev"]["low"] > 0.9
    assert adapted.detail["measured"]["passages"]["value"] == len(TRAIN) + len(DEV)
    corpus.unlink()
    again = Adapted.from_json(json.loads(json.dumps(adapted.to_json())), adapted.folder)
    assert sum(v for v, _ in values(route.open(again))) == len(DEV)

    write_corpus(corpus, (range(1100, 1104),))
    with pytest.raises(RunDirError, match=r"was begun with other corpus\. Give the route an empty"):
        route.fit(ctx)
    with pytest.raises(RunDirError, match="other settings"):
        rag(model, top_k=1).fit(dataclasses.replace(ctx, corpus=write_corpus(corpus)))
    passages = Path(adapted.folder) / "passages.jsonl"
    passages.write_text(passages.read_text("utf-8").replace("amber", "silver"), "utf-8")
    with pytest.raises(ModelError, match="was changed since the route was fitted"):
        route.open(adapted)


def test_a_killed_fit_goes_on_and_asks_nothing_twice(corpus, tmp_path):
    model = ScriptedModel(reader)
    many = tuple(dataclasses.replace(row, id=f"{row.id}-{n}") for n in range(4) for row in DEV)
    asked = 0

    class Dying(ScriptedModel):
        def complete(self, requests):
            nonlocal asked
            asked += 1
            if asked == 2:
                raise KeyboardInterrupt
            return super().complete(requests)

    dying = Dying(reader)
    ctx = context(tmp_path / "work", corpus, dev=many)
    with pytest.raises(KeyboardInterrupt):
        rag(dying, cite=True).fit(ctx)
    assert dying.calls == 128
    assert not (ctx.work / "adapted").exists()
    adapted = rag(model, cite=True).fit(ctx)
    assert model.calls == len(many) - 128
    figure = adapted.detail["citations"]
    assert figure["answers"] == len(many)
    assert figure["cited"]["value"] == figure["valid"]["value"] == figure["supported"]["value"] == 1
    assert figure["exact_match"] == 0  # a mark is part of the answer
    assert figure["exact_match without marks"] == 1
    assert adapted.usage["check"].prompt_tokens == (dying.usage + model.usage).prompt_tokens
    assert adapted.detail["measured"]["citations_supported_dev"]["value"] == 1
    assert adapted.detail["calls"] == {"made": len(many)}


def test_the_generator_is_trained_on_rows_that_show_their_passages(corpus, tmp_path, tiny_model):
    pytest.importorskip("peft")
    route = RagRoute(RagSettings(top_k=1, generator="local"))
    model = ModelConfig(base=str(tiny_model), device="cpu", max_length=400)
    ctx = context(tmp_path / "work", corpus, model=model, train=TRAIN[:8], dev=DEV[:4])
    forecast = route.plan(ctx).forecasts
    adapted = route.fit(ctx)
    assert adapted.detail["generator"]["rows_with_fewer_passages"] == 0
    assert adapted.usage["train"].prompt_tokens <= forecast["train_tokens"].value
    assert adapted.detail["step"] <= forecast["steps"].value
    assert "peak_memory" in adapted.detail["measured"]
    shutil.move(tmp_path / "work" / "adapted", tmp_path / "moved")
    opened = route.open(dataclasses.replace(adapted, folder=str(tmp_path / "moved")))
    assert "+generator" in opened.name
    assert opened.complete([Request(DEV[0].messages, max_tokens=4)])[0].error is None
    assert opened.render(DEV[0].messages)[1].content.startswith("Passage: [1] In the year 1200")


def test_an_embedding_model_is_tuned_kept_and_told_from_another(tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = make_embedder(tmp_path / "model")
    path = tmp_path / "books.jsonl"
    lines = [{"id": f"p{i}", "text": f"book{i} book{(i + 1) % 12}."} for i in range(12)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    own = [
        Example(
            f"e{i}",
            (Message("user", f"spoken{i} book{i}"),),
            ("x",),
            f"g{i}",
            None,
            {"passage_id": f"p{i}"},
        )
        for i in range(12)
    ]
    model = ScriptedModel(lambda request: request.messages[-1].content)
    route = rag(model, retriever=str(folder), tune=True, top_k=2)
    told: list[str] = []
    ctx = context(tmp_path / "work", path, train=own[:8], dev=own[8:], metric="token_f1")
    adapted = route.fit(dataclasses.replace(ctx, progress=lambda what, *_: told.append(what)))
    assert "tuning the retriever" in told
    tuning = adapted.detail["tuning"]
    assert (tuning["pairs"], len(tuning["dev_by_epoch"])) == (8, 4)
    assert max(tuning["dev_by_epoch"]) == tuning["dev_by_epoch"][tuning["chosen_epoch"]]
    shutil.rmtree(folder)  # the tuned model stands with the route
    before = route.open(adapted).render(own[0].messages)
    assert before == route.open(adapted).render(own[0].messages)

    make_embedder(tmp_path / "second", seed=1)
    plain = rag(model, retriever=str(tmp_path / "second"))
    made = plain.fit(dataclasses.replace(ctx, work=tmp_path / "plain"))
    vectors = list(Path(made.folder).glob("vectors-*.npy"))
    assert len(vectors) == 1
    shutil.rmtree(tmp_path / "second")
    shutil.rmtree(tmp_path / "second-parts")
    make_embedder(tmp_path / "second", seed=2)
    with pytest.raises(ModelError, match="is not the one the passages were embedded with"):
        plain.open(made)


# --- forecasts, and what cannot be ----------------------------------------------------------------


def test_the_plan_counts_passages_and_what_a_prompt_grows_by(corpus, tmp_path):
    model = ScriptedModel(reader)
    route = rag(model, cite=True, top_k=2)
    forecast = route.plan(context(tmp_path / "work", corpus)).forecasts
    assert forecast["passages"].value == len(TRAIN) + len(DEV)
    assert forecast["calls"].value == len(DEV)
    growth = forecast["prompt_tokens_added"]
    assert growth.low <= growth.value <= growth.high
    assert model.calls == 0
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"retriever": "bm52"}, "no such folder. Did you mean 'bm25'"),
        ({"retriever": "./nowhere"}, "no such folder"),
        ({"tune": True}, "BM25 has nothing to tune"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_done(
    settings, error, corpus, tmp_path
):
    for step in ("plan", "fit"):
        with pytest.raises(ConfigError, match=error):
            getattr(rag(ScriptedModel(reader), **settings), step)(context(tmp_path / "w", corpus))
    assert not (tmp_path / "w").exists()


def test_no_corpus_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"has no corpus to search: set data\.corpus"):
        rag(ScriptedModel(reader)).fit(context(tmp_path, None))
    empty = tmp_path / "empty.md"
    empty.write_text("# Nothing\n", encoding="utf-8")
    with pytest.raises(DataError, match="the corpus holds no text"):
        rag(ScriptedModel(reader)).fit(context(tmp_path, empty))
    with pytest.raises(DataError, match=r"gone\.md"):
        rag(ScriptedModel(reader)).fit(context(tmp_path, tmp_path / "gone.md"))


def test_tuning_without_a_row_whose_passage_is_known_is_refused(corpus, tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = make_embedder(tmp_path / "model")
    lost = [
        dataclasses.replace(r, answers=("?",), metadata={"key_answers": ["Atlantis"]}) for r in DEV
    ]
    route = rag(ScriptedModel(reader), retriever=str(folder), tune=True)
    with pytest.raises(DataError, match="of no dev row the passage"):
        route.fit(context(tmp_path / "work", corpus, dev=lost))
