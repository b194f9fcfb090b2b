"""A conversation in the terminal: what is typed becomes a message or a command."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tunelm.chat.records import Pair, Turn
from tunelm.chat.session import Chat, Piece, Said
from tunelm.chat.targets import pick_problem
from tunelm.chat.votes import Shown, Versus
from tunelm.cli.terminal import Terminal
from tunelm.errors import ConfigError, TunelmError
from tunelm.tutor.dialogues import Ending, Problem
from tunelm.tutor.strategies import Strategy

LISTED = 9
"""Problems shown at a time."""
COMMANDS = {
    "/help": "this list",
    "/strategy NAME|auto": "the strategy of the tutor's next turns; auto: the rules choose",
    "/up, /down": "thumbs up or down for the last answer; the same again takes it back",
    "/again": "another answer to the last message",
    "/why": "why the tutor chose its strategy, and what was done to its words",
    "/sent": "the exact prompt of the last answer",
    "/new [NUMBER|TEXT]": "another conversation, on this problem",
    "/save FILE": "write the conversation (.md, .json or .jsonl)",
    "/quit": "leave; so does Ctrl-D. Ctrl-C stops an answer, and leaves where none is under way",
}
VOTES = {"a": "a", "b": "b", "=": "=", "s": "skip", "skip": "skip", "": "skip"}


class Talk:
    """A conversation with one model, from the first line to the last.

    Attributes:
        failed: whether any answer failed.
    """

    def __init__(self, chat: Chat, terminal: Terminal, problems: Sequence[Problem], kept: bool):
        self.chat, self.terminal, self.problems, self.kept = chat, terminal, problems, kept
        self.failed = False
        self._page = 0
        self._ended = False
        self._own: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self._help(COMMANDS),
            "/strategy": self._strategy,
            "/up": lambda _: self._rate(1),
            "/down": lambda _: self._rate(-1),
            "/again": lambda _: self._answer(self.chat.regenerate()),
            "/why": lambda _: self._why(),
            "/sent": lambda _: self._sent(),
            "/new": self._new,
            "/save": self._save,
        }

    def run(self) -> None:
        """Until the end of the input, or /quit. Raises KeyboardInterrupt for Ctrl-C between."""
        try:
            self._open()
            while True:
                line = self.terminal.ask("you>")
                if line.strip() == "/quit":
                    break
                self._take(line)
        except EOFError:
            pass
        finally:
            self._close()

    # --- a line --------------------------------------------------------------------------------

    def _take(self, line: str) -> None:
        with self._told():
            if line.startswith("/"):
                name, _, rest = line.strip().partition(" ")
                if name not in self._own:
                    raise ConfigError(
                        f"no command {name!r}: /help lists them. A message that begins with a"
                        " slash needs a space before it."
                    )
                self._own[name](rest.strip())
            elif line.strip() or self.chat.tutor:
                self._answer(self.chat.say(line))

    @contextmanager
    def _told(self) -> Generator[None]:
        """An error ends what was asked for, not the conversation."""
        try:
            yield
        except TunelmError as error:
            self.failed = True
            self.terminal.tell(f"error: {error}")
        except KeyboardInterrupt:
            self.terminal.tell("(stopped)")

    def _answer(self, answer: Generator[Piece | Said]) -> None:
        self._ended = self._ended and self.chat.id is not None
        with closing(answer):
            for item in answer:
                show(self.terminal, item)
                if isinstance(item, Said):
                    self._after(item)

    def _after(self, said: Said) -> None:
        if said.omitted:
            self.terminal.tell(f"({said.omitted} of the prompt)")
        for note in said.notes:
            if note.startswith(("the message had", "cut off", "the model said nothing")):
                self.terminal.tell(f"({note})")
        if not self._ended and said.ending in (Ending.SOLVED, Ending.TOLD):
            self._ended = True
            self.terminal.tell(f"({said.ending})")

    # --- the beginning and the end -------------------------------------------------------------

    def _open(self) -> None:
        if self.terminal.person:
            who = f"tutor ({self.chat.tutor.style}) on " if self.chat.tutor else ""
            kept = f"kept in {self.chat.store.path}" if self.kept else "not kept"
            self.terminal.tell(f"{who}{self._who()}; {kept}; /help lists the commands")
        if self.chat.id is not None:
            for turn in self.chat.turns():
                self._shown_again(turn)
            return
        if self.chat.tutor and self.chat.problem is None and self.problems:
            self._choose()
        elif self.chat.tutor and self.chat.problem is None:
            self.terminal.tell("What is the conversation to be about? Say the problem.")
        self._tell_problem()

    def _who(self) -> str:
        return self.chat.label

    def _shown_again(self, turn: Turn) -> None:
        if turn.role == "user":
            self.terminal.tell(f"you> {turn.text}")
        else:
            cut = "" if turn.complete else " (cut off)"
            strategy = f"({turn.strategy}) " if turn.strategy else ""
            self.terminal.tell(f"{strategy}{turn.text}{cut}")

    def _close(self) -> None:
        if self.kept and self.chat.id is not None:
            self.terminal.tell(f"go on with: tunelm chat --continue {self.chat.id[:8]}")
        else:
            self.terminal.fresh_line()

    # --- problems ------------------------------------------------------------------------------

    def _choose(self) -> None:
        if not self.terminal.person:
            self.chat.problem = self.problems[0]
            return
        while self.chat.problem is None:
            for number, problem in self._next_page():
                self.terminal.tell(f"{number:4d}  {problem.text}  ({problem.subject})", dim=False)
            said = self.terminal.ask("problem (a number, Enter for more, or your own words)>")
            if said.strip():
                with self._told():
                    picked = pick_problem(said, self.problems)
                    self.chat.new(picked)

    def _next_page(self) -> Iterator[tuple[int, Problem]]:
        start = self._page * LISTED % len(self.problems)
        self._page = 0 if start + LISTED >= len(self.problems) else self._page + 1
        shown = self.problems[start : start + LISTED]
        yield from enumerate(shown, start + 1)

    def _tell_problem(self) -> None:
        if self.chat.problem is not None:
            self.terminal.tell(f"problem: {self.chat.problem.text}", dim=False)

    # --- commands ------------------------------------------------------------------------------

    def _help(self, commands: dict[str, str]) -> None:
        for name, what in commands.items():
            self.terminal.tell(f"{name:22}{what}")
        if self.chat.tutor:
            self.terminal.tell("An empty line is a student who says nothing.")
            self.terminal.tell(f"strategies: {', '.join(Strategy)}")

    def _strategy(self, name: str) -> None:
        if not self.chat.tutor:
            raise ConfigError("a plain model has no strategies: --tutor makes a tutor of it")
        self.chat.strategy = None if name == "auto" else strategy_named(name)
        self.terminal.tell(f"strategy: {self.chat.strategy or 'the rules choose'}")

    def _last(self) -> Turn:
        answers = [turn for turn in self.chat.turns() if turn.role == "assistant"]
        if not answers:
            raise ConfigError("there is no answer yet")
        return answers[-1]

    def _rate(self, value: int) -> None:
        turn = self._last()
        again = turn.rating == value
        self.chat.store.rate(turn.id, 0 if again else value)
        thumbs = "thumbs up" if value > 0 else "thumbs down"
        self.terminal.tell(f"{thumbs} taken back" if again else thumbs)

    def _why(self) -> None:
        turn = self._last()
        if turn.strategy:
            self.terminal.tell(f"{turn.strategy}: {turn.why}")
        for note in turn.notes:
            self.terminal.tell(f"- {note}")
        if not turn.strategy and not turn.notes:
            self.terminal.tell("nothing is known of it but its words")

    def _sent(self) -> None:
        sent = self.chat.store.sent(self._last().id)
        if sent is None:
            raise ConfigError("the prompt of this answer was not written down: it was cut off")
        for message in sent:
            self.terminal.tell(f"[{message.role}]")
            self.terminal.tell(message.content)

    def _new(self, wanted: str) -> None:
        problem = self.chat.problem
        self.chat.new(pick_problem(wanted, self.problems) if wanted else problem)
        self._ended = False
        self.terminal.tell("a new conversation")
        self._tell_problem()

    def _save(self, name: str) -> None:
        from tunelm.rundir import write_text

        if not name:
            raise ConfigError("/save needs the name of a file")
        if self.chat.id is None:
            raise ConfigError("nothing was said yet")
        path = Path(name).expanduser()
        if path.exists():
            raise ConfigError(f"{path} exists: name another file")
        form = {".json": "json", ".jsonl": "jsonl"}.get(path.suffix, "markdown")
        try:
            write_text(path, self.chat.store.export(self.chat.id, form))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from None
        self.terminal.tell(f"written to {path}")


class TalkVersus(Talk):
    """A conversation with two models, blind: who is who is told at the end."""

    def __init__(self, versus: Versus, terminal: Terminal, problems: Sequence[Problem], kept: bool):
        super().__init__(versus.model, terminal, problems, kept)
        self.versus = versus
        # the others would name the two, or belong to one answer alone
        self._own = {name: self._own[name] for name in ("/help", "/strategy", "/new")}
        self._own["/help"] = lambda _: self._help(
            {
                "a, b, =, s": "after two answers: A is better, B is, they are alike, skip",
                **{name: what for name, what in COMMANDS.items() if name.split()[0] in self._own},
                "/quit": COMMANDS["/quit"],
            }
        )

    def _take(self, line: str) -> None:
        if line.startswith("/") or not (line.strip() or self.chat.tutor):
            super()._take(line)
            return
        self.versus.other.strategy = self.chat.strategy
        with self._told(), closing(self.versus.say(line)) as answers:
            side = ""
            for item in answers:
                if isinstance(item, Pair):
                    self._vote()
                    continue
                if item.side != side:
                    side = item.side
                    self.terminal.fresh_line()
                    self.terminal.say(f"{side.upper()}: ")
                show(self.terminal, item.item)

    def _who(self) -> str:
        return "two models, blind"

    def _vote(self) -> None:
        while True:
            said = self.terminal.ask("better (a, b, = or s to skip)>").strip().casefold()
            if said in VOTES:
                self.versus.vote(VOTES[said])  # pyright: ignore[reportArgumentType]
                return
            self.terminal.tell(f"{said!r} is no answer: a, b, = (alike) or s (skip)")

    def _close(self) -> None:
        if self.versus.pending:
            self.versus.vote("skip")
        if self.chat.id is not None:
            for line in self._names():
                self.terminal.tell(line)
            for line in self.versus.tally().lines():
                self.terminal.tell(line)
        super()._close()

    def _names(self) -> Iterator[str]:
        pairs = self.chat.store.pairs(self.chat.id)
        for number, pair in enumerate(pairs, 1):
            names = (self.versus.model.label, self.versus.other.label)
            a, b = names if pair.a_is_model else names[::-1]
            yield f"{number}. A was {a}, B was {b}: {pair.choice or 'skip'}"


def show(terminal: Terminal, item: Piece | Said | Shown) -> None:
    """Put a piece of an answer on the screen; before a tutor's first, its strategy."""
    if isinstance(item, Piece):
        if item.strategy and not item.text:
            terminal.say(f"({item.strategy}) ", dim=True)
        terminal.say(item.text)
    else:
        terminal.fresh_line()


def strategy_named(name: str) -> Strategy:
    """The strategy that a name, or the beginning of one of its words, means.

    >>> strategy_named("check").value
    'check of understanding'

    Raises ConfigError where none or several do.
    """
    wanted = name.strip().casefold()
    found = [s for s in Strategy if any(w.startswith(wanted) for w in s.casefold().split())]
    exact = [s for s in Strategy if s.casefold() == wanted]
    if wanted and len(exact or found) == 1:
        return (exact or found)[0]
    raise ConfigError(f"no strategy {name!r}, expected auto or one of {', '.join(Strategy)}")
