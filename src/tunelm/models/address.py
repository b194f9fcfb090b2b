"""Where an endpoint is, and which environment variable holds its key: checked before any use."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from tunelm.errors import ConfigError
from tunelm.models import ENDPOINTS

OPENAI_KEY = "OPENAI_API_KEY"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Address:
    """Where an endpoint is, or several that have the same model.

    `own`: on this very machine, by name or number, all of them. Of several, `each` has the single
    ones, `url` all with commas between, and `host` is that of the first elsewhere.
    """

    url: str
    host: str
    own: bool
    each: tuple[Address, ...] = ()

    @property
    def open_wire(self) -> bool:
        """Whether what is sent there, the key too, can be read on the way."""
        if self.each:
            return any(one.open_wire for one in self.each)
        return not self.own and self.url.startswith("http:")


def parse_address(text: str | None) -> Address:
    """The address behind a `base_url`, or the addresses with commas between; OpenAI's when None.

    Raises ConfigError for what is no http(s) address, for one that holds a user name, a password
    or a query (it would stand in files; the message does not repeat such a one), and for one that
    stands there twice.

    >>> parse_address("http://127.0.0.1:11434/v1/").own, parse_address(None).own
    (True, False)
    >>> [one.url for one in parse_address("http://a:8000/v1, http://b:8000/v1").each]
    ['http://a:8000/v1', 'http://b:8000/v1']
    """
    given = ENDPOINTS["openai"] if text is None else text
    each = tuple(_single(part.strip()) for part in given.split(","))
    if len(each) == 1:
        return each[0]
    urls = [one.url for one in each]
    if twice := [url for url in urls if urls.count(url) > 1]:
        raise ConfigError(f"base_url names {twice[0]} twice: name each endpoint once.")
    elsewhere = [one for one in each if not one.own]
    return Address(", ".join(urls), (elsewhere or each)[0].host, not elsewhere, each)


def _single(given: str) -> Address:
    try:
        parts = urlsplit(given)
        host, _ = (parts.hostname or "").lower(), parts.port
        httpx.URL(given)
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError(f"base_url is no address: {error}. {_ADDRESS_FORM}") from None
    if "@" in given or parts.query or parts.fragment:
        raise ConfigError(
            "base_url holds a user name, a password or a query, which would be stored with the "
            f"run. Put the key into an environment variable, its name into api_key_env. "
            f"{_ADDRESS_FORM}"
        )
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", given):
        raise ConfigError(f"base_url = {given!r} is no address. {_ADDRESS_FORM}")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ConfigError(f"base_url = {given!r} goes too far: end it before '/chat' or the like.")
    return Address(given.rstrip("/"), host, is_loopback(host))


_ADDRESS_FORM = (
    "Valid: http://127.0.0.1:11434/v1, https://api.openai.com/v1, and the like; several that have "
    "the same model with commas between."
)


def is_loopback(host: str) -> bool:
    """Whether a host, by name or number, is this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def key_variable(variable: str | None, address: Address) -> str | None:
    """The environment variable that holds the key: the one named, else OpenAI's own there.

    None for any other endpoint: a key goes nowhere that its owner did not name. Raises
    ConfigError where the key itself seems to stand in the variable's place.
    """
    if variable is None:
        hosts = {one.host for one in address.each or (address,)}
        return OPENAI_KEY if hosts == {"api.openai.com"} else None
    if not _VARIABLE.fullmatch(variable):
        raise ConfigError(
            "api_key_env is the name of an environment variable in capitals, such as "
            f"{OPENAI_KEY}, and never the key itself. (What was given is not repeated here.)"
        )
    return variable


def read_key(variable: str | None) -> str | None:
    """The key in an environment variable, without white space around it; None without one.

    Raises ConfigError for one that no HTTP header can hold, without showing it.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if key and not _PRINTABLE.fullmatch(key):
        raise ConfigError(
            f"the environment variable {variable} holds characters that no key has (white space "
            "or signs outside ASCII). Set it again."
        )
    return key or None
