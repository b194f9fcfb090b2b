"""The bundled tasks and model: what the recipe promises of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import pytest

import tunelm
from tunelm.config import load_config
from tunelm.data.read import read_rows
from tunelm.data.split import PARTS, split_rows
from tunelm.models.loading import BUNDLED, describe_base

ROOT = Path(__file__).parents[1]
TASKS = ROOT / "src" / "tunelm" / "tasks"


@pytest.fixture(scope="module")
def recipe():
    """The recipe's modules, imported as its scripts do."""
    sys.path.insert(0, str(ROOT / "nano"))
    try:
        import corpus
        import knowledge

        yield knowledge, corpus
    finally:
        sys.path.remove(str(ROOT / "nano"))


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (TASKS / name).read_text().splitlines()]


def test_the_bundled_task_has_what_a_verdict_needs():
    config = load_config("edu-qa")
    split = split_rows([r.example for r in read_rows(config.data.path)], config.data)
    groups = {p: {e.group for e in split.part(p)} for p in PARTS}
    assert len(groups["test"]) >= 120
    assert not groups["test"] & (groups["train"] | groups["dev"])
    assert len({r["subject"] for r in rows("edu_qa.jsonl")}) >= 6
    assert split.leaks == ()
    by_group = defaultdict(set)
    for row in rows("edu_qa.jsonl"):
        by_group[row["group"]].add(row["answer"])
    assert {len(answers) for answers in by_group.values()} == {1}


def test_the_course_files_have_their_sizes_and_biology_stands_apart():
    assert len(rows("small_edu_qa.jsonl")) == 5
    assert len(rows("edu_qa_extended.jsonl")) == 20
    biology = rows("edu_biology_qa.jsonl")
    assert {r["subject"] for r in biology} == {"biology"}
    assert not {r["group"] for r in biology} & {r["group"] for r in rows("edu_qa.jsonl")}
    config = load_config("edu-biology")
    split = split_rows([r.example for r in read_rows(config.data.path)], config.data)
    assert len({e.group for e in split.test}) >= 30


def test_the_task_files_are_what_the_recipe_writes(tmp_path: Path):
    before = {p.name: p.read_bytes() for p in TASKS.iterdir() if p.is_file()}
    subprocess.run(
        [sys.executable, ROOT / "nano/build_tasks.py", "--out", tmp_path],
        check=True,
        capture_output=True,
    )
    written = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert written == {name: before[name] for name in written}
    assert len(written) == 6


def test_no_task_question_is_asked_and_no_unseen_fact_stands_in_the_text(recipe):
    """Not even in passages that say something else."""
    knowledge, corpus = recipe
    facts = knowledge.load_facts()
    writer = corpus.Writer(facts, seed=3)
    documents = [*islice(writer.documents(), 6000), *islice(writer.chapters(), 300)]
    asked = " ".join(c for d in documents for role, c in d.turns if role == "user")
    questions = {r["question"] for r in rows("edu_qa.jsonl") + rows("edu_biology_qa.jsonl")}
    assert [q for q in questions if q in asked] == []
    unseen = {f.id for f in facts if f.shelf == "unseen"}
    by_id = {f.id: f for f in facts}
    text = "\n".join(d.text or "\n".join(c for _, c in d.turns) for d in documents)
    wordings = {i: (*by_id[i].relation.prose, by_id[i].relation.answer) for i in unseen}
    leaked = [i for i in unseen if any(by_id[i].fill(w) in text for w in wordings[i])]
    assert leaked == []


def test_no_fact_of_a_task_stands_under_another_name(recipe):
    """A fact told twice, once turned round, would be seen and unseen at the same time."""
    knowledge, _ = recipe
    pairs = Counter(
        frozenset(t.casefold().removeprefix("the ") for t in (f.key, f.value))
        for f in knowledge.load_facts()
    )
    assert [set(pair) for pair, n in pairs.items() if n > 1] == []


def test_what_passages_claim_is_not_learned_by_heart(recipe):
    """Only answers carry loss, so that a passage with a false value teaches reading alone."""
    sys.modules.pop("tokenizer", None)
    knowledge, corpus = recipe
    import tokenizer as recipe_tokenizer

    made = recipe_tokenizer.make_tokenizer(documents=300)
    writer = corpus.Writer(knowledge.load_facts(), seed=5)
    for document in (writer.reading() for _ in range(20)):
        ids, learn = recipe_tokenizer.encode(made, document)
        learned = made.decode([t for t, counted in zip(ids, learn, strict=True) if counted])
        answers = [content for role, content in document.turns if role == "assistant"]
        assert learned == "".join(f"{answer}<|end|>" for answer in answers)


def test_the_text_is_the_same_for_the_same_seed(recipe):
    knowledge, corpus = recipe
    facts = knowledge.load_facts()
    first, again, other = (
        list(islice(corpus.Writer(facts, seed=s).documents(), 50)) for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_bundled_model_is_small_and_answers_by_its_template(name: str):
    folder = BUNDLED[name]
    base = describe_base(load_config("edu-qa").model.model_copy(update={"base": name}))
    assert base["context"] >= 1024
    assert sum(f.stat().st_size for f in folder.iterdir()) < 15 * 2**20
    assert (folder / "README.md").is_file()
    assert (folder / "training_log.jsonl").is_file()
    model = tunelm.load(name)
    message = tunelm.Message("user", "What is the capital of Canada?")
    (answer,) = model.complete([tunelm.Request((message,))])
    assert answer.finish_reason == "stop"
    assert len(answer.text.split()) > 3
    template = model.tokenizer.chat_template
    assert "{% generation %}" in template


def test_pretraining_goes_on_where_it_was_killed(tmp_path: Path):
    """Twelve steps in one go, and the same interrupted after step 6, give the same weights."""
    command = [sys.executable, str(ROOT / "nano/train.py"), "--size", "nano-test", "--threads", "1"]

    def run(folder: str, *more: str) -> bytes:
        subprocess.run([*command, "--out", str(tmp_path / folder), *more], check=True)
        return (tmp_path / folder / "model/model.safetensors").read_bytes()

    whole = run("whole", "--steps", "12")
    run("parts", "--steps", "12", "--stop-after", "6")
    assert run("parts", "--steps", "12") == whole
