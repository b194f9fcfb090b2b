"""A person at a terminal, or a pipe: lines in, words out, and nothing that a terminal obeys."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

from tunelm.data.signs import is_hidden


def harmless(text: str) -> str:
    r"""Text with its control characters made visible, for printing.

    A model's words, or stored ones, could else move the cursor, recolour or retitle the terminal,
    or hide text. Line breaks and tabs stay.

    >>> harmless("a\x1b[2Jb\u202e\r\n")
    'a<1B>[2Jb<202E><0D>\n'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"<{ord(c):02X}>" if is_hidden(c) else c for c in text)


class Terminal:
    """Where a conversation is typed and shown.

    In a pipe there are no prompts and no colours; answers go to standard output, all else to
    standard error. `person`: somebody sits there.
    """

    def __init__(self) -> None:
        self.person = sys.stdin.isatty() and sys.stdout.isatty()
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._colours = self.person and not plain
        self._fresh = True
        if self.person:
            with suppress(ImportError):  # editing of the line; Windows has its own
                import_module("readline")
        elif hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]

    def ask(self, prompt: str) -> str:
        """The next line. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C."""
        self.fresh_line()
        if self.person:
            return input(f"{prompt} ")
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")

    def say(self, text: str, dim: bool = False) -> None:
        """Words of the conversation; the next ones follow on the same line."""
        shown = harmless(text)
        if not shown:
            return
        sys.stdout.write(f"\x1b[2m{shown}\x1b[0m" if dim and self._colours else shown)
        sys.stdout.flush()
        self._fresh = shown.endswith("\n")

    def tell(self, text: str, dim: bool = True) -> None:
        """A line about the conversation."""
        self.fresh_line()
        if self.person:
            self.say(text, dim)
            self.fresh_line()
        else:
            sys.stderr.write(f"{harmless(text)}\n")
            sys.stderr.flush()

    def fresh_line(self) -> None:
        """End the line, if there is anything on it."""
        if not self._fresh:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._fresh = True
