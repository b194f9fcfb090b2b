"""Learning curves: forecasts of scores from slices of the train rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunelm.config import Config, load_config
from tunelm.data.read import read_rows
from tunelm.data.split import Split, split_rows
from tunelm.errors import ConfigError, RunDirError
from tunelm.planning.curve import Point, fit_curve
from tunelm.planning.learn import SHARES, learn, loss_of, slices_of, value_of
from tunelm.scoring.metrics import get_metric


def split_of(config: Config) -> Split:
    return split_rows([row.example for row in read_rows(config.data.path)], config.data)


def points(law, sizes, rng, noise: float) -> list[Point]:
    return [Point(n, max(0.0, law(n) + rng.normal(0, noise)), noise) for n in sizes]


@pytest.mark.parametrize(
    "law",
    [
        pytest.param(lambda n: 0.2 + 0.5 / (1 + (n / 90) ** 0.9), id="rectified"),
        pytest.param(lambda n: 0.1 + 0.6 * (1 + n / 20) ** -0.5, id="power"),
        pytest.param(lambda n: 0.8 if n == 0 else 0.35, id="learned at once"),
    ],
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(law):
    rng = np.random.default_rng(3)
    inside = 0
    for trial in range(60):
        known = points(law, (0, 50, 100, 200), rng, 0.015)
        reach = fit_curve(known, seed=trial).at(400, 0.02)
        truth = law(400) + rng.normal(0, 0.025)  # of training and of the rows together
        inside += reach.low <= truth <= reach.high
    assert 0.62 <= inside / 60 <= 0.98


def test_a_curve_still_falling_is_forecast_to_fall_and_a_flat_one_hardly():
    falling = fit_curve([Point(0, 0.9, 0.01), Point(50, 0.7, 0.01), Point(100, 0.6, 0.01)])
    flat = fit_curve([Point(0, 0.9, 0.01), Point(50, 0.4, 0.01), Point(100, 0.4, 0.01)])
    assert falling.at(200, 0.01).value < 0.57
    assert 0.33 < flat.at(200, 0.01).value < 0.41
    assert falling.at(200, 0.05).high > falling.at(200, 0.01).high


def test_the_same_points_give_the_same_forecast():
    known = [Point(0, 0.9, 0.01), Point(50, 0.7, 0.01), Point(100, 0.6, 0.01)]
    assert fit_curve(known).at(400, 0.02) == fit_curve(list(reversed(known))).at(400, 0.02)


def test_one_slice_is_no_curve():
    with pytest.raises(ConfigError, match="two slices"):
        fit_curve([Point(0, 0.9, 0.01), Point(50, 0.7, 0.01)])


@pytest.mark.parametrize("name", ["token_f1", "bleu", "invalid_label", "bits_per_byte"])
def test_losses_and_values_are_each_others_inverse(name: str):
    metric = get_metric(name)
    value = 0.3 * (metric.scale or 4.0)
    assert value_of(metric, loss_of(metric, value)) == pytest.approx(value)
    better = value - 0.1 if metric.lower_is_better else value + 0.1
    assert loss_of(metric, better) < loss_of(metric, value)


def test_slices_stand_in_each_other_and_share_no_group_with_what_they_are_scored_on(task: Path):
    train = split_of(load_config(task)).train
    slices = slices_of(train, 0)
    ids = [{row.id for row in slices.fitted[share]} for share in SHARES]
    assert ids[0] < ids[1] < ids[2]
    held = {row.group for row in slices.judged}
    assert held
    assert not held & {row.group for row in slices.fitted[SHARES[-1]]}


def test_routes_are_tried_on_slices_once_and_their_scores_forecast(task: Path, tmp_path: Path):
    config = load_config(task)
    split = split_of(config)
    seen: list[str] = []
    found = learn(config, split, tmp_path / "learn", progress=lambda what, *_: seen.append(what))
    assert list(found) == ["prompt", "local"]
    for one in found.values():
        estimate = one.forecast
        assert estimate.unit == "token_f1"
        assert estimate.low <= estimate.value <= estimate.high
        assert "80% interval" in estimate.method
        assert f"of {len(split.train)} train rows" in estimate.method
        assert [row["how"].split(",")[0] for row in one.rows] == ["measured"] * 4 + ["forecast"] * 2
        assert "Twice the" in one.needed
    assert any(what.startswith("local on") for what in seen)
    seen.clear()
    again = learn(config, split, tmp_path / "learn", progress=lambda what, *_: seen.append(what))
    assert again == found
    assert not any("training" in what for what in seen)


def test_a_folder_of_other_settings_is_not_mixed_up(task: Path, tmp_path: Path):
    config = load_config(task)
    learn(config, split_of(config), tmp_path / "learn", ["prompt"])
    other = load_config(task, ["routes.prompt.demos=1"])
    with pytest.raises(RunDirError, match="other rows or settings"):
        learn(other, split_of(other), tmp_path / "learn", ["prompt"])


def test_a_route_that_cannot_be_tried_says_so(task: Path, tmp_path: Path):
    config = load_config(task)
    with pytest.raises(ConfigError, match="no route 'rga'"):
        learn(config, split_of(config), tmp_path, ["rga"])
    with pytest.raises(ConfigError, match="of kind 'constant'"):
        learn(config, split_of(config), tmp_path, ["constant"])


def test_a_slice_that_fails_is_an_unknown_forecast_with_its_reason(task: Path, tmp_path: Path):
    config = load_config(task, ['routes.local.targets=["nowhere"]'])
    found = learn(config, split_of(config), tmp_path / "learn", ["local"])["local"]
    assert found.forecast.value is None
    assert "nowhere" in found.forecast.method


def test_too_few_rows_for_slices_are_refused(task: Path, tmp_path: Path):
    config = load_config(task, ["data.test=0.8", "data.dev=0.1"])
    with pytest.raises(ConfigError, match="slices of 4 rows"):
        learn(config, split_of(config), tmp_path / "learn")
