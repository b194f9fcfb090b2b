"""The command line: parse, one call of the Python API, one line for an error.

Commands are found in a table and imported when they are used, so that `--help` is quick.
"""

from __future__ import annotations

import sys
import warnings

import click

from tunelm.cli.lazy import LazyGroup

COMMANDS = {
    "compare": "tunelm.cli.run",
    "adapt": "tunelm.cli.run",
    "eval": "tunelm.cli.use",
    "generate": "tunelm.cli.use",
    "serve": "tunelm.cli.serve",
    "chat": "tunelm.cli.chat",
    "data": "tunelm.cli.data",
    "report": "tunelm.cli.show",
    "review": "tunelm.cli.review",
    "routes": "tunelm.cli.show",
    "models": "tunelm.cli.models",
    "prices": "tunelm.cli.prices",
    "plan": "tunelm.cli.plan",
    "cost": "tunelm.cli.cost",
    "judge": "tunelm.cli.judge",
    "submit": "tunelm.cli.submit",
    "jobs": "tunelm.cli.jobs",
    "logs": "tunelm.cli.jobs",
    "cancel": "tunelm.cli.jobs",
    "doctor": "tunelm.cli.doctor",
}


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: tunelm compare",
)
@click.version_option(package_name="tunelm")
def cli() -> None:
    """Adapt a language model to your task every way there is, and learn which way to ship."""


def main() -> None:
    """The entry point: exit code 0 done, 1 failed, 2 wrong use, 74 no room, 130 interrupted."""
    from tunelm import room
    from tunelm.errors import TunelmError

    # libraries' notes to programmers are not for people at a terminal
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for stream in (sys.stdout, sys.stderr):  # a console with another encoding must not crash us
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(interrupted())
    except KeyboardInterrupt:
        sys.exit(interrupted())
    except TunelmError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader has gone: `tunelm routes | head -1`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if room.is_full(error):
            from tunelm.cli.no_room import in_one_line

            click.echo(f"error: {in_one_line(error)}", err=True)
            sys.exit(room.EXIT_CODE)
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(1)


def interrupted() -> int:
    """Say so; the exit code. Commands that can be resumed have said how."""
    click.echo("interrupted", err=True)
    return 130
