"""`tunelm plan`: proposals for the bundled tasks and one's own rows, and every bad input."""

from __future__ import annotations

import itertools
import json
import math
import re
import tomllib
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tunelm.cli import cli
from tunelm.config import TASKS, Config, load_config, parse_config
from tunelm.errors import ConfigError, TrainingError, TunelmError
from tunelm.planning import hosts
from tunelm.planning.footprint import Load, largest_batch, lora_parameters, training
from tunelm.planning.hardware import cards, hardware
from tunelm.planning.hosts import Tokens, pays_off, rentable, ways
from tunelm.planning.machines import find_machine, machine_names
from tunelm.planning.registry import find_model, of_folder, registry
from tunelm.planning.rules import FACTS, WAYS, advise, holds, kind_said, rules, settings
from tunelm.planning.sample import groups_for, kind_of, smallest_difference
from tunelm.planning.shortlist import shortlist
from tunelm.planning.task_file import task_file
from tunelm.planning.wishes import Wishes

from .conftest import make_task, write_rows

TODAY = date(2026, 11, 21)
SIX = ("edu-qa", "edu-dialogue", "support-email", "docstrings", "faq-decline", "headlines")
ROW = Load(120, 40, 2)
MOST_WORDS = 1500
"""Three pages."""


def plan(*args: object) -> Result:
    result = CliRunner().invoke(cli, ["plan", *map(str, args)])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, TunelmError):
        raise result.exception
    return result


def planned(folder: Path, *args: object) -> dict[str, Any]:
    """The proposal as JSON; its files stand in `folder`."""
    result = plan(*args, "--out", folder, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def on(gpu: str, **wishes: Any) -> Wishes:
    return Wishes(hardware(gpu, None, {}), 1000.0, 12.0, **wishes)


def refused(work: Path) -> None:
    raise TrainingError("no dry run in this test")


@pytest.fixture
def no_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dry run takes seconds, and has tests of its own; its failure is a forecast too."""
    monkeypatch.setattr("tunelm.training.memory.dry_run", refused)


# ---- the proposal


@pytest.fixture(scope="module")
def edu_qa(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("plan") / "edu-qa"
    asked = ("edu-qa", "--gpu", "RTX 4090", "--requests-a-month", "20000")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tunelm.training.memory.dry_run", refused)
        return planned(folder, *asked), folder


def test_a_plan_counts_the_rows_as_the_comparison_does(edu_qa: tuple[dict[str, Any], Path]):
    proposal, _ = edu_qa
    parts = {row["part"]: int(row["rows"].replace(",", "")) for row in proposal["data"]["parts"]}
    rows = (TASKS / "edu_qa.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(parts.values()) == proposal["data"]["status"]["kept"] == len(rows)
    shown = proposal["data"]["example"]
    assert any(json.loads(line)["question"] == shown["question"] for line in rows)
    lengths = {row["tokens of"]: row for row in proposal["data"]["lengths"]}
    assert int(lengths["both"]["longest"]) <= int(lengths["prompt"]["longest"]) + int(
        lengths["answer"]["longest"]
    )


def test_the_page_reads_as_a_document(edu_qa: tuple[dict[str, Any], Path]):
    proposal, folder = edu_qa
    page = (folder / "proposal.md").read_text(encoding="utf-8")
    appendix = (folder / "appendix.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\d)\. ", page, flags=re.M)
    assert headings == [str(n) for n in range(1, 9)]
    for text in (page, appendix):
        assert "None" not in text
        assert "{{" not in text
        assert "nan" not in text.lower().split()
        for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
            assert len(widths) == 1, table
    for sentence in proposal["summary"]:
        assert sentence in page
    example = re.search(r"```json\n(.*?)```", page, flags=re.S)
    assert example
    assert json.loads(example[1]) == proposal["data"]["example"]


def test_the_page_is_of_three_pages_and_the_appendix_has_the_rest(
    edu_qa: tuple[dict[str, Any], Path],
):
    proposal, folder = edu_qa
    page = (folder / "proposal.md").read_text(encoding="utf-8")
    appendix = (folder / "appendix.md").read_text(encoding="utf-8")
    assert len(re.findall(r"\w[^\s|]*", page)) <= MOST_WORDS
    for way in {row["way"] for row in proposal["method"]["order"]}:
        assert page.count(f"| {way} |") == 1
    for row in proposal["method"]["order"] + proposal["method"]["against"]:
        assert all(row[part] in appendix for part in ("why", "source", "what would change it"))
    for row in proposal["method"]["settings"]:
        assert f"`{row['setting']}` {row['value']}" in page
        assert row["source"] in appendix
    assert f"`{proposal['evaluation']['primary']}` decides" in page
    for row in proposal["evaluation"]["metrics"]:
        assert row["metric"].split()[0] in page
        assert row["measures"] in appendix
    for row in proposal["models"]["top"]:
        assert f"| {row['model']} | {row['size']} |" in page
        assert row["source"] in appendix
    for row in proposal["models"]["fell"]:
        assert row["which"] in appendix
    assert all(row["way"] in appendix for row in proposal["costs"]["rows"])
    known = [f for f in proposal["forecasts"] if f["value"] is not None]
    assert all(f"| {f['route']} | {f['quantity']} |" in appendix for f in known)
    trained = next(f for f in known if f["quantity"] == "trainable parameters")
    assert f"{trained['value']:,.0f} (exact)" in page
    assert "volume = 20,000 requests a month" in page
    assert "Not said: budget (--budget)" in page


def test_no_number_is_without_a_source_or_a_method(edu_qa: tuple[dict[str, Any], Path]):
    proposal, folder = edu_qa
    assert proposal["forecasts"]
    for row in proposal["forecasts"]:
        assert row["method"]
        assert row["value"] is not None or row["method"].startswith("unknown")
    for row in proposal["method"]["order"] + proposal["method"]["against"]:
        assert row["source"]
        assert row["why"]
    for row in proposal["costs"]["rows"]:
        assert row["a month"] == "unknown" or re.search(r"\d{4}-\d\d-\d\d", row["price from"])
        assert row["a month"] != "unknown" or row["note"] != "-"
    for row in proposal["models"]["top"]:
        assert re.search(r"\d{4}-\d\d-\d\d", row["source"])
    assert all(row["found by"] and row["what to do"] for row in proposal["risks"])
    kept = json.loads((folder / "forecasts.json").read_text())
    config = load_config(folder / "task.toml")
    assert config.compare.forecasts == (folder / "forecasts.json").resolve()
    assert kept["shared"] == config.shared_digest()
    memory = kept["routes"]["local"]["forecasts"]["peak_memory_bytes"]
    assert memory["value"] is None
    assert memory["method"] == "unknown: no dry run in this test"
    for name, route in kept["routes"].items():
        assert route["digest"] == config.route_digest(name)
        assert all(estimate["method"] for estimate in route["forecasts"].values())


@pytest.mark.parametrize("name", SIX)
@pytest.mark.usefixtures("no_dry_run")
def test_every_bundled_task_has_a_plan_that_can_be_carried_out(name: str, tmp_path: Path):
    proposal = planned(tmp_path / "plan", name)
    config = load_config(tmp_path / "plan" / "task.toml")
    own = load_config(name)
    assert config.task == own.task
    assert config.data == own.data
    assert config.model == own.model
    assert set(own.compare.routes) <= set(config.compare.routes)
    for route, section in own.routes.items():
        assert config.routes.get(route, section) == section
    assert config.compare.primary_metric == own.compare.primary_metric
    assert proposal["data"]["parts"][2]["groups"] != "0"
    assert {row["metric"].split()[0] for row in proposal["evaluation"]["metrics"]} >= {
        config.compare.primary_metric
    }
    assert proposal["evaluation"]["criteria"]


def test_the_plan_of_a_small_task_runs_and_its_report_is_written(task: Path, tmp_path: Path):
    folder = tmp_path / "plan"
    planned(folder, task)
    config = load_config(folder / "task.toml")
    assert config.routes["local"].max_steps == 6
    run = CliRunner().invoke(
        cli,
        [
            "compare", str(folder / "task.toml"), "--out", str(tmp_path / "run"), "--quiet",
            "--set", 'compare.routes=["constant", "baseline", "local"]',
        ],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert (tmp_path / "run" / "report.md").is_file()
    made = json.loads((tmp_path / "run/routes/local/seed-0/plan.json").read_text())["forecasts"]
    memory = made["peak_memory_bytes"]
    assert "dry run" in memory["method"]
    assert memory["low"] < memory["value"] < memory["high"]
    record = plan("--track-record", tmp_path / "run", "--json")
    found = {row["quantity"]: row for row in json.loads(record.stdout)}
    assert found["trainable_parameters"]["mean error"] == "0.0%"
    assert "peak_memory_bytes" in found
    empty = plan("--track-record", tmp_path / "nothing")
    assert "no run with a report" in str(empty.exception)


@pytest.mark.usefixtures("no_dry_run")
def test_a_scenario_without_rows_says_what_is_needed_and_does_not_claim_to_run(tmp_path: Path):
    folder = tmp_path / "plan"
    text = "Write polite replies to customers, by our policy handbook. Patient records are private."
    result = plan("--scenario", text, "--out", folder)
    assert result.exit_code == 0, result.output
    assert "does not run yet" in result.stdout
    assert "tunelm compare" not in result.stdout
    assert "needed from you: rows" in result.stdout
    written = (folder / "task.toml").read_text(encoding="utf-8")
    assert "DOES NOT RUN YET" in written
    config = load_config(folder / "task.toml")
    assert config.task.kind == "generation"
    assert config.data.path == (folder / "rows.jsonl").resolve()
    page = (folder / "proposal.md").read_text(encoding="utf-8")
    assert "> Write polite replies" in page
    assert "give --private if rows must not leave" in page
    assert not (folder / "forecasts.json").exists()
    write_rows(folder / "rows.jsonl", 120)
    assert planned(tmp_path / "again", folder / "task.toml")["data"]["status"]["kept"] == 120


# ---- one's own rows


def labelled(path: Path, count: int) -> Path:
    rows = [
        {"question": f"Match {i} ended {i}:{i % 7}" if i % 4 else f"Shares of firm {i} fell",
         "answer": "sport" if i % 4 else "business"}
        for i in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_kind_is_told_from_the_rows(tmp_path: Path):
    assert kind_of(labelled(tmp_path / "labels.jsonl", 60)) == "classification"
    assert kind_of(TASKS / "edu_qa.jsonl") == "qa"
    assert kind_of(TASKS / "tutor_dialogues.jsonl") == "dialogue"
    assert kind_of(TASKS / "textbook.md") == "text"
    ordered = tmp_path / "do.jsonl"
    ordered.write_text('{"question": "Write to Ann.", "answer": "Dear Ann"}\n' * 3)
    assert kind_of(ordered) == "generation"
    (tmp_path / "bad.jsonl").write_text("no json\n")
    with pytest.raises(TunelmError, match=r"bad\.jsonl:1"):
        kind_of(tmp_path / "bad.jsonl")


@pytest.mark.usefixtures("no_dry_run")
def test_labels_bring_a_classifier_first_and_their_imbalance_is_a_risk(tmp_path: Path):
    proposal = planned(tmp_path / "plan", "--data", labelled(tmp_path / "news.jsonl", 600))
    assert proposal["task"]["kind"] == "classification"
    assert proposal["method"]["ways"][:2] == ["control", "classifier"]
    labels = {row["label"]: int(row["train rows"]) for row in proposal["data"]["labels"]}
    assert labels["sport"] > labels["business"] > 0
    few = planned(tmp_path / "few", "--data", labelled(tmp_path / "few.jsonl", 150))
    assert few["method"]["ways"].index("classifier") > few["method"]["ways"].index("prompt")
    uneven = tmp_path / "uneven.jsonl"
    lines = (tmp_path / "news.jsonl").read_text().splitlines(keepends=True)
    kept = [line for i, line in enumerate(lines) if '"sport"' in line or i % 16 == 0]
    uneven.write_text("".join(kept))
    risks = planned(tmp_path / "u", "--data", uneven)["risks"]
    assert any("labels are uneven" in row["risk"] for row in risks)


@pytest.mark.usefixtures("no_dry_run")
def test_few_rows_and_personal_data_are_risks_and_the_example_is_masked(tmp_path: Path):
    rows = [
        {"question": f"Who is number {i}?", "answer": f"Write to person{i}@acme-corp.com."}
        for i in range(40)
    ]
    path = tmp_path / "People of Ours.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    proposal = planned(tmp_path / "plan", "--data", path)
    assert proposal["task"]["name"] == "people-of-ours"
    assert proposal["data"]["personal"] == {"e-mail address": 40}
    assert "acme-corp" not in (tmp_path / "plan" / "proposal.md").read_text()
    said = " ".join(row["risk"] for row in proposal["risks"])
    assert "e-mail address in 40 rows" in said
    assert "prove nothing" in said
    assert "local" not in proposal["method"]["ways"]
    config = load_config(tmp_path / "plan" / "task.toml")
    groups = int(proposal["data"]["parts"][2]["groups"])
    assert config.data.min_test_groups == groups < 30


@pytest.mark.usefixtures("no_dry_run")
def test_private_data_meet_no_host_and_budgets_and_volumes_count(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl", 200)
    kept = planned(tmp_path / "a", "--data", rows, "--private", "--gpu", "L4")
    assert "hosted" not in kept["method"]["ways"]
    assert [row["way"] for row in kept["costs"]["rows"]] == ["an open model on a rented L4"]
    assert not any("until" in row["note"] for row in kept["costs"]["rows"])
    poor = planned(tmp_path / "b", "--data", rows, "--budget", "0", "--gpu", "L4")
    assert "hosted" not in poor["method"]["ways"]
    assert all("over the budget" in r["note"] for r in poor["costs"]["rows"] if "$" in r["a month"])


# ---- bad input


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--gpu", "RTX 490"), "Closest: RTX 4090"),
        (("--gpu", "RTX 490"), "--memory"),
        (("--memory", "0"), "above 0"),
        (("--memory", "24 GB"), "plain number"),
        (("--base", "Qwen/Qwen9-7B"), "not in the registry"),
        (("--base", "Qwen/Qwen9-7B"), "config.json"),
        (("--budget", "10€"), "plain number"),
        (("--budget", "-1"), "from 0 on"),
        (("--requests-a-month", "0"), "above 0"),
        (("--months", "0"), "above 0"),
        (("--latency", "0"), "above 0"),
        (("--language", "Deutsch"), "ISO code"),
        (("--private", "--base", "openai/gpt-5.4-mini"), "--private and the base model"),
        (("--budget", "0", "--base", "openai/gpt-5.4-mini"), "--budget 0 and the base model"),
        (("--base", "openai/gpt-3.5-turbo"), "shut down on 2026"),
        (("--memory", "1", "--base", "Qwen/Qwen2.5-7B-Instruct"), "does not fit"),
        (("--gpu", "L4", "--base", "google/gemma-2-2b-it", "--licence", "permissive"), "Gemma"),
        (("--gpu", "T4", "--latency", "0.01", "--base", "Qwen/Qwen3-0.6B"), "--latency 0.01 s"),
        (("--data", "rows.jsonl"), "not both"),
    ],
)
def test_wishes_that_cannot_be_met_are_one_line_and_write_nothing(
    args: tuple[str, ...], expected: str, tmp_path: Path
):
    result = plan("edu-qa", *args, "--out", tmp_path / "plan")
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2
    message = str(result.exception)
    assert expected in message
    assert "\n" not in message
    assert not (tmp_path / "plan").exists()


@pytest.mark.usefixtures("no_dry_run")
def test_a_private_task_file_with_a_hosted_route_is_a_contradiction(
    tmp_path: Path, tiny_model: Path
):
    path = make_task(tmp_path, tiny_model)
    text = path.read_text().replace('"local"]', '"local", "strong"]')
    path.write_text(
        text + '[routes.strong]\nkind = "baseline"\nmodel = "gpt-5.4-mini"\n'
        'base_url = "https://api.openai.com/v1"\n'
    )
    for flags in (("--private",), ("--budget", "0")):
        result = plan(path, *flags, "--out", tmp_path / "plan")
        assert "route 'strong'" in str(result.exception)
        assert flags[0] in str(result.exception)
    own = path.read_text().replace("https://api.openai.com/v1", "http://127.0.0.1:8000/v1")
    path.write_text(own)
    assert plan(path, "--private", "--out", tmp_path / "plan").exit_code == 0


def test_a_plan_is_never_overwritten_and_half_of_one_never_left(task: Path, tmp_path: Path):
    (tmp_path / "plan").mkdir()
    result = plan(task, "--out", tmp_path / "plan")
    assert "never overwritten" in str(result.exception)
    assert list((tmp_path / "plan").iterdir()) == []
    (tmp_path / "rows.jsonl").write_text('{"question": "a"}\n')
    result = plan(task, "--out", tmp_path / "other")
    assert "rows.jsonl:1" in str(result.exception)
    assert not (tmp_path / "other").exists()
    assert plan("edu-qa", "edu-dialogue").exit_code == 2


@pytest.mark.usefixtures("no_dry_run")
def test_no_gpu_is_said_and_a_rented_one_named(tmp_path: Path, task: Path):
    bare = {"gpus": [], "cores": 2, "memory_bytes": 16e9}
    machine = hardware("find out", None, bare)
    assert not machine.gpu
    assert "no GPU was found" in machine.how
    rented = rentable(Wishes(machine, 1000, 12), TODAY)
    assert rented is not None
    assert rented[1].hardware.memory_bytes >= 24e9
    proposal = planned(tmp_path / "plan", task, "--gpu", "none", "--memory", "16")
    assert any("No GPU" in sentence for sentence in proposal["summary"])
    found = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 80 * 2**30}
    seen = hardware(None, None, {**bare, "gpus": [found]})
    assert seen.gpu
    assert seen.memory_bytes == 80 * 2**30
    assert hardware(None, 40, {**bare, "gpus": [found]}).name == "a GPU with 40 GB"
    assert hardware("find out", 40, {**bare, "gpus": [found]}).memory_bytes == 40e9


def test_stale_prices_and_models_that_end_are_said():
    late = TODAY + timedelta(days=200)
    tokens = Tokens(300, 100, 60_000, 600)
    fresh = ways(on("L4"), tokens, find_machine("L4"), TODAY)
    old = ways(on("L4"), tokens, find_machine("L4"), late)
    assert not any(way.stale for way in fresh if "rented" not in way.name)
    assert all(way.stale for way in old if way.as_of)
    gone = next(way for way in old if way.name == "openai/gpt-4.1-mini-2025-04-14")
    assert gone.month is None
    assert gone.why == "ended 2027-01-14"


# ---- the parts


def test_the_registry_is_dated_and_agrees_with_real_models(tiny_model: Path):
    names = [model.name for model in registry()]
    assert len(names) == len(set(names)) >= 25
    for model in registry():
        assert model.source
        assert model.as_of
        assert model.released
        assert model.released <= TODAY
        assert model.strengths
        assert model.context >= 1024
        assert model.licence_class in ("permissive", "conditions")
        assert (model.licence_class == "permissive") == (model.licence in ("MIT", "Apache-2.0"))
    nano = find_model("tunelm-nano")
    from tunelm.models.loading import BUNDLED

    its = of_folder(BUNDLED["tunelm-nano"])
    for field in ("parameters", "layers", "width", "inner", "heads", "vocabulary", "context"):
        assert getattr(its, field) == getattr(nano, field), field
    assert of_folder(tiny_model).parameters > 0
    assert its.chat_template


CONFIGS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "LlamaConfig",
    "Qwen/Qwen2.5-0.5B-Instruct": "Qwen2Config",
    "Qwen/Qwen3-0.6B": "Qwen3Config",
    "google/gemma-3-1b-it": "Gemma3TextConfig",
    "microsoft/Phi-4-mini-instruct": "Phi3Config",
    "EleutherAI/pythia-160m": "GPTNeoXConfig",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_and_shape_agree_to_the_last_one(name: str):
    torch = pytest.importorskip("torch")
    import transformers

    model = find_model(name)
    config = getattr(transformers, CONFIGS[name])(
        hidden_size=model.width,
        num_hidden_layers=model.layers,
        intermediate_size=model.inner,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        head_dim=model.head,
        vocab_size=model.vocabulary,
        tie_word_embeddings=model.tied,
    )
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in made.parameters()) == model.parameters
    linear = [m for n, m in made.named_modules() if isinstance(m, torch.nn.Linear)]
    blocks = [m for m in linear if m.out_features != model.vocabulary]
    expected = sum(16 * (m.in_features + m.out_features) for m in blocks)
    assert lora_parameters(model, 16) == expected


def test_memory_grows_with_all_that_it_should():
    model = find_model("Qwen/Qwen2.5-7B-Instruct")
    lora = training(model, "lora", ROW, 1).memory
    assert lora.low is not None
    assert lora.high is not None
    assert lora.value is not None
    assert lora.low < lora.value < lora.high
    assert lora.value > 2 * model.parameters
    tight, full = (training(model, m, ROW, 1).memory.value or 0 for m in ("qlora", "full"))
    assert tight < lora.value < full
    assert full > 16 * model.parameters
    longer = training(model, "lora", Load(4000, 400, 2), 1).memory.value or 0
    assert longer > lora.value
    assert largest_batch(model, "lora", ROW, 12e9) is None
    found = largest_batch(model, "lora", ROW, 80e9)
    assert found is not None
    assert found.batch == 8


def test_constraints_rule_models_out_and_say_which_did():
    by = shortlist(on("RTX 4090", licence="permissive"), ROW, 1e6, text=False)
    assert len(by.top) == 3
    sizes = [c.model.parameters for c in by.top]
    assert all(2 * b <= a for a, b in itertools.pairwise(sizes))
    assert all(c.model.licence_class == "permissive" for c in by.top)
    assert all((c.training.memory.high or math.inf) <= 24e9 for c in by.top)
    total = len(by.top) + len(by.others) + sum(n for _, n, _ in by.fell)
    assert total == len(registry()) - 1, "tunelm-nano is what one tries with"
    long = shortlist(on("H100 SXM"), Load(100_000, 100, 2), 1e6, text=False)
    assert all(c.model.context >= 100_000 for c in long.top)
    thai = shortlist(on("H100 SXM", language="th"), ROW, 1e6, text=False)
    assert all(c.model.speaks("th") for c in thai.top)
    quick = shortlist(on("T4", latency_s=0.5), ROW, 1e6, text=False)
    assert all((c.seconds or 0) <= 0.5 for c in quick.top)
    cores = hardware("find out", None, {"gpus": [], "cores": 2, "memory_bytes": 512e9})
    slow = shortlist(Wishes(cores, 1000, 12), Load(120, 40, 4), 5e7, text=False)
    assert any(why.startswith("time") for why, _, _ in slow.fell)
    assert any(m.startswith("gpt2") for _, _, names in by.fell for m in names.split(", "))


def test_rules_are_sourced_and_every_condition_is_of_a_known_fact():
    facts = {**dict.fromkeys(FACTS, False), "kind": "qa", "train_rows": 300.0}
    for rule in rules():
        assert rule.source
        assert rule.reason
        assert rule.changes
        assert rule.way in WAYS
        for condition in rule.when:
            holds(condition, facts)
    assert all(s.source and s.way in WAYS for s in settings())
    with pytest.raises(ValueError, match="no condition"):
        holds("colour == red", facts)
    ways_of = {
        "qa": advise({**facts, "corpus": True, "knowledge": True}).ways,
        "few": advise({**facts, "train_rows": 20.0}).ways,
        "labels": advise({**facts, "kind": "classification"}).ways,
        "text": advise({**facts, "kind": "text", "text": True}).ways,
        "private": advise({**facts, "private": True}).ways,
    }
    assert ways_of["qa"][1] == "rag"
    assert ways_of["few"][1] == "prompt"
    assert "local" not in ways_of["few"]
    assert ways_of["labels"][1] == "classifier"
    assert ways_of["text"] == ("control", "local")
    assert "hosted" not in ways_of["private"]
    assert kind_said("A tutor chatbot for fractions") == "dialogue"


def test_every_machine_of_the_price_table_has_its_memory():
    assert set(machine_names()) == set(cards())
    assert all(card.source and card.memory_bytes >= 8e9 for card in cards().values())


def test_break_even_of_a_rented_card_is_its_rent_over_the_price_of_an_answer():
    found = ways(on("L4"), Tokens(300, 100, 60_000, 600), find_machine("L4"), TODAY)
    pair = pays_off(found)
    assert pair is not None
    host, rented, at = pair
    assert host.curve is not None
    assert rented.curve is not None
    assert at.spans[0][0] == pytest.approx(rented.curve.rent / host.curve.per_unit)
    assert pays_off([way for way in found if "rented" not in way.name]) is None
    assert set(hosts.MODELS) <= {way.name for way in found}


def test_smallest_differences_match_the_usual_table():
    assert smallest_difference(1) is None
    found = smallest_difference(10_000)
    assert found is not None
    assert found == pytest.approx(2.8016 * math.sqrt(0.5 / 10_000), rel=1e-3)
    assert groups_for(found) == pytest.approx(10_000, rel=0.01)


def test_a_task_file_written_is_read_back_the_same(tmp_path: Path):
    whole = {
        "task": {"name": "a.b", "instructions": 'Say "no"\n\tor \x7f\\.', "labels": ["ä", "b,c"]},
        "data": {"path": str(tmp_path / "x y.jsonl"), "columns": {"question": "The question"}},
        "compare": {"routes": ["constant", "my route", "distill"], "seeds": [0, 1]},
        "routes": {
            "my route": {"kind": "local", "r": 4, "learning_rate": 1e-4},
            "distill": {"teacher": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}},
        },
        "budget": {"spend": True, "max_usd": 1.5},
    }
    config = parse_config(whole, tmp_path)
    text = task_file(config, ["a note\nin two lines"], {})
    assert text.startswith("# a note in two lines\n")
    again = parse_config(tomllib.loads(text), tmp_path)
    assert isinstance(again, Config)
    assert again.shared_digest() == config.shared_digest()
    assert again.routes == config.routes
    assert again.compare == config.compare
    assert again.budget == config.budget


def test_the_registry_can_be_listed():
    shown = CliRunner().invoke(cli, ["models", "--registry"]).stdout
    for model in registry():
        assert model.name.split("/")[-1][:12] in shown
    listed = json.loads(CliRunner().invoke(cli, ["models", "--registry", "--json"]).stdout)
    assert {row["name"] for row in listed} == {model.name for model in registry()}
