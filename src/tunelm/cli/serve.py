"""`serve`: a model behind the OpenAI protocol, for answering and for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from starlette.datastructures import State

    from tunelm.server.catalog import Target

EXAMPLES = """\b
Examples:
  tunelm serve                            the bundled model, with fine-tuning
  tunelm serve runs/first --verify runs/first
  tunelm serve runs/first/local --port 8001 --no-train
  tunelm serve --host 0.0.0.0 --api-key-env TUNELM_API_KEY
"""
NAMED = 8
"""How many models the ready line names."""


def _options(command: Any) -> Any:
    number = click.IntRange(1)
    for option in (
        click.option("--parent", type=number, hidden=True, help="End when that process is gone."),
        click.option(
            "--ready-file",
            type=click.Path(path_type=Path),
            help="Write the address and the process id there (JSON) once requests are answered.",
        ),
        click.option(
            "--threads",
            type=number,
            help="CPU threads for answering  [default: 1 for a small model, else PyTorch's choice]",
        ),
        click.option(
            "--verify",
            type=click.Path(path_type=Path),
            metavar="RUN",
            help="First ask again what this run's test rows were answered; refuse on a mismatch.",
        ),
        click.option(
            "--name",
            help="What clients call the base model, where they insist on one  [default: its own]",
        ),
        click.option("--no-train", is_flag=True, help="Only answer: take no fine-tuning jobs."),
        click.option(
            "--max-adapters", type=number, default=16, show_default=True, help="Held in memory."
        ),
        click.option(
            "--max-waiting",
            type=number,
            default=64,
            show_default=True,
            help="Answers that wait for their turn; further requests get 503.",
        ),
        click.option(
            "--max-batch", type=number, default=32, show_default=True, help="Generated at once."
        ),
        click.option(
            "--max-length",
            type=click.IntRange(16),
            help="Most tokens of prompt and answer  [default: TARGET's own, else 1024]",
        ),
        click.option(
            "--api-key-env",
            metavar="NAME",
            help="The environment variable that holds the key to ask for.",
        ),
        click.option(
            "--state",
            type=click.Path(path_type=Path),
            help="Folder of files, jobs and trained adapters  [default: the user's data folder]",
        ),
        click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True),
        click.option("--host", default="127.0.0.1", show_default=True),
    ):
        command = option(command)
    return command


@click.command("serve", epilog=EXAMPLES)
@click.argument("target", default="tunelm-nano")
@_options
@click.option(
    "--engine",
    type=click.Choice(["auto", "light", "vllm"]),
    default="auto",
    show_default=True,
    help="What answers: vLLM where there is one and a GPU, or tunelm's own.",
)
@click.option("--no-chat", is_flag=True, help="Leave the chat page out.")
@click.option(
    "--contact",
    default="",
    metavar="TEXT",
    help="Whom a pupil in danger can turn to: the page's tutors say it.",
)
def serve_command(
    target: str,
    api_key_env: str | None,
    state: Path | None,
    ready_file: Path | None,
    parent: int | None,
    no_train: bool,
    no_chat: bool,
    **settings: Any,
) -> None:
    """Serve TARGET by the OpenAI protocol: chats, completions, and fine-tuning jobs.

    At the address itself is a chat page for the browser; what is said there is kept in --state.

    TARGET is a run (its base and all its routes), RUN/ROUTE, an adapter's folder, or a model.
    Only this machine is answered unless --host and --api-key-env say otherwise.
    """
    import platformdirs

    from tunelm.errors import ConfigError, PrerequisiteError
    from tunelm.models.address import key_variable, parse_address, read_key
    from tunelm.rundir import write_json
    from tunelm.server.settings import ServerSettings

    key = read_key(key_variable(api_key_env, parse_address("http://127.0.0.1")))
    if api_key_env is not None and key is None:
        raise ConfigError(f"--api-key-env: the environment variable {api_key_env} is not set.")
    try:
        from tunelm.server.listen import listen
    except ImportError as error:
        raise PrerequisiteError(
            f"{error.name} is not installed: serving needs the extras 'serve' and 'local': "
            "pip install 'tunelm[serve,local]'"
        ) from None

    def ready(url: str, app: State) -> None:
        for line in _notes(app):
            click.echo(line, err=True)
        if ready_file is not None:
            import os

            write_json(ready_file, {"url": url, "pid": os.getpid()})
        click.echo(f"ready: {url} ({_models(app.target)})")
        if not no_chat:
            click.echo(f"chat page: {url.removesuffix('v1')}")

    folder = state or platformdirs.user_data_path("tunelm") / "server"
    settings |= {
        "api_keys": () if key is None else (key,),
        "train": not no_train,
        "chat": not no_chat,
    }
    try:
        listen(ServerSettings(target, folder, **settings), ready, parent)
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


def _notes(app: State) -> list[str]:
    """What is told before the server is ready."""
    notes = [f"not served: {route}" for route in app.target.left_out]
    notes += [f"verified: {line}" for line in app.verified]
    if not app.alone:
        notes.append(f"engine: {app.which}")
    return notes


def _models(target: Target) -> str:
    names = [served.id for served in target.catalog.all()]
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" * (len(names) > NAMED))
    winner = f"; winner: {target.winner}" if target.winner else ""
    return f"models: {shown}{winner}"
