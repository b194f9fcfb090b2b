"""What a server is told when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunelm.errors import ConfigError
from tunelm.models.address import is_loopback

MEBIBYTE = 1 << 20
NAME = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where a server listens, where it keeps its things, and how much it takes on.

    Attributes:
        target: what is served: a base model, a run, RUN/ROUTE or an adapter's folder.
        state: the folder of its files, jobs and trained adapters; one server at a time.
        host: the address to listen on; one that others can reach needs a key.
        port: 0 picks a free one.
        api_keys: keys of which a request must bring one; none are asked for when empty.
        max_length: most tokens of a prompt and its answer; None: what the target was made with,
            else 1024. Never more than the model's own context.
        max_waiting: most answers that wait for their turn; further requests get 503.
        max_batch: most answers that are generated at once.
        max_adapters: most adapters held in memory; the one not used longest is dropped.
        max_body: most bytes of a request without a file.
        max_file: most bytes of an uploaded file.
        train: whether fine-tuning jobs are taken.
        verify: a run whose stored predictions the served model must repeat before it is ready.
        threads: CPU threads for answering; None: one for a small model, else PyTorch's choice.
        name: what clients call the base model; None: its own name.
        chat: whether the chat page is there; it keeps its conversations in `state`.
        contact: whom a pupil in danger can turn to, as a sentence: a tutor of the page says it.
        engine: what answers; see `engines.make_engine`.
    """

    target: str
    state: Path
    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    max_length: int | None = None
    max_waiting: int = 64
    max_batch: int = 32
    max_adapters: int = 16
    max_body: int = 8 * MEBIBYTE
    max_file: int = 512 * MEBIBYTE
    train: bool = True
    verify: Path | None = None
    threads: int | None = None
    name: str | None = None
    chat: bool = False
    contact: str = ""
    engine: Literal["auto", "light", "vllm"] = "auto"

    def check(self) -> None:
        """Raises ConfigError where anybody on the network could use the server."""
        if not is_loopback(self.host) and not self.api_keys:
            raise ConfigError(
                f"--host {self.host}: others can reach that address, so a key is needed. Put one "
                "into an environment variable and name it: --api-key-env TUNELM_API_KEY. Or "
                "listen on 127.0.0.1."
            )
        if self.name is not None and not re.fullmatch(NAME, self.name):
            raise ConfigError(
                f"--name {self.name!r}: letters, digits, '.', '_', '/' and '-' are expected, such "
                "as gpt-4.1-nano."
            )
