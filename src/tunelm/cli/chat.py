"""`chat`: a conversation in the terminal, and the conversations that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelm.cli.use import paying, spending_options

if TYPE_CHECKING:
    from tunelm.chat.records import Conversation
    from tunelm.chat.session import Chat
    from tunelm.chat.store import ChatStore
    from tunelm.chat.targets import Opened
    from tunelm.models.budget import Wallet
    from tunelm.tutor.dialogues import Problem
    from tunelm.tutor.tutor import TutorSettings

DEFAULT = "tunelm-nano"
EXAMPLES = """\b
Examples:
  tunelm chat edu-dialogue                 a tutor, with problems to choose from
  tunelm chat tunelm-nano --tutor --problem 'What is 3/4 of 20?' --solution 15
  tunelm chat runs/first                   a run's winner
  tunelm chat --list fractions             conversations that hold the word
  tunelm chat runs/first/local --versus runs/first/prompt
"""


def _options(command: Any) -> Any:
    for option in (
        click.option("--no-store", is_flag=True, help="Keep nothing."),
        click.option(
            "--db",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The file of the conversations  [default: chat.sqlite in the user's data folder]",
        ),
        click.option("--yes", is_flag=True, help="Delete without asking."),
        click.option(
            "--training-rows",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write the answers that were liked as chat rows (JSONL).",
        ),
        click.option("--delete", metavar="ID|all", help="Delete a conversation, or all, for good."),
        click.option(
            "--form",
            type=click.Choice(("json", "jsonl", "markdown")),
            help="How --export writes  [default: markdown]",
        ),
        click.option("--export", metavar="ID|all", help="Print a conversation, or all."),
        click.option("--json", "as_json", is_flag=True, help="Print --list as JSON."),
        click.option(
            "--list",
            "query",
            is_flag=False,
            flag_value="",
            metavar="[QUERY]",
            help="List conversations, with a query those that hold its words.",
        ),
        click.option("--continue", "go_on", metavar="ID", help="Take a conversation up again."),
        click.option(
            "--versus", metavar="TARGET2", help="Two models side by side, blind; you pick."
        ),
        click.option("--temperature", type=click.FloatRange(0), help="[default: 0]"),
        click.option(
            "--max-tokens",
            type=click.IntRange(1),
            help="Most tokens of an answer  [default: 256; a tutor's: 96]",
        ),
        click.option("--solution", multiple=True, help="A form of the problem's right answer."),
        click.option("--problem", metavar="TEXT|NUMBER", help="What the tutor talks about."),
        click.option(
            "--contact", default="", metavar="TEXT", help="Whom a pupil in danger can turn to."
        ),
        click.option(
            "--style",
            type=click.Choice(("socratic", "directive", "adaptive")),
            help="How the tutor teaches  [default: adaptive]",
        ),
        click.option(
            "--tutor/--plain",
            "tutor",
            default=None,
            help="A tutor on the model, or the model itself  [default: as TARGET is meant]",
        ),
    ):
        command = option(command)
    return command


@click.command("chat", epilog=EXAMPLES)
@click.argument("target", required=False)
@_options
@spending_options
def chat_command(target: str | None, **options: Any) -> int | None:
    """Talk with TARGET, or with a tutor on it; what is said is kept on this machine.

    TARGET is a run (its winner), RUN/ROUTE, an adapter's folder, a model, or a task of dialogues,
    which opens as a tutor. In a pipe each line is a message.
    """
    chores = {name: options.pop(name) for name in ("query", "export", "delete", "training_rows")}
    chosen = [name for name, value in chores.items() if value is not None]
    if len(chosen) > 1:
        raise click.UsageError("one of --list, --export, --delete and --training-rows at a time.")
    if options["no_store"] and (chosen or options["go_on"]):
        raise click.UsageError("--no-store keeps nothing: there is nothing to look up.")
    if options["form"] and "export" not in chosen:
        raise click.UsageError("--form is for --export.")
    spending = {name: options.pop(name) for name in ("spend", "max_usd")}
    store = _opened_store(options["db"], options["no_store"])
    try:
        if chosen:
            _CHORES[chosen[0]](store, chores[chosen[0]], options)
            return None
        with paying(**spending) as wallet:
            return _talk(store, target, options, wallet)
    finally:
        store.close()


def _opened_store(db: Path | None, none: bool) -> ChatStore:
    import platformdirs

    from tunelm.chat.store import ChatStore
    from tunelm.cli.terminal import harmless

    path = None if none else db or platformdirs.user_data_path("tunelm") / "chat.sqlite"
    store = ChatStore(path)
    for note in store.notes:
        click.echo(harmless(note), err=True)
    return store


# --- the conversations that are kept -----------------------------------------------------------


def _list(store: ChatStore, query: str, options: dict[str, Any]) -> None:
    import dataclasses
    import json
    from datetime import datetime

    from tunelm.cli.tables import print_table
    from tunelm.cli.terminal import harmless

    found = store.conversations(query, limit=1_000_000)
    if options["as_json"]:
        click.echo(json.dumps([dataclasses.asdict(summary) for summary in found]))
        return
    if not found:
        click.echo(f"no conversation holds {query!r}" if query else "no conversations yet")
        return
    rows = [
        (
            f.id[:8],
            datetime.fromtimestamp(f.updated).strftime("%Y-%m-%d %H:%M"),
            str(f.turns),
            harmless(f.model if f.other is None else f"{f.model} | {f.other}"),
            harmless(f.title),
        )
        for f in found
    ]
    print_table(("id", "last", "turns", "with", "title"), rows)


def _export(store: ChatStore, wanted: str, options: dict[str, Any]) -> None:
    import sys

    from tunelm.cli.terminal import harmless

    id = None if wanted == "all" else store.resolve(wanted)
    text = store.export(id, options["form"] or "markdown")
    click.echo(harmless(text) if sys.stdout.isatty() else text, nl=False)


def _delete(store: ChatStore, wanted: str, options: dict[str, Any]) -> None:
    import sys

    from tunelm.cli.terminal import harmless

    id = None if wanted == "all" else store.resolve(wanted)
    what = "all conversations" if id is None else repr(harmless(store.conversation(id).title))
    if not options["yes"]:
        if not sys.stdin.isatty():
            raise click.UsageError(f"--delete asks before it deletes {what}: add --yes.")
        click.confirm(f"Delete {what} for good?", abort=True)
    before = store.notes
    if id is None:
        click.echo(f"deleted: {store.delete_all()} conversations")
    else:
        store.delete(id)
        click.echo(f"deleted: {what}")
    for note in store.notes[len(before) :]:
        click.echo(note, err=True)
    if copies := store.copies:
        kept = ", ".join(str(copy) for copy in copies)
        click.echo(f"older copies beside the file may still hold it: {kept}", err=True)


def _training_rows(store: ChatStore, path: Path, options: dict[str, Any]) -> None:
    import json

    from tunelm.errors import ConfigError
    from tunelm.rundir import write_text

    if path.exists():
        raise ConfigError(f"{path} exists: name another file.")
    rows = list(store.training_rows())
    if not rows:
        raise ConfigError("no answer was liked yet: /up in a conversation says so. Nothing written")
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    pairs = sum("rejected" in row for row in rows)
    click.echo(f"{len(rows)} rows written to {path}, {pairs} with what they were preferred to")
    click.echo(f"look at them before you train: tunelm data check {path}", err=True)


_CHORES = {
    "query": _list,
    "export": _export,
    "delete": _delete,
    "training_rows": _training_rows,
}


# --- a conversation ----------------------------------------------------------------------------

_ASKED = ("instructions", "max_tokens", "temperature")
"""Of a conversation's settings those of the model, which --continue takes over."""


def _talk(
    store: ChatStore, target: str | None, options: dict[str, Any], wallet: Wallet
) -> int | None:
    from tunelm.chat.targets import open_target
    from tunelm.chat.votes import Versus
    from tunelm.cli import interrupted
    from tunelm.cli.talk import Talk, TalkVersus
    from tunelm.cli.terminal import Terminal

    old = store.conversation(store.resolve(options["go_on"])) if options["go_on"] else None
    if old is not None:
        target = target or old.model
        if options["versus"] not in (None, old.other):
            raise click.UsageError("--continue goes on as it was: --versus begins another one.")
        options["versus"] = old.other
    terminal, kept = Terminal(), store.path is not None
    if terminal.person:  # a model takes seconds to load
        terminal.tell(f"opening {target or DEFAULT} ...")
    opened = open_target(target or DEFAULT, wallet)
    for note in opened.notes:
        click.echo(note, err=True)
    chat = _chat(opened, store, options, old)
    if options["versus"]:
        second = open_target(options["versus"], wallet)
        other = _chat(second, store, options, old, like=chat)
        talk = TalkVersus(Versus(chat, other), terminal, opened.problems, kept)
    else:
        talk = Talk(chat, terminal, opened.problems, kept)
    if old is not None:
        chat.go_on(old.id)
    try:
        talk.run()
    except KeyboardInterrupt:
        return interrupted()
    return 1 if talk.failed and not terminal.person else None


def _chat(
    opened: Opened,
    store: ChatStore,
    options: dict[str, Any],
    old: Conversation | None,
    like: Chat | None = None,
) -> Chat:
    from tunelm.chat.session import Chat

    tutor = _tutor(opened, options, old) if like is None else like.tutor
    problem = _problem(opened, options, tutor) if like is None else like.problem
    before = old.settings if old else {}
    given = {k: options[k] for k in ("max_tokens", "temperature") if options[k] is not None}
    chat = Chat(
        opened.model,
        store,
        tutor=tutor,
        problem=problem,
        **{k: v for k, v in before.items() if k in _ASKED} | given,
    )
    chat.label = opened.label
    return chat


def _tutor(
    opened: Opened, options: dict[str, Any], old: Conversation | None
) -> TutorSettings | None:
    import dataclasses

    from tunelm.chat.session import tutor_of
    from tunelm.tutor.safety import Safety
    from tunelm.tutor.tutor import TutorSettings

    if old is not None:
        if options["tutor"] not in (None, old.tutor) or options["problem"]:
            raise click.UsageError("--continue goes on as it was: with its tutor, or without.")
        settings = tutor_of(old)
    else:
        wanted = options["tutor"]
        teaches = options["style"] or options["problem"] or options["solution"]
        if wanted is False and teaches:
            raise click.UsageError("--style, --problem and --solution are a tutor's: no --plain.")
        tutor = bool(opened.tutor or teaches) if wanted is None else wanted
        settings = TutorSettings() if tutor else None
    if settings is None:
        return None
    given = {name: options[name] for name in ("style", "max_tokens") if options[name]}
    return dataclasses.replace(settings, safety=Safety(options["contact"]), **given)


def _problem(
    opened: Opened, options: dict[str, Any], tutor: TutorSettings | None
) -> Problem | str | None:
    import dataclasses

    from tunelm.chat.targets import pick_problem
    from tunelm.tutor.tutor import as_problem

    if tutor is None or not options["problem"]:
        if options["solution"]:
            raise click.UsageError("--solution is of a --problem: give both.")
        return None
    picked = pick_problem(options["problem"], opened.problems)
    if not options["solution"]:
        return picked
    problem = as_problem(picked) if isinstance(picked, str) else picked
    return dataclasses.replace(problem, solutions=tuple(options["solution"]))
