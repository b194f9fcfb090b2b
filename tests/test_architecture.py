"""Conventions that reviewers would otherwise have to repeat, written as tests."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tunelm"
MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS, MAX_README_LINES = 500, 60, 8, 150
HEAVY = {"torch", "transformers", "peft", "dspy", "litellm", "fastapi", "pandas", "scipy"}

# A module imports from its own layer and those above it in this list, never from below.
LAYERS = [
    ["errors", "types"],
    [
        "config",
        "route_settings",
        "rundir",
        "lifeline",
        "room",
        "cells",
        "price_list",
        "prices",
        "providers",
    ],
    ["data"],
    ["models"],
    ["training"],
    ["predict", "scoring"],
    ["tutor", "retrieval", "judging"],
    ["routes"],
    ["planning"],
    ["report"],
    ["evaluate", "shards", "pipeline", "study", "target", "score_file", "doctor", "chat"],
    ["cluster"],
    ["server", "cli", "testing", "testing_finetune"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or "__" not in p.name)


def imported_names(tree: ast.AST) -> set[str]:
    """Every `tunelm.X` this module imports, wherever in the file the import stands."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports are banned"
            if node.module and node.module.startswith("tunelm."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("tunelm.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_keeps_its_layer_and_its_size(path: Path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} stands in no layer: give it one in this test and in CONTRIBUTING"
    upward = {name for name in imported_names(tree) if RANK[name] > RANK[own]}
    assert not upward, f"imports from a later layer: {sorted(upward)}"
    assert source.count("\n") <= MAX_MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{node.name}, line {node.lineno}"
            assert len(node.args.args) + len(node.args.kwonlyargs) <= MAX_PARAMETERS, where
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, where


def test_only_package_inits_with_a_table_hold_code():
    allowed = {PACKAGE / name / "__init__.py" for name in ("cli", "models", "routes")}
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent == PACKAGE or path in allowed:
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) <= 1, f"{path} should hold its docstring alone"


@pytest.mark.parametrize(
    "module",
    ["tunelm", "tunelm.cli", "tunelm.config", "tunelm.routes", "tunelm.routes.prompt"],
)
def test_importing_the_light_parts_loads_nothing_heavy(module: str):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


def test_help_and_listing_the_routes_load_nothing_heavy():
    code = (
        "import sys\nfrom tunelm.cli import cli\n"
        "for args in (['--help'], ['compare', '--help'], ['routes', '--json']):\n"
        "    try: cli.main(args, standalone_mode=False)\n"
        "    except SystemExit: pass\n"
        f"print('HEAVY', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "HEAVY"


def test_every_public_name_is_there_and_listed_in_order():
    import tunelm

    assert tunelm.__all__ == sorted(tunelm.__all__, key=lambda n: (not n.isupper(), n))
    for name in tunelm.__all__:
        assert getattr(tunelm, name) is not None


def test_the_readme_is_short_and_names_every_command():
    from tunelm.cli import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_README_LINES
    for command in COMMANDS:
        assert f"tunelm {command}" in text


def test_every_command_has_help_with_an_example():
    from click.testing import CliRunner

    from tunelm.cli import COMMANDS, cli

    for command in COMMANDS:
        result = CliRunner().invoke(cli, [command, "--help"])
        assert result.exit_code == 0
        assert "tunelm " + command in result.output, f"{command} --help shows no example"
