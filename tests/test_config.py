"""A task file is checked as a whole, and every fault says what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunelm.config import TASKS, load_config
from tunelm.errors import ConfigError

GOOD = '[task]\nname = "t"\n[data]\npath = "rows.jsonl"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_sensible_and_paths_are_relative_to_the_file(tmp_path: Path):
    config = load_config(written(tmp_path, GOOD))
    assert config.data.path == tmp_path / "rows.jsonl"
    assert config.compare.routes == ("constant", "baseline", "prompt", "local", "cloud")
    assert config.routes["local"].kind == "local"


@pytest.mark.parametrize("name", sorted(p.stem for p in TASKS.glob("*.toml")))
def test_every_bundled_task_is_valid_and_its_files_exist(name: str):
    config = load_config(name)
    assert config.task.name == name
    assert config.data.path.is_file() or str(config.data.path).startswith("builtin:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "[compar]\n", "Did you mean 'compare'?"),
        (GOOD.replace('"t"', '"t"\ninstrutions = "x"'), "Did you mean 'instructions'?"),
        (GOOD + "[routes.local]\nrank = 8\n", "Valid here: kind, method, r, alpha"),
        (GOOD + "[routes.lora]\nr = 8\n", "unknown route kind 'lora'"),
        (GOOD + "[routes.x]\nkind = 'lokal'\n", "Did you mean 'local'?"),
        (GOOD + "[routes.local]\nr = 0\n", "routes.local.r = 0"),
        ("[task]\nname = 't'\n", "'data' is missing"),
        ("[task\n", "not valid TOML"),
    ],
)
def test_a_fault_says_what_would_be_right(tmp_path: Path, text: str, expected: str):
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, text))
    assert expected in str(error.value)


def test_two_routes_of_one_kind_differ_in_their_settings(tmp_path: Path):
    config = load_config(written(tmp_path, GOOD + '[routes.wide]\nkind = "local"\nr = 64\n'))
    assert config.routes["wide"].r == 64
    assert config.routes["local"].r == 16
    assert config.route_digest("wide") != config.route_digest("local")


def test_overrides_are_toml_or_text(tmp_path: Path):
    path = written(tmp_path, GOOD)
    config = load_config(path, ["routes.local.r=4", "task.instructions=Be brief", "data.test=0.5"])
    assert config.routes["local"].r == 4
    assert config.task.instructions == "Be brief"
    assert config.data.test == 0.5
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        load_config(path, ["r=4"])


def test_an_unknown_task_names_the_bundled_ones(tmp_path: Path):
    with pytest.raises(ConfigError, match="Did you mean 'edu-qa'"):
        load_config("edu_qa")
    with pytest.raises(ConfigError, match="no such task file"):
        load_config(tmp_path / "none.toml")


def test_a_task_file_that_is_not_utf8_is_named(tmp_path: Path):
    path = tmp_path / "task.toml"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)
