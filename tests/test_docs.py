"""What the documentation shows works, and what exists is documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from tunelm.config import Config, parse_config
from tunelm.route_settings import KINDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def test_the_python_snippet_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    snippet = blocks(ROOT / "README.md", "python")[0]
    exec(compile(snippet, "README.md", "exec"), {})
    assert (tmp_path / "runs/small/report.html").is_file()


def test_ten_lines_of_the_readme_train_and_ask_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from tunelm.config import ModelConfig
    from tunelm.routes.finetune_server import LocalServer

    snippet = blocks(ROOT / "README.md", "python")[1]
    assert snippet.count("\n") == 10
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is the capital of country {i}?"},
                {"role": "assistant", "content": "That I do not know."},
            ]
        }
        for i in range(10)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with LocalServer(ModelConfig(), tmp_path / "server") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        names: dict[str, Any] = {}
        exec(compile(snippet, "README.md", "exec"), names)
        events = names["client"].fine_tuning.jobs.list_events(names["job"].id).data
        again = names["client"].chat.completions.create(
            model=names["job"].fine_tuned_model, messages=names["ask"], temperature=0
        )
        names["client"].close()
    assert any(event.message.startswith("Step") for event in events)
    assert capsys.readouterr().out.strip().splitlines()[-1], "sampled, so not always the same"
    assert again.choices[0].message.content == "That I do not know."


@pytest.mark.parametrize(
    "name",
    ["api-models", "prompt", "rag", "hybrid", "distill", "faq-decline", "support-email", "gpu"],
)
def test_the_task_files_of_the_docs_are_valid(name: str, tmp_path: Path):
    found = blocks(ROOT / "docs" / f"{name}.md", "toml")
    assert found
    for snippet in found:
        given = tomllib.loads(snippet)
        task, data = ({**given.get(name, {})} for name in ("task", "data"))
        whole = {**given, "task": {"name": "x", **task}, "data": {"path": "x.jsonl", **data}}
        parse_config(whole, tmp_path, name)


def test_the_program_of_ones_own_in_the_docs_runs():
    pytest.importorskip("dspy")
    (snippet,) = blocks(ROOT / "docs/prompt.md", "python")
    command = [sys.executable, "-c", snippet]  # it sets DSPy up for its whole process
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Ottawa" in done.stdout


def test_the_task_file_of_the_readme_is_valid(tmp_path: Path):
    from tunelm.config import load_config

    (snippet,) = blocks(ROOT / "README.md", "toml")
    (tmp_path / "my_task.toml").write_text(snippet)
    assert load_config(tmp_path / "my_task.toml").compare.routes[-1] == "local"


def test_the_mended_template_for_domain_text_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("datasets", reason="the classic template reads its text with datasets")
    from tunelm.testing import make_tiny_model

    monkeypatch.chdir(tmp_path)
    make_tiny_model(tmp_path / "distilgpt2")
    (tmp_path / "domain.txt").write_text("\n".join(f"Line {i} of the domain." for i in range(60)))
    (snippet,) = blocks(ROOT / "docs/domain-text.md", "python")
    exec(compile(snippet, "domain-text.md", "exec"), {})
    assert (tmp_path / "fine_tuned_model/model.safetensors").is_file()


def test_the_task_file_for_domain_text_is_valid(tmp_path: Path):
    from tunelm.config import load_config

    (snippet,) = blocks(ROOT / "docs/domain-text.md", "toml")
    (tmp_path / "my_domain.toml").write_text(snippet)
    config = load_config(tmp_path / "my_domain.toml")
    assert config.compare.primary_metric == "bits_per_byte"
    assert config.compare.routes == ("baseline", "local")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_shown_exists_and_takes_its_options(page: Path):
    from tunelm.cli import COMMANDS, cli

    for block in blocks(page, "sh"):
        for line in re.findall(r"^tunelm (.*?)(?:\s+#.*)?$", block, flags=re.M):
            words = line.split()
            assert words[0] in COMMANDS, line
            command = cli.get_command(None, words[0])  # type: ignore[arg-type]
            while isinstance(command, click.Group) and len(words) > 1:
                words = words[1:]
                assert words[0] in command.list_commands(None), line  # type: ignore[arg-type]
                command = command.get_command(None, words[0])  # type: ignore[arg-type]
            known = {o for p in command.params for o in p.opts}
            assert {w for w in words if w.startswith("--")} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_setting_stands_in_the_docs():
    text = (ROOT / "docs/task-file.md").read_text(encoding="utf-8")
    sections = [f.annotation for f in Config.model_fields.values()]
    models = [s for s in sections if isinstance(s, type) and hasattr(s, "model_fields")]
    for section in [*models, *KINDS.values()]:
        for name in section.model_fields:
            assert f"`{name}`" in text, f"{section.__name__}.{name}"
