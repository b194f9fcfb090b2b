"""Running text: windows, packing, likelihoods, and a whole comparison on it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
)

import tunelm
from tunelm.config import ModelConfig, load_config
from tunelm.data.contamination import contamination
from tunelm.data.python_docs import build_python_docs
from tunelm.data.read import read_rows
from tunelm.data.split import split_rows
from tunelm.errors import ConfigError
from tunelm.models.local import LocalModel
from tunelm.models.rolling import windows
from tunelm.route_settings import LocalSettings
from tunelm.scoring.continuation import as_continuation
from tunelm.testing import make_tiny_model
from tunelm.training.job import TrainingJob, TrainingRow
from tunelm.training.packing import pack
from tunelm.training.rows import EncodedRow, encode_texts
from tunelm.training.steps import Stepper
from tunelm.training.worker import packed
from tunelm.types import Example, Message, Request

WORDS = [a + b + c for a in ("am", "bir", "ced", "del") for b in "aeiou" for c in "rnlst"]


def sentence(number: int, words: int = 9) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=words)) + "."


def document(number: int, lines: int = 5) -> str:
    return "\n".join(sentence(number * 11 + i) for i in range(lines))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def text_rows(count: int, lines: int = 2) -> list[TrainingRow]:
    return [TrainingRow(str(i), (Message("text", document(i, lines)),)) for i in range(count)]


def test_every_token_of_a_text_is_predicted_once_whatever_the_window() -> None:
    for size in (1, 4, 5, 6, 11, 23):
        tokens = list(range(1, size + 1))
        cut = windows(tokens, [0], 5)
        assert [t for w in cut for t in w.targets] == tokens
        assert all(len(w.inputs) <= 5 for w in cut)
        for window in cut:  # each target is predicted from the tokens right before it
            whole = [0, *tokens]
            end = whole.index(window.targets[-1])
            assert window.inputs == whole[end - len(window.inputs) : end]


def test_a_long_text_scores_as_lm_evaluation_harness_scores_it(tiny: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils", reason="lm_eval is not installed")
    tokens = list(range(5, 60))
    ours = [(w.inputs, w.targets) for w in windows(tokens, [3], 16)]
    theirs = [
        utils.make_disjoint_window(w)
        for w in utils.get_rolling_token_windows(
            tokens, prefix_token=3, max_seq_len=16, context_len=1
        )
    ]
    assert ours == [(list(a + b[:-1]), list(b)) for a, b in theirs]


def test_the_likelihood_of_a_text_is_the_sum_over_its_tokens(tiny: Path) -> None:
    model = tunelm.load(str(tiny))
    assert isinstance(model, LocalModel)
    text = document(1, 3) + " é 🙂"
    (score,) = model.score([((Message("text", ""),), text)])
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    head = model.tokenizer.bos_token_id
    head = model.tokenizer.eos_token_id if head is None else head
    row = torch.tensor([[head, *ids]])
    with torch.no_grad():
        logits = model.model(input_ids=row).logits[0, :-1].log_softmax(-1)
    want = logits.gather(-1, row[0, 1:, None])[:, 0].tolist()
    assert score.logprobs == pytest.approx(want, abs=1e-4)
    assert len(score.tokens) == len(ids)


def test_running_text_gets_no_template_and_no_system_prompt(tiny: Path) -> None:
    model = tunelm.load(str(tiny))
    (answer,) = model.complete([Request((Message("text", "amber birch"),), max_tokens=4)])
    assert answer.error is None
    assert answer.usage.prompt_tokens == 1 + len(
        AutoTokenizer.from_pretrained(tiny).encode("amber birch", add_special_tokens=False)
    )


def test_long_texts_become_rows_that_lose_no_token(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    (whole,) = encode_texts(text_rows(1, 6), tokenizer, 10_000)
    pieces = encode_texts(text_rows(1, 6), tokenizer, 16)
    assert len(pieces) > 2
    assert all(len(p.ids) <= 16 for p in pieces)
    assert [t for p in pieces for t in p.supervised] == list(whole.supervised)
    assert whole.supervised[-1] == tokenizer.eos_token_id


def test_packing_keeps_every_row_once_and_within_the_length() -> None:
    rows = [EncodedRow(str(i), tuple(range(2 + i * 5 % 17)), 1) for i in range(40)]
    full = pack(rows, 20)
    assert sorted(r.id for p in full for r in p.rows) == sorted(r.id for r in rows)
    assert all(p.length <= 20 for p in full)
    assert len(full) <= math.ceil(sum(r.length for r in rows) / 20) + 2


def gpt(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=512, n_positions=128, n_embd=32, n_layer=2, n_head=2)
        )
    config = GPTNeoConfig(
        vocab_size=512,
        max_position_embeddings=128,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
    )
    return GPTNeoForCausalLM(config)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt-neo"])
def test_packed_texts_have_the_loss_and_gradient_of_the_texts_alone(kind: str, tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny) if kind == "llama" else gpt(kind)
    model.eval()
    rows = [
        EncodedRow(str(i), tuple((i * 13 + j * 7) % 200 for j in range(4 + i)), 1) for i in range(9)
    ]
    stepper = Stepper(model, 0, 10_000, False)
    job = TrainingJob(model=ModelConfig(), settings=LocalSettings(), text=True)
    full, words = packed(stepper, rows, job, 64)
    assert words is not None
    assert "apart (loss" in words
    assert len(full) < len(rows)
    found = []
    for batch in (rows, full):
        model.zero_grad()
        loss = stepper.backward(batch).loss
        found.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_a_model_that_ignores_the_mask_is_found_out_and_not_packed(tiny: Path) -> None:
    class Leaky(torch.nn.Module):
        """Wraps a model and lets packed texts see each other."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = AutoModelForCausalLM.from_pretrained(tiny)
            self.device = self.inner.device

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.inner.get_output_embeddings()

        def forward(self, input_ids: torch.Tensor, **_: object) -> object:
            return self.inner(input_ids=input_ids)

    rows = [
        EncodedRow(str(i), tuple((i * 13 + j * 7) % 200 for j in range(9)), 1) for i in range(6)
    ]
    job = TrainingJob(model=ModelConfig(), settings=LocalSettings(), text=True)
    full, words = packed(Stepper(Leaky(), 0, 10_000, False), rows, job, 64)
    assert full == rows
    assert words is not None
    assert "packed texts see each other" in words


def write_task(folder: Path, base: Path | str, **sections: str) -> Path:
    rows = [{"text": document(i), "group": f"doc{i}"} for i in range(60)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    neutral = "\n\n".join(
        f"Paragraph {i} speaks of quite other things than the rest, such as ships, bread and "
        f"number {i * 17}, so that it is long enough to count."
        for i in range(12)
    )
    (folder / "neutral.txt").write_text(neutral)
    task = folder / "task.toml"
    task.write_text(
        f"""
        [task]
        name = "words"
        kind = "text"
        max_tokens = 8
        [data]
        path = "docs.jsonl"
        neutral = "neutral.txt"
        dev = 0.2
        test = 0.3
        min_test_groups = 5
        [model]
        base = {json.dumps(str(base))}
        device = "cpu"
        [compare]
        routes = ["baseline", "local", "lora"]
        [routes.local]
        method = "full"
        epochs = 4
        learning_rate = 3e-3
        [routes.lora]
        kind = "local"
        r = 4
        epochs = 1
        {sections.get("more", "")}
        """
    )
    return task


def test_a_text_task_is_compared_from_end_to_end(tmp_path: Path, tiny: Path) -> None:
    report = tunelm.compare(write_task(tmp_path, tiny), tmp_path / "run")
    routes = {r["name"]: r for r in report["routes"]}
    assert {r["status"] for r in routes.values()} == {"done"}, report["warnings"]
    before, after = (routes[n]["scores"]["bits_per_byte"]["value"] for n in ("baseline", "local"))
    assert after < before
    assert report["winner"]["name"] == "local"
    assert report["verdict"][0].startswith(("Ship local", "With only"))
    pair = next(
        p
        for p in report["pairs"]
        if p["metric"] == "bits_per_byte" and p["a"] == "local" and p["b"] == "baseline"
    )
    assert pair["diff"] < 0
    assert pair["verdict"] == "better"
    assert {r["route"] for r in report["forgetting"]} == {"baseline", "local", "lora"}
    assert report["source"]["lines"] == 300
    assert any("only 300 lines" in w for w in report["warnings"])
    assert "packing" in report["settings"]["local"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Forgetting" in page
    assert "bits_per_byte" in (tmp_path / "run" / "report.md").read_text()
    for name in ("local", "lora"):
        folder = tmp_path / f"run/routes/{name}/seed-0/adapted/fine_tuned_model"
        model = AutoModelForCausalLM.from_pretrained(folder)  # plain Transformers
        AutoTokenizer.from_pretrained(folder)
        text = document(3)
        (served,) = tunelm.load(tmp_path / "run" / name).score([((Message("text", ""),), text)])
        (plain,) = tunelm.load(str(folder)).score([((Message("text", ""),), text)])
        assert sum(served.logprobs) == pytest.approx(sum(plain.logprobs), rel=1e-4)
        assert model.num_parameters() > 0


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("task.instructions=Answer.", "a text task has no instructions"),
        ("compare.routes=['prompt']", "a text task takes baseline and local"),
        ("compare.primary_metric=token_f1", "Valid: bits_per_byte, token_perplexity, bleu, chrf"),
        ("data.path=builtin:other", "only builtin:python-docs"),
    ],
)
def test_what_a_text_task_cannot_have_is_said(
    tmp_path: Path, tiny: Path, override: str, found: str
) -> None:
    with pytest.raises(ConfigError, match=found):
        tunelm.compare(write_task(tmp_path, tiny), tmp_path / "run", overrides=[override])
    assert not (tmp_path / "run").exists()


def test_a_continuation_is_cut_between_words() -> None:
    text = Example("1", (), (document(2, 40),), "1")
    shown = as_continuation(text)
    assert text.answers[0].startswith(shown.question + shown.answers[0])
    assert len(shown.question) <= 400
    assert len(shown.answers[0]) <= 200
    assert as_continuation(shown) == shown


def test_the_interpreters_own_documentation_is_a_task() -> None:
    config = load_config("python-docs")
    assert config.task.kind == "text"
    path = build_python_docs()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum(r["text"].count("\n") + 1 for r in rows) >= 10_000
    assert len({r["group"] for r in rows}) == len(rows)
    assert build_python_docs() == path
    data = config.data.model_copy(update={"path": path})
    split = split_rows([row.example for row in read_rows(path)], data)
    shared = contamination(split)
    assert shared["of"] >= 30
    assert shared["rows"] == 0  # no test document quotes one that is trained on
