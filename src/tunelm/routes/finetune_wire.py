"""Requests of the official SDK to a provider of fine-tuning, one try at a time.

The SDK's own repetitions are off: it would send again what must be sent once. What is the same
however often it is asked (a list, a look at a job) is repeated here, and patiently: a training
takes hours, and a network that is gone for minutes is no reason to leave it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from tunelm.errors import PrerequisiteError, TrainingError
from tunelm.models.address import Address, read_key
from tunelm.models.endpoint import printable, retry_after
from tunelm.models.refusal import NO_QUOTA

MOST_LISTED = 2000
"""Jobs or files looked through for one's own, the newest first."""
PAGE = 100

Call = Callable[[Any], Any]
"""One call of the SDK: from its client to a raw response."""


@dataclass(frozen=True)
class Patience:
    """How long is waited, in seconds.

    Attributes:
        poll: between two looks at a job.
        first: before the first repetition of a request; doubled for each further one.
        most: longest wait before a repetition, whatever Retry-After asks for.
        looks: before each look for a job whose creation got no answer.
        lost: without an answer before the job is left to itself.
        job: for the whole job; None: as long as it takes.
        answer: for one answer.
    """

    poll: float = 10.0
    first: float = 1.0
    most: float = 60.0
    looks: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
    lost: float = 3600.0
    job: float | None = None
    answer: float = 120.0


class TroubleError(Exception):
    """A request without a good answer.

    `passing`: another try may help. `perhaps`: it may have been carried out all the same.
    """

    def __init__(self, text: str, passing: bool, perhaps: bool, wait: float | None = None) -> None:
        super().__init__(text)
        self.passing, self.perhaps, self.wait = passing, perhaps, wait


class Wire:
    """The SDK's client for one provider, and how long it is waited for; a context manager.

    Args:
        address: where it is.
        variable: the environment variable with the key; None: no key is sent.
        patience: how long is waited.
        tell: called with a few words where there is something to wait for.
        revive: called where nobody answers at the address; returns the address to try next.
    """

    def __init__(
        self,
        address: Address,
        variable: str | None = None,
        patience: Patience | None = None,
        tell: Callable[[str], None] = lambda text: None,
        revive: Callable[[], str] | None = None,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise PrerequisiteError(
                "openai is not installed: fine-tuning by the OpenAI protocol needs the extra "
                "'cloud': pip install 'tunelm[cloud]'"
            ) from None
        self.address = address
        self.patience = patience or Patience()
        self.tell = tell
        self.revive = revive
        self._key = read_key(variable)
        if variable is not None and self._key is None and not address.own:
            raise PrerequisiteError(
                f"the key for {address.url} is read from the environment variable {variable}, "
                "which is not set."
            )
        # what the environment says about OpenAI is for OpenAI, and a proxy not for this machine
        elsewhere = address.host != "api.openai.com"
        omitted: Any = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        self._sdk = openai.OpenAI(
            base_url=address.url,
            api_key=self._key or "no key",
            max_retries=0,
            timeout=self.patience.answer,
            default_headers=omitted if elsewhere else None,
            http_client=openai.DefaultHttpxClient(
                trust_env=not address.own,
                verify=address.url.startswith("https:"),  # certificates take long to load
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sdk.close()

    def clean(self, text: object) -> str:
        """A provider's words as one short line without the key."""
        line = " ".join(printable(str(text)).split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return line if len(line) <= 400 else line[:400] + "..."

    def listed(
        self, what: str, resource: Callable[[Any], Any], **wanted: Any
    ) -> list[dict[str, Any]]:
        """The newest entries of a list, page by page."""
        found: list[dict[str, Any]] = []
        after: dict[str, Any] = {}
        while len(found) < MOST_LISTED:
            call: Call = lambda sdk, more=after: resource(sdk).with_raw_response.list(  # noqa: E731
                limit=PAGE, **wanted, **more
            )
            page = self.patiently(call, f"looking through its {what}")
            rows = rows_of(page)
            found += rows
            if not rows or not page.get("has_more") or rows[-1]["id"] == after.get("after"):
                break
            after = {"after": rows[-1]["id"]}
        return found

    def patiently(self, call: Call, what: str, parse: Callable[[Any], Any] | None = None) -> Any:
        """The answer to a request that may be repeated at will."""
        began, repeated = time.monotonic(), 0
        while True:
            try:
                return self.once(call, parse)
            except TroubleError as trouble:
                self.wait(trouble, what, began, repeated)
                repeated += 1

    def wait(self, trouble: TroubleError, what: str, began: float, repeated: int) -> None:
        """Wait before a repetition; TrainingError where there should be none."""
        if not trouble.passing:
            raise TrainingError(f"{what} at {self.address.url}: {trouble}") from None
        if time.monotonic() - began > self.patience.lost:
            raise TrainingError(
                f"{what} at {self.address.url} got no answer for {self.patience.lost:g} s "
                f"({trouble}). A job that was created goes on there; take it up with --resume."
            ) from None
        self.tell(f"{what} ({trouble}; trying again)")
        pause = (
            trouble.wait
            if trouble.wait is not None
            else self.patience.first * 2 ** min(repeated, 10)
        )
        time.sleep(min(pause, self.patience.most))
        if self.revive is not None:
            self._sdk.base_url = self.revive()

    def once(self, call: Call, parse: Callable[[Any], Any] | None = None) -> Any:
        """One try: the parsed answer, a JSON object. Raises TroubleError."""
        import openai

        try:
            response = call(self._sdk)
            return (parse or _object)(response)
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            unsent = cause in ("ConnectError", "ConnectTimeout")
            words = "no connection" if unsent else f"no answer, {cause}"
            raise TroubleError(words, passing=True, perhaps=not unsent) from None
        except ValueError as error:  # what a proxy or a broken server says instead of JSON
            raise TroubleError(
                f"no JSON object in the answer: {self.clean(error)}", passing=True, perhaps=True
            ) from None

    def _refused(self, error: Any) -> TroubleError:
        status, body = error.status_code, as_dict(error.body)
        words = self.clean(f"HTTP {status}: {body.get('message') or error.message}")
        passing = status in (408, 409, 429) or status >= 500
        if body.get("code") == NO_QUOTA:
            passing = False
        if status in (401, 403):
            words += " Is the key right, and may the account fine-tune there?"
        return TroubleError(
            words,
            passing=passing,
            perhaps=passing and status != 429,
            wait=retry_after(error.response.headers.get("retry-after")),
        )


def rows_of(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of one page of a list."""
    listed = page.get("data")
    rows = cast(list[Any], listed) if isinstance(listed, list) else []
    return [row for row in map(as_dict, rows) if isinstance(row.get("id"), str)]


def _object(response: Any) -> dict[str, Any]:
    """The JSON object in a raw response. Raises ValueError for anything else."""
    data = json.loads(response.http_response.content)
    if not isinstance(data, dict):
        raise ValueError(str(data)[:100])
    return cast(dict[str, Any], data)


def named(response: Any) -> dict[str, Any]:
    """The JSON object with an id in a raw response, for `Wire`. Raises ValueError without one."""
    data = _object(response)
    if not isinstance(data.get("id"), str):
        raise ValueError(f"no id in {data}"[:100])
    return data


def content_of(response: Any) -> bytes:
    """The whole of a raw response, for `Wire.patiently`."""
    return response.http_response.content


def as_dict(value: object) -> dict[str, Any]:
    """A JSON object; an empty one in place of anything else."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
