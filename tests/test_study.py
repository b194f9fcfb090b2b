"""A study: trials dealt in turn, resumed, pruned; and what may be said of the methods."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.config import load_config
from tunelm.errors import ConfigError, RunDirError, TrainingError
from tunelm.route_settings import LocalSettings
from tunelm.scoring.metrics import get_metric
from tunelm.testing import make_tiny_model
from tunelm.types import Example, Message

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("optuna")

from tunelm.study.finals import best_of, choose, compare_methods
from tunelm.study.page import markdown, section, sentence
from tunelm.study.run import run_study
from tunelm.study.search import Setting, Trial, ask, run_trial
from tunelm.study.space import VARIANTS, Shape, distributions, settings_of
from tunelm.training import process
from tunelm.training.worker import run as train_here

from .conftest import make_task

SHAPE = Shape(192, ("q_proj", "v_proj"))


def in_this_process(work, scorer=None, on_event=None, stop=None, nice=0, processes=1):
    """`process.train` without the seconds that a new process needs to import torch."""
    events = process.follow(work / "events.jsonl")
    next(events)

    def look():
        for event in next(events):
            on_event(event)
        return False

    result = train_here(work, None, look)
    look()
    return result


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(process, "train", in_this_process)


def config_of(folder: Path, model: Path, *overrides: str):
    given = ('compare.routes=["local"]', "routes.local.max_steps=4", *overrides)
    return load_config(make_task(folder, model), given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """(config, run directory, what was found) of a study of ten trials, not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    config = config_of(folder, tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "train", in_this_process)
        return config, folder / "run", run_study(config, "local", 12, folder / "run")


# --- trials -------------------------------------------------------------------------------


def test_each_method_gets_the_same_trials_and_begins_with_its_defaults(finished):
    config, _, found = finished
    assert (found["trials_asked"], found["trials_each"], len(found["trials"])) == (12, 2, 10)
    assert [t["method"] for t in found["trials"]] == list(VARIANTS) * 2
    assert {t["state"] for t in found["trials"]} == {"done"}
    assert {t["steps"] for t in found["trials"]} == {4}
    for trial in found["trials"][:5]:
        assert trial["params"]["rate"] == 1
        assert (trial["settings"]["r"], trial["settings"]["targets"]) == (16, "all-linear")
    for first, second in zip(found["trials"][:5], found["trials"][5:], strict=True):
        assert first["params"] != second["params"]
    everything = found["trials"][4]["settings"]
    assert everything["method"] == "rsdora"
    assert (everything["loraplus_ratio"], everything["neftune_alpha"]) == (4, 5)
    for trial in found["trials"]:
        assert trial["settings"]["max_steps"] == config.routes["local"].max_steps
        assert trial["parameters"] > 0
        assert trial["peak_memory"] > 50e6


def test_a_study_leaves_scores_and_finals_but_no_weights_of_trials(finished):
    _, run, found = finished
    study = run / "study"
    assert json.loads((study / "study.json").read_text()) == json.loads(json.dumps(found))
    assert not list((study / "trials").rglob("*.safetensors"))
    assert len(list((study / "trials").glob("*/scores.json"))) == 10
    seeds = {p.name for p in (study / "finals").glob("*/*")}
    assert seeds == {"seed-1", "seed-2"}
    assert len(list((study / "finals").rglob("adapter_model.safetensors"))) == 10


def test_the_test_rows_are_never_answered(finished):
    _, run, found = finished
    split = json.loads((run / "split.json").read_text())["parts"]
    asked = {
        json.loads(line)["example_id"]
        for path in (run / "study").rglob("predictions.jsonl")
        for line in path.read_text().splitlines()
    }
    assert asked == set(split["dev"]["ids"])
    for path in (run / "study").rglob("*.jsonl"):
        assert not any(i in path.read_text() for i in split["test"]["ids"])
    assert found["test_rows_looked_at"] == 0


def test_the_section_is_that_of_a_task_file(finished, tmp_path, tiny_model):
    config, _, found = finished
    task = make_task(tmp_path, tiny_model)
    text = task.read_text().partition("[routes.local]")[0]
    task.write_text(f"{text}{found['section']}\n")
    settings = load_config(task).routes["local"]
    row = next(r for r in found["methods"] if r["method"] == found["chosen"])
    assert json.loads(settings.model_dump_json()) == row["settings"]
    assert settings.stop_on == config.routes["local"].stop_on == "none"


def test_a_study_killed_in_a_trial_goes_on_with_the_same_trials(finished, tmp_path, tiny_model):
    config, _, found = finished
    config = config_of(tmp_path, tiny_model)
    calls = []

    def killed(what, done, total):
        calls.append(what)
        if "trial 7 of 10" in what and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(config, "local", 12, tmp_path / "run", progress=killed)
    trials = tmp_path / "run" / "study" / "trials"
    drawn = json.loads((trials / "006" / "drawn.json").read_text())["params"]
    assert not (trials / "006" / "trial.json").exists()
    before = (trials / "005" / "trial.json").stat().st_mtime_ns
    with pytest.raises(RunDirError, match="never overwritten"):
        run_study(config, "local", 12, tmp_path / "run")
    resumed = run_study(config, "local", 12, tmp_path / "run", resume=True)
    assert resumed["trials"][6]["params"] == drawn
    assert (trials / "005" / "trial.json").stat().st_mtime_ns == before
    for mine, theirs in zip(resumed["trials"], found["trials"], strict=True):
        for key in ("method", "params", "settings", "state", "score", "losses", "steps"):
            assert mine[key] == theirs[key], (mine["number"], key)
    for mine, theirs in zip(resumed["methods"], found["methods"], strict=True):
        for key in ("dev", "beside", "settings", "seeds"):
            assert mine[key] == theirs[key], (mine["method"], key)


def test_other_settings_in_the_same_folder_are_refused(finished):
    config, run, _ = finished
    routes = {"local": config.routes["local"].model_copy(update={"max_steps": 5})}
    with pytest.raises(RunDirError, match=r"other settings was begun here \(max_steps differ\)"):
        run_study(config.model_copy(update={"routes": routes}), "local", 12, run, resume=True)


def setting_in(folder: Path, model: Path, **settings) -> Setting:
    from tunelm.routes.base import FitContext

    rows = [
        Example(f"e{i}", (Message("user", f"Which colour is {i}?"),), ("It is red.",), f"g{i}")
        for i in range(12)
    ]
    config = config_of(folder, model)
    ctx = FitContext(
        name="local",
        task=config.task,
        model=config.model,
        metric="token_f1",
        train=rows[:8],
        dev=rows[8:],
        work=folder / "study",
    )
    return Setting(ctx, LocalSettings(batch_size=4, stop_on="none", **settings), SHAPE)


def trial_of(number: int, score: float | None, loss: float, method: str = "lora") -> Trial:
    params = {"rate": 1.0 + number / 10, "r": 8, "alpha": 16.0, "targets": "all-linear"}
    if VARIANTS[method].loraplus:
        params["loraplus_ratio"] = 4.0
    if VARIANTS[method].neftune:
        params["neftune_alpha"] = 5.0
    settings = settings_of(VARIANTS[method], params, LocalSettings(), SHAPE)
    state = "failed" if score is None else "done"
    losses = {} if score is None else {0: loss, 1: loss}
    return Trial(number, method, params, settings, state, None, score, losses, 4, 1.0)


def test_a_trial_above_the_median_of_its_method_is_pruned_after_the_first_epoch(
    tmp_path, tiny_model
):
    setting = setting_in(tmp_path, tiny_model, epochs=10)
    better = [trial_of(0, 0.5, 1e-6), trial_of(5, 0.4, 1e-6)]
    trial = run_trial(setting, 10, 15, better)
    assert trial.state == "pruned"
    assert str(trial.reason).startswith("dev loss above the median of its method at step")
    assert (trial.score, list(trial.losses)) == (None, [0, 1])
    assert trial.steps < 20
    # read back, not run again; and others' trials do not prune it
    assert run_trial(setting, 10, 15, better) == trial
    others = [trial_of(1, 0.5, 1e-6, "rslora"), trial_of(6, 0.4, 1e-6, "rslora")]
    assert run_trial(setting, 15, 20, others).state == "done"


def test_what_failed_is_avoided_and_what_was_drawn_is_taken_again(tmp_path, tiny_model):
    setting = setting_in(tmp_path, tiny_model)
    tried = [trial_of(i, 0.1 * i, 1.0) for i in range(6)] + [trial_of(30, None, 1.0)]
    drawn = ask("lora", setting, tried, None).params
    assert drawn == ask("lora", setting, tried, None).params
    assert drawn != ask("lora", setting, tried[:-1], None).params
    assert ask("lora", setting, tried[:2], drawn).params == drawn


def test_a_study_in_which_nothing_trains_says_why(tmp_path):
    from safetensors.torch import load_file, save_file

    base = make_tiny_model(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = config_of(tmp_path, base)
    with pytest.raises(
        TrainingError, match=r"all 5 trials failed\. The first: the dev loss is nan"
    ):
        run_study(config, "local", 5, tmp_path / "run")


@pytest.mark.parametrize("method", VARIANTS)
def test_what_is_drawn_becomes_settings_around_the_methods_default_rate(method):
    space = distributions(VARIANTS[method], SHAPE)
    params = {
        name: one.to_external_repr(one.to_internal_repr(_last(one))) for name, one in space.items()
    }
    settings = settings_of(VARIANTS[method], params, LocalSettings(epochs=3), SHAPE)
    assert settings.targets == ("q_proj", "v_proj")
    assert settings.epochs == 3
    assert (settings.loraplus_ratio is not None) == (method in ("lora+", "rsdora+"))
    assert (settings.neftune_alpha is not None) == (method == "rsdora+")
    plain = {
        "lora": 2e-3,
        "dora": 2e-3,
        "lora+": 2e-3 / 4,
        "rslora": 2e-3 / 8,
        "rsdora+": 2e-3 / 32,
    }
    assert settings.learning_rate == pytest.approx(4 * plain[method], rel=0.01)


def _last(one):
    return one.choices[-1] if hasattr(one, "choices") else one.high


# --- verdicts -----------------------------------------------------------------------------


def planted(gains: dict[str, float], rows: int = 120, seeds: int = 2):
    """(statistics by method, rows): scores around 0.5, and `gains` more than LoRA's."""
    rng = np.random.default_rng(1)
    dev = [Example(f"e{i}", (Message("user", "?"),), ("a",), f"g{i // 2}") for i in range(rows)]
    level = rng.uniform(0.3, 0.7, rows)
    stats = {}
    for method, gain in gains.items():
        noise = rng.normal(0, 0.05, (seeds, rows))
        noise -= noise.mean(axis=1, keepdims=True)  # seeds alike, so that the gain is what differs
        values = np.clip(level + gain + noise, 0, 1)
        stats[method] = np.stack([values, np.ones_like(values)], axis=2)
    return stats, dev


def test_planted_differences_are_found_and_their_absence_is_a_verdict():
    stats, dev = planted({"lora": 0, "rslora": 0.1, "dora": 0.0, "lora+": -0.1})
    found = compare_methods(stats, dev, get_metric("token_f1"))
    assert found["lora"]["beside"] is None
    verdicts = {name: one["beside"]["verdict"] for name, one in found.items() if one["beside"]}
    assert verdicts == {"rslora": "better", "dora": "not distinguishable", "lora+": "worse"}
    for one in found.values():
        assert one["dev"]["ci_low"] < one["dev"]["value"] < one["dev"]["ci_high"]
        assert (one["dev"]["n"], one["dev"]["n_groups"]) == (120, 60)
    gain = found["rslora"]["beside"]
    assert gain["diff"] == pytest.approx(0.1, abs=0.01)
    assert gain["p"] < gain["p_holm"] <= 3 * gain["p"] + 1e-12
    assert 0 < gain["mde"] < 0.1
    rows = [{"method": m, **one} for m, one in found.items()]
    assert choose(rows, 1.0) == "rslora"


def test_where_less_is_better_a_lower_value_wins():
    stats, dev = planted({"lora": 0, "dora": -0.1})
    found = compare_methods(stats, dev, get_metric("bits_per_byte"))
    assert found["dora"]["beside"]["diff"] < 0
    assert found["dora"]["beside"]["verdict"] == "better"


def test_nothing_is_said_where_lora_did_not_come_through():
    stats, dev = planted({"rslora": 0.1, "dora": 0})
    found = compare_methods(stats, dev, get_metric("token_f1"))
    assert all(one["beside"] is None for one in found.values())
    rows = [{"method": "lora", "dev": None, "beside": None}]
    rows += [{"method": m, **one} for m, one in found.items()]
    assert choose(rows, 1.0) == "rslora"
    assert choose(rows[:1], 1.0) is None


def test_lora_is_kept_where_none_is_shown_to_be_better():
    stats, dev = planted({"lora": 0, "rslora": 0.001, "dora": 0.0})
    found = compare_methods(stats, dev, get_metric("token_f1"))
    assert choose([{"method": m, **one} for m, one in found.items()], 1.0) == "lora"


def test_differences_between_seeds_widen_the_interval():
    stats, dev = planted({"lora": 0, "dora": 0.03})
    sure = compare_methods(stats, dev, get_metric("token_f1"))["dora"]["beside"]
    assert sure["verdict"] == "better"
    stats["dora"][0, :, 0] -= 0.1
    stats["dora"][1, :, 0] += 0.1
    unsure = compare_methods(stats, dev, get_metric("token_f1"))["dora"]["beside"]
    assert unsure["diff"] == pytest.approx(sure["diff"])
    assert unsure["verdict"] == "not distinguishable"


def test_the_best_trial_is_the_first_of_the_highest_and_never_one_without_score():
    trials = [
        trial_of(0, 0.3, 1.0),
        trial_of(5, 0.5, 1.0),
        trial_of(10, 0.5, 1.0),
        trial_of(1, None, 1.0, "rslora"),
        dataclasses.replace(trial_of(2, 0.9, 1.0, "dora"), state="pruned", score=None),
    ]
    assert {m: t.number for m, t in best_of(trials).items()} == {"lora": 5}


# --- words and the command ----------------------------------------------------------------


def test_the_page_holds_each_method_each_trial_and_what_was_not_done(finished):
    _, run, found = finished
    page = (run / "study" / "study.md").read_text()
    assert page == markdown(found)
    assert "The test rows were not looked at" in page
    assert page.count("\n| ") == 5 + 10 + 2
    assert f"**{sentence(found)}**" in page


def test_the_sentence_fits_the_verdicts(finished):
    _, _, found = finished
    stats, dev = planted({"lora": 0, "rslora": 0.1, "dora": 0.0, "lora+": -0.1})
    rows = [
        {"method": m, **one}
        for m, one in compare_methods(stats, dev, get_metric("token_f1")).items()
    ]
    told = {**found, "methods": rows, "chosen": "rslora", "dev_rows": 120, "dev_groups": 60}
    assert sentence(told).startswith("rslora is better than LoRA with its learning rate tuned: ")
    told |= {"chosen": "lora", "methods": [r for r in rows if r["method"] != "rslora"]}
    assert sentence(told) == (
        "Keep LoRA: lora+ is worse than, and dora is not distinguishable from LoRA with its "
        "learning rate tuned, by token_f1 on 120 dev rows in 60 groups, 2 seeds each."
    )
    assert section({**told, "chosen": None}) == ""
    assert sentence({**told, "chosen": None}).startswith("No method came through")


def test_wrong_use_is_told_in_one_line(tmp_path, tiny_model):
    config = config_of(tmp_path, tiny_model)
    with pytest.raises(ConfigError, match=r"fewest are 5, one for each method \(lora, rslora"):
        run_study(config, "local", 4, tmp_path / "run")
    other = load_config(tmp_path / "boxes.toml", ('compare.routes=["prompt"]',))
    with pytest.raises(ConfigError, match="'prompt' is of kind 'prompt'"):
        run_study(other, "prompt", 5, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    task = str(tmp_path / "boxes.toml")
    done = CliRunner().invoke(cli, ["adapt", "local", task, "--study", "5", "--resume"])
    assert done.exit_code == 2
    assert "--resume needs --out" in done.output
    done = CliRunner().invoke(cli, ["adapt", "local", task, "--study", "--spend"])
    assert done.exit_code == 2


def test_the_command_prints_the_verdict_and_resumes(finished, tmp_path):
    config, run, found = finished
    task = str(config.data.path.parent / "boxes.toml")
    steps = ["--set", "routes.local.max_steps=4"]
    again = [*steps, "--out", str(run), "--resume", "--quiet"]
    done = CliRunner().invoke(cli, ["adapt", "local", task, "--study", "10", *again])
    assert done.exit_code == 0, done.output
    assert found["verdict"] in done.output
    assert "the one to beat" in done.output
    printed = done.output.partition("[routes.local]")[2].partition("\n\n")[0]
    assert tomllib.loads(printed)["learning_rate"] > 0
    done = CliRunner().invoke(cli, ["adapt", "local", task, "--study", "10", *again, "--json"])
    assert json.loads(done.output)["methods"] == json.loads(json.dumps(found["methods"]))
