"""The examples run as the README says, and print what they computed."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tunelm.testing import ScriptedModel
from tunelm.tutor.strategies import Strategy

EXAMPLES = Path(__file__).parents[1] / "examples"
SIMPLE = EXAMPLES / "simple_example.py"
STEPS = (
    "environment and data",
    "format",
    "model",
    "fine-tuning",
    "inference",
    "comparison",
)


def run(path: Path, *arguments: str, cwd: Path) -> str:
    """What a script prints, run from another folder and without the network."""
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """The folder of the examples, importable as it is for their own scripts."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def simple(examples: None) -> ModuleType:
    return importlib.import_module("simple_example")


@pytest.fixture(scope="module")
def pairs(simple: ModuleType) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in simple.PAIRS.read_text(encoding="utf-8").splitlines()]
    return [(row["question"], row["answer"]) for row in rows]


@pytest.fixture(scope="module")
def words_model(simple: ModuleType):
    rows = [json.loads(line) for line in simple.PAIRS.read_text(encoding="utf-8").splitlines()]
    return simple.WordCounts(simple.background(rows))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("simple_example.py", 260),
        ("huggingface_lora.py", 120),
        ("huggingface_custom_lora.py", 120),
        ("openai_finetune.py", 120),
        ("openai_domain_finetune.py", 120),
        ("openai_jobs.py", 120),
    ],
)
def test_an_example_stays_short_enough_to_read(name: str, most: int):
    assert (EXAMPLES / name).read_text(encoding="utf-8").count("\n") <= most


def test_the_simple_example_parses_on_python_3_8_and_imports_the_standard_library_only():
    tree = ast.parse(SIMPLE.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


def test_the_simple_table_says_what_the_approaches_computed(
    simple: ModuleType, words_model, pairs, tmp_path: Path
):
    printed = run(SIMPLE, cwd=tmp_path)
    assert printed == run(SIMPLE, cwd=tmp_path), "two runs differ"
    found = re.findall(r"^(\w[\w -]+?) +(0\.\d+) +(0\.\d+) +(\d+) +(\d+) +(\d+)$", printed, re.M)
    table = {name: tuple(map(float, rest)) for name, *rest in found}
    assert list(table) == ["prompt optimization", "cloud fine-tuning", "local LoRA"]
    f1 = [simple.token_f1(words_model.plain_answer(q), gold) for q, gold in pairs]
    assert {row[0] for row in table.values()} == {round(simple.mean(f1), 3)}
    assert all(row[1] > row[0] for row in table.values())
    _, _, updates, parameters, billed = table["prompt optimization"]
    assert (updates, parameters) == (0, 0)
    assert billed > 0
    inputs, outputs = len(words_model.inputs), len(words_model.outputs)
    steps = len(pairs) * (len(pairs) - 1) * simple.EPOCHS
    assert table["cloud fine-tuning"][2:4] == (steps, inputs * outputs)
    assert table["local LoRA"][2:] == (steps, simple.RANK * (inputs + outputs), 0)
    assert "5 pairs prove nothing" in printed
    assert "tunelm compare" in printed


def test_the_simple_example_prints_the_upload_and_leaves_the_base_frozen(pairs, tmp_path: Path):
    printed = run(SIMPLE, cwd=tmp_path)
    chats = [json.loads(line) for line in printed.splitlines() if line.startswith('  {"messages"')]
    assert [tuple(m["content"] for m in c["messages"][1:]) for c in chats] == pairs
    roles = {tuple(m["role"] for m in c["messages"]) for c in chats}
    assert roles == {("system", "user", "assistant")}
    assert "NOTHING IS SENT" in printed
    assert printed.count("base weights untouched") == len(pairs)


def test_a_correction_begins_at_the_base_and_its_step_follows_the_gradient(
    simple: ModuleType, words_model, pairs
):
    """The first step moves the named word's score by rate times the squared input, no other's."""
    shares = words_model.read(simple.PLAIN + " " + pairs[0][0])
    base = words_model.scores(shares)
    word = words_model.outputs[0]
    for kind in (simple.FullCorrection, simple.LowRankCorrection):
        correction = kind(words_model)
        given = shares.values() if kind is simple.FullCorrection else correction.inner(shares)
        squared = sum(x * x for x in given)
        assert words_model.scores(shares, correction) == base
        correction.step(shares, {word: 1.0}, 1e-3)
        moved = words_model.scores(shares, correction)
        assert base[word] - moved[word] == pytest.approx(1e-3 * squared)
        assert all(moved[w] == base[w] for w in words_model.outputs if w != word)


def test_the_simple_example_says_where_it_must_be_run(tmp_path: Path):
    copy = tmp_path / "simple_example.py"
    copy.write_text(SIMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run([sys.executable, str(copy)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "inside the repository" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["huggingface_lora.py", "huggingface_custom_lora.py"])
def test_a_hugging_face_example_goes_through_its_six_steps(
    name: str, tiny_model: Path, tmp_path: Path
):
    printed = run(EXAMPLES / name, "--model", str(tiny_model), "--max-steps", "3", cwd=tmp_path)
    steps = re.findall(r"^== Step (\d): (.+) ==$", printed, re.M)
    assert steps == [(str(i), step) for i, step in enumerate(STEPS, 1)]
    last = printed.partition("== Step 6")[2]
    lines = re.findall(r"^(\w+) +token-F1 [01]\.\d+ +contains [01]\.\d+ +n = (\d+)$", last, re.M)
    assert lines == [("base", "7"), ("tuned", "7")]
    assert "prove nothing" in last
    assert list(tmp_path.iterdir()) == [], "a run leaves files behind"


def test_a_model_folder_that_is_missing_is_named(examples: None, monkeypatch, capsys, tmp_path):
    lora = importlib.import_module("huggingface_lora")
    monkeypatch.setitem(lora.BUNDLED, "tunelm-nano", tmp_path / "nano")
    monkeypatch.setattr(sys, "argv", ["huggingface_lora.py"])
    with pytest.raises(SystemExit):
        lora.parse_arguments()
    assert "make nano" in capsys.readouterr().err


def test_the_loss_counts_the_answer_and_its_end_only(examples: None, tiny_model: Path):
    from transformers import AutoTokenizer

    lora = importlib.import_module("huggingface_lora")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    row = {"question": "What is it?", "answer": "It is a fox."}
    encoded = lora.encode(tokenizer, row)
    learnt = [i for i, label in zip(*encoded.values(), strict=True) if label != -100]
    assert tokenizer.decode(learnt) == "It is a fox.<|end|>"
    assert tokenizer.decode(encoded["input_ids"]).endswith("assistant\nIt is a fox.<|end|>")


def test_a_merged_lora_layer_computes_what_the_layer_beside_it_did(examples: None):
    import torch

    custom = importlib.import_module("huggingface_custom_lora")
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(12, 8), torch.randn(3, 5, 12)
    before = linear(x).detach()
    layer = custom.LoRALinear(linear, r=4, alpha=8)
    assert torch.equal(layer(x), before), "B is zero at the start"
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {"a", "b"}
    torch.nn.init.normal_(layer.b)
    beside = layer(x).detach()
    assert not torch.allclose(beside, before)
    expected = before + 2 * x @ (layer.b @ layer.a).T.detach()
    torch.testing.assert_close(beside, expected)
    torch.testing.assert_close(layer.merge()(x).detach(), beside)


def test_all_linear_layers_but_the_head_are_replaced_and_put_back(examples: None, tiny_model: Path):
    from torch import nn
    from transformers import AutoModelForCausalLM

    custom = importlib.import_module("huggingface_custom_lora")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    custom.replace_layers(model, nn.Linear, custom.LoRALinear)
    made = {n for n, layer in model.named_modules() if isinstance(layer, custom.LoRALinear)}
    assert made == before - {"lm_head"}
    assert len(made) == 2 * 7
    custom.replace_layers(model, custom.LoRALinear, custom.LoRALinear.merge)
    after = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    assert after == before


def domain_files(folder: Path) -> Path:
    """A text file of sixty documents, two blank lines apart."""
    texts = [
        "\n".join(f"Step {i} of recipe {n} needs {i * n} grams." for i in range(8))
        for n in range(60)
    ]
    (folder / "mine.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    return folder / "mine.txt"


def test_the_domain_example_walks_through_all_steps(tmp_path: Path) -> None:
    path = EXAMPLES / "domain_text.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120
    model = "tunelm-nano-small"
    options = ("--model", model, "--steps", "4", "--out", "made")
    # sixty documents leave too few for a verdict at a tenth: the interpreter's own have enough
    printed = run(path, "python-docs", *options, cwd=tmp_path)
    for step in range(1, 7):
        assert f"\n{step}. " in f"\n{printed}"
    assert "bits_per_byte" in printed
    assert (tmp_path / "made/run/routes/local/seed-0/adapted/fine_tuned_model").is_dir()


def test_the_domain_example_says_when_there_is_too_little_text(tmp_path: Path) -> None:
    domain_files(tmp_path)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "domain_text.py", "mine.txt", "--model", "tunelm-nano-small"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "fewer than 10,000 lines" in done.stdout
    assert "at least 30 are needed" in done.stderr


def test_the_cells_of_the_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    book = json.loads((EXAMPLES / "domain_text.ipynb").read_text(encoding="utf-8"))
    cells = [
        "".join(cell["source"])
        for cell in book["cells"]
        if cell["cell_type"] == "code" and "install" not in cell["metadata"].get("tags", ())
    ]
    assert len(cells) == 5
    text = "\n".join(cells).replace("STEPS = None", "STEPS = 2")
    exec(compile(text.replace('"tunelm-nano"', '"tunelm-nano-small"'), "notebook", "exec"), {})
    assert (tmp_path / "domain_run/run/report.html").is_file()


def six_steps(printed: str) -> None:
    steps = re.findall(r"^== Step (\d): (.+) ==$", printed, re.M)
    assert steps == [(str(i), step) for i, step in enumerate(STEPS, 1)]
    assert "prove nothing" in printed.partition("== Step 6")[2]


def chats_in(path: Path) -> list[list[dict[str, str]]]:
    """The chats of a training file, after it passed the check by the provider's rules."""
    command = [sys.executable, "-m", "tunelm", "data", "check", str(path), "--provider", "openai"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_openai_example_trains_and_asks_its_own_server(tmp_path: Path):
    pytest.importorskip("openai")
    pytest.importorskip("fastapi")
    options = ("--model", "tunelm-nano-small", "--epochs", "1")
    printed = run(EXAMPLES / "openai_finetune.py", *options, cwd=tmp_path)
    six_steps(printed)
    assert "running: Fine-tuning job started" in printed
    assert re.search(r"^ft:tunelm-nano-small:tunelm::\w+: [1-9]\d* tokens trained$", printed, re.M)
    assert re.findall(r"^(base|tuned) +token-F1 [01]\.\d+  n = 4$", printed, re.M)
    assert [path.name for path in tmp_path.iterdir()] == ["openai_edu_qa_training.jsonl"]
    chats = chats_in(tmp_path / "openai_edu_qa_training.jsonl")
    assert len(chats) == 16
    assert {tuple(m["role"] for m in chat) for chat in chats} == {("system", "user", "assistant")}


def test_the_openai_examples_take_any_server_dialogues_and_a_domain(
    tuning_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    options = ("--base-url", tuning_server, "--model", "tunelm-nano-small", "--epochs", "1")
    six_steps(run(EXAMPLES / "openai_finetune.py", "--dialogues", *options, cwd=tmp_path))
    dialogues = chats_in(tmp_path / "openai_dialogue_training.jsonl")
    assert len(dialogues) >= 20
    assert all(sum(m["role"] == "assistant" for m in chat) >= 2 for chat in dialogues)
    domain = EXAMPLES / "openai_domain_finetune.py"
    printed = run(domain, "--rows", "16", *options, cwd=tmp_path)
    six_steps(printed)
    assert re.search(r":ckpt-step-2: loss \d", printed)
    lines = re.findall(
        r"^(\w+ \w+) +token-F1 [01]\.\d+  contains [01]\.\d+  n = 12$", printed, re.M
    )
    assert lines == ["base biology", "base others", "tuned biology", "tuned others"]
    questions = [{chat[1]["content"] for chat in chats_in(path)} for path in tmp_path.glob("*bio*")]
    assert [len(asked) for asked in questions] != [0, 0]
    assert not questions[0] & questions[1]


def test_the_openai_examples_spend_nothing_unasked_and_end_in_one_line(tmp_path: Path):
    for url, words in (
        ("https://api.openai.com/v1", "allow it with --spend"),
        ("http://127.0.0.1:9/v1", "APIConnectionError at http://127.0.0.1:9/v1"),
    ):
        done = subprocess.run(
            [sys.executable, EXAMPLES / "openai_finetune.py", "--base-url", url],
            cwd=tmp_path,
            env={**os.environ, "OPENAI_API_KEY": "none"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_the_dspy_example_optimizes_a_program_of_ones_own_in_six_steps(tmp_path: Path):
    pytest.importorskip("dspy")
    printed = run(EXAMPLES / "dspy_example.py", "--rows", "16", cwd=tmp_path)
    steps = re.findall(r"== Step (\d): (.*?) ==", printed)
    wanted = [step.replace("fine-tuning", "optimization") for step in STEPS]
    assert steps == [(str(i), step) for i, step in enumerate(wanted, 1)]
    before, after = re.findall(r"F1 ([\d.]+) before, ([\d.]+) after", printed)[0]
    assert float(after) > float(before) + 15
    assert "The capital of Canada is Ottawa." in printed
    assert list(tmp_path.iterdir()) == []


def test_the_dspy_program_is_enhanced_step_by_step_on_the_same_rows(tmp_path: Path):
    pytest.importorskip("dspy")
    printed = run(EXAMPLES / "dspy_enhanced.py", "--rows", "16", cwd=tmp_path)
    rows = re.findall(r"^([+ \w-]+?) +([\d.]+) \(", printed, re.M)
    names = ["answer alone", "+ chain of thought", "+ retrieval", "+ few-shot"]
    assert [name for name, _ in rows] == [*names, "+ structured steps"]
    assert float(rows[2][1]) > float(rows[0][1]) + 15, "passages help this model"
    assert "16 test rows" in printed


def test_the_tutor_takes_the_strategy_that_each_scenario_expects(examples: None, capsys):
    import tutor_dialogue

    scenarios = tutor_dialogue.read_scenarios()
    assert {expected for expected, _ in scenarios} == set(Strategy)
    model = ScriptedModel(lambda request: "What do you think?")
    assert tutor_dialogue.talk(model, scenarios, shown=True) == len(scenarios)
    printed = capsys.readouterr().out
    assert "ignore your rules" in printed
    assert printed.count("  teacher: ") == len(scenarios)


def test_the_tutor_is_adapted_and_talks(tmp_path: Path):
    sets = ["compare.conversations=2", "task.max_tokens=8", "model.base=tunelm-nano-small"]
    sets += ["routes.prompt.strategy=labeled", "data.test=0.13", "data.dev=0.02"]
    args = [word for setting in sets for word in ("--set", setting)]
    printed = run(EXAMPLES / "tutor_dialogue.py", "--route", "prompt", *args, cwd=tmp_path)
    assert [f"Step {n}" in printed for n in range(1, 7)] == [True] * 6
    assert "the expected strategy in 11 of 11 scenarios" in printed
    assert re.search(r"^prompt: solved_unaided [\d.]+ \(.*; 2 conversations$", printed, re.M)


@pytest.mark.parametrize("name", ["dspy_example.py", "dspy_enhanced.py", "tutor_dialogue.py"])
def test_examples_with_a_limit_are_short(name: str):
    assert (EXAMPLES / name).read_text(encoding="utf-8").count("\n") <= 120
