"""The bundled tasks and model: what the recipe promises of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
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
    assert len(written) == 5


def test_no_task_question_is_asked_from_memory_and_no_unseen_fact_is_in_the_text(recipe):
    """Only passages that mostly say something else are asked about with a task's questions."""
    knowledge, corpus = recipe
    facts = knowledge.load_facts()
    writer = corpus.Writer(facts, seed=3)
    documents = [*islice(writer.documents(), 4000), *islice(writer.chapters(), 200)]
    from_memory = [
        d
        for d in documents
        if not any(r == "assistant" and c.startswith(corpus.FROM_PASSAGE) for r, c in d.turns)
    ]
    assert len(from_memory) > 2500
    asked = {c for d in from_memory for role, c in d.turns if role == "user"}
    questions = {r["question"] for r in rows("edu_qa.jsonl") + rows("edu_biology_qa.jsonl")}
    assert not questions & asked
    text = "\n".join(d.text for d in documents if d.text)
    unseen = {f.id for f in facts if f.shelf == "unseen"}
    stated = {f.id: f for f in facts}
    leaked = [i for i in unseen if any(stated[i].fill(p) in text for p in stated[i].relation.prose)]
    # known, and named in nano/README.md: history states it as an inventor's
    assert set(leaked) <= {"computing/creator/the_World_Wide_Web"}


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
