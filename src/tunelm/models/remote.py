"""A model behind an endpoint that speaks the OpenAI protocol, as a ChatModel.

OpenAI, Ollama, vLLM, a server of one's own: chats go to POST /chat/completions, running text to
POST /completions. Probabilities of a given text are not part of the protocol, so there is no
`score`, and metrics that need it have no value for such a model.
"""

from __future__ import annotations

import dataclasses
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from tunelm.errors import ConfigError, ModelError
from tunelm.models.address import Address, key_variable, parse_address
from tunelm.models.budget import Hold, Prices, Wallet, check_allowed
from tunelm.models.endpoint import TIMEOUT_S, Endpoint, Reply
from tunelm.models.fleet import Fleet
from tunelm.models.notes import Seen
from tunelm.models.prompted import PromptedModel
from tunelm.models.protocol import (
    Answer,
    Dialect,
    choice_of,
    path_of,
    read_answer,
    read_usage,
    text_of,
)
from tunelm.models.refusal import final, passing, refusal
from tunelm.prices import price_at
from tunelm.route_settings import EndpointSettings
from tunelm.types import (
    ZERO_USAGE,
    Adapted,
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
    Usage,
)

TRIES = 5
"""Most times one request is sent, the first time included."""
BACKOFF_S = 0.5
"""Before the first repetition; doubled for each further one, and varied at random."""
MOST_WAIT_S = 60.0
"""Longest wait before a repetition, whatever Retry-After asks for."""


def open_remote(
    model: str,
    base_url: str | None = None,
    api_key_env: str | None = None,
    prices: Prices | None = None,
    wallet: Wallet | None = None,
    route: str | None = None,
) -> RemoteModel:
    """A model behind an API; nothing is sent yet.

    Args:
        model: its name there.
        base_url: the endpoint, such as http://127.0.0.1:11434/v1, or several that have the model,
            with commas between; OpenAI's when None.
        api_key_env: the environment variable that holds the key. None: OPENAI_API_KEY for
            OpenAI itself, no key for any other endpoint.
        prices: what it charges; unknown when None.
        wallet: what pays for it. None: one in which nothing may be spent, which is enough for
            an endpoint on this machine.
        route: the route's name, for the wallet's ledger.

    Raises:
        ConfigError: an address, a variable or prices that cannot be right.
        BudgetError: it may cost money, and that was not allowed or cannot be capped.
    """
    prices, wallet = prices or Prices(), wallet or Wallet()
    address = parse_address(base_url)
    check_allowed(address.own, f"{model} at {address.url}", prices, wallet.budget)
    endpoint = open_address(address, key_variable(api_key_env, address))
    return RemoteModel(endpoint, model, prices, wallet, route)


def open_address(
    address: Address, variable: str | None = None, timeout_s: float = TIMEOUT_S
) -> Endpoint | Fleet:
    """The endpoint at an address, or the fleet at several; nothing is sent yet."""
    if not address.each:
        return Endpoint(address, variable, timeout_s)
    return Fleet([Endpoint(one, variable, timeout_s) for one in address.each], address)


def place_of(settings: EndpointSettings) -> tuple[Address, str | None, Prices]:
    """The endpoint of the settings, the variable of its key, and its prices, checked.

    Where no price is given, that of the price list stands in, unless it is too old for a cap to
    rest on it. Raises ConfigError as `open_remote` does, or where no model is named.
    """
    if not settings.model:
        raise ConfigError("base_url is set and model is not: name the model at that endpoint.")
    address = parse_address(settings.base_url)
    variable = key_variable(settings.api_key_env, address)
    prices = Prices(settings.usd_per_million_in, settings.usd_per_million_out)
    hosts = {one.host for one in address.each or (address,)}
    if not prices.known and not address.own and len(hosts) == 1:
        prices = _listed(address.host, settings.model) or prices
    return address, variable, prices


def describe_endpoint(settings: EndpointSettings) -> dict[str, Any]:
    """The endpoint as it stands in a route's detail: where, by which key's variable, what price."""
    address, variable, prices = place_of(settings)
    return {
        "model": settings.model,
        "base_url": address.url,
        "own": address.own,
        "api_key_env": variable,
        "prices": dataclasses.asdict(prices),
    }


def open_endpoint(
    settings: EndpointSettings, wallet: Wallet | None = None, route: str | None = None
) -> RemoteModel:
    """The model that settings name; nothing is sent yet. Raises as `open_remote`."""
    address, variable, prices = place_of(settings)
    model = str(settings.model)
    return open_remote(model, address.url, variable, prices, wallet, route)


def _listed(host: str, model: str) -> Prices | None:
    """The price list's prices; None where it has none, or is too old for a cap to rest on it."""
    today = date.today()
    found = price_at(host, model)
    if found is None or found.stale(today):
        return None
    return Prices(found.usd_in, found.usd_out, found.describe(today))


def open_adapted(adapted: Adapted, wallet: Wallet | None) -> PromptedModel:
    """The model at the endpoint in `adapted.detail`, behind its prompt. Raises as `open_remote`."""
    endpoint = adapted.detail["endpoint"]
    model = open_remote(
        endpoint["model"],
        endpoint["base_url"],
        endpoint["api_key_env"],
        Prices(**endpoint["prices"]),
        wallet,
        adapted.detail["route"],
    )
    return PromptedModel(model, adapted.system)


class RemoteModel:
    """See ChatModel. At most `endpoint.most` requests are under way, whoever asks.

    Answers of 408, 429 and 5xx, lost connections and answers that cannot be read are tried
    again, TRIES times in all, waiting longer each time or as long as Retry-After says; a row
    that still fails has its error. What refuses the very first request for good (key, address,
    name of the model) is a ModelError. An endpoint that wants `max_completion_tokens`, or no
    `temperature`, gets what it wants from then on. In a fleet the endpoint that failed rests
    instead of the request, which the others may have at once.

    Latency is that of the try that was answered. `usage` is that of the answer; what tries
    without an answer may have cost is kept in the wallet, and counted in `notes`.
    """

    capabilities = frozenset({"complete", "stream"})

    def __init__(
        self,
        endpoint: Endpoint | Fleet,
        name: str,
        prices: Prices | None = None,
        wallet: Wallet | None = None,
        route: str | None = None,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self.prices = prices or Prices()
        self.wallet = wallet or Wallet()
        self.route = route
        self.backoff_s = backoff_s
        self._dialect = Dialect()
        self._seen = Seen()
        self._slots = threading.Semaphore(endpoint.most)
        self._first = threading.Lock()
        self._reached = False

    def __repr__(self) -> str:
        return f"RemoteModel({self.name!r}, {self.endpoint.address.url!r})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know, as far as it has come up."""
        found = self._seen.notes(self.name, self.endpoint, self._dialect)
        if isinstance(self.endpoint, Fleet):
            found = (*found, f"{self.name}: {self.endpoint.note()}")
        return found

    @property
    def endpoints(self) -> list[dict[str, Any]] | None:
        """What became of the requests by endpoint (`Fleet.counts`); None for a single one."""
        return self.endpoint.counts() if isinstance(self.endpoint, Fleet) else None

    @property
    def rows_at_once(self) -> int:
        """How many rows to ask for before the answers are written.

        What a kill loses may have to be paid again; where nothing is paid, more keep a fleet busy.
        """
        if not isinstance(self.endpoint, Fleet):
            return self.endpoint.most
        paid = self.prices.known and not self.prices.free
        return (8 if paid else 64) * len(self.endpoint.members)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel. Raises ModelError for the whole model, BudgetError at the cap."""
        done: list[Completion | None] = [None] * len(requests)
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(requests)):
            waiting.put(index)
        stopped, failures = threading.Event(), list[BaseException]()

        def work() -> None:
            while not stopped.is_set():
                try:
                    index = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    with self._slots:
                        done[index] = self._complete(requests[index], stopped)
                except BaseException as error:
                    failures.append(error)
                    stopped.set()

        # Daemons: Ctrl-C must not wait for a slow endpoint.
        count = min(self.endpoint.most, len(requests))
        threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():  # in steps, so that Windows notices Ctrl-C
                    thread.join(0.5)
        finally:
            stopped.set()
        if failures:
            raise failures[0]
        return [answer for answer in done if answer is not None]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. Raises ModelError when there is no answer, or it breaks off."""
        reply = Reply(None)
        for attempt in range(TRIES):
            with self.wallet.hold(self.prices.worst(request), **self._what()) as hold:
                while True:
                    body = self._dialect.body(self.name, request, stream=True)
                    with self.endpoint.events(path_of(request), body) as (reply, events):
                        if not reply.error:
                            self._reached = True
                            yield from self._deltas(events, hold)
                            return
                    hold.usd = self._charge(reply, None)
                    if not self._dialect.learn(reply, body):
                        break
            if not passing(reply):
                break
            self._seen.count(reply)
            if attempt < TRIES - 1:
                time.sleep(self._pause(attempt, reply))
        raise ModelError(refusal(self.name, self.endpoint, reply))

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Raises ModelError: the protocol gives no probabilities of a given text."""
        raise ModelError(
            f"{self.name} is behind an API, which gives no probabilities of a given text: "
            "perplexity and the like have no value for it."
        )

    def _complete(self, request: Request, stopped: threading.Event) -> Completion:
        reply, answer, usage = self._reply_to(request, stopped)
        if answer is None:
            return Completion("", FinishReason.ERROR, usage, error=reply.error)
        self._seen.answer(answer)
        if answer.reason == "content_filter":
            error = "content_filter: the provider withheld the answer"
            return Completion("", FinishReason.ERROR, answer.usage, reply.seconds, error)
        finish = FinishReason.LENGTH if answer.reason == "length" else FinishReason.STOP
        return Completion(answer.text, finish, answer.usage, reply.seconds)

    def _reply_to(
        self, request: Request, stopped: threading.Event
    ) -> tuple[Reply, Answer | None, Usage]:
        """The last reply, its answer, and what failed tries used if there is no answer."""
        if self._reached:
            return self._retried(request, stopped)
        with self._first:  # alone: one call finds out whether and how the endpoint answers
            if not self._reached:
                found = self._retried(request, stopped)
                if final(found[0]) and not stopped.is_set():
                    stopped.set()
                    raise ModelError(refusal(self.name, self.endpoint, found[0]))
                self._reached = not stopped.is_set()
                return found
        return self._retried(request, stopped)

    def _retried(
        self, request: Request, stopped: threading.Event
    ) -> tuple[Reply, Answer | None, Usage]:
        reply, usage = Reply(None, error="stopped before it was asked", sent=False), ZERO_USAGE
        for attempt in range(TRIES):
            if stopped.is_set() or (attempt and stopped.wait(self._pause(attempt - 1, reply))):
                break
            reply, answer = self._once(request)
            if answer is not None:
                return reply, answer, answer.usage
            if reply.sent and reply.status in (None, 200):
                usage = Usage()  # it may have been worked on: unknown, not zero
            self._seen.count(reply)
            if not passing(reply):
                break
        else:
            reply = dataclasses.replace(reply, error=f"{reply.error} ({TRIES} tries)")
        return reply, None, usage

    def _once(self, request: Request) -> tuple[Reply, Answer | None]:
        """One try; repeated at once where the endpoint wants it said in another way."""
        while True:
            body = self._dialect.body(self.name, request)
            with self.wallet.hold(self.prices.worst(request), **self._what()) as hold:
                reply = self.endpoint.ask(path_of(request), body)
                answer = None if reply.data is None else read_answer(reply.data)
                if reply.data is not None and answer is None:
                    error = self.endpoint.clean(f"the answer has no text: {reply.data}")
                    reply = dataclasses.replace(reply, data=None, error=error)
                hold.usd = self._charge(reply, answer)
                hold.usage = answer.usage if answer else Usage()
            if not self._dialect.learn(reply, body):
                return reply, answer

    def _deltas(self, events: Iterator[Mapping[str, Any]], hold: Hold) -> Iterator[Delta]:
        finish, usage, served = None, Usage(), None
        for event in events:
            usage = read_usage(event) if event.get("usage") else usage
            served = event.get("model") or served
            choice = choice_of(event)
            if text := text_of(choice.get("delta") or choice):
                yield Delta(text)
            finish = choice.get("finish_reason") or finish
        hold.usd, hold.usage = self.prices.cost(usage), usage
        if finish is None:
            raise ModelError("the stream broke off before its end")
        self._seen.answer(Answer("", None, usage, served))
        if finish == "content_filter":
            raise ModelError("content_filter: the provider withheld the rest of the answer")
        done = FinishReason.LENGTH if finish == "length" else FinishReason.STOP
        yield Delta("", done, usage)

    def _what(self) -> dict[str, Any]:
        return {"route": self.route, "model": self.name, "endpoint": self.endpoint.address.url}

    def _charge(self, reply: Reply, answer: Answer | None) -> float | None:
        """Dollars for one try; None: unknown, so the worst case stands."""
        if answer is not None:
            return self.prices.cost(answer.usage)
        refused = reply.status not in (None, 200)
        return 0.0 if refused or not reply.sent else None

    def _pause(self, attempt: int, reply: Reply) -> float:
        if isinstance(self.endpoint, Fleet):
            return 0.0
        if reply.wait_s is not None:
            return min(reply.wait_s, MOST_WAIT_S)
        return min(self.backoff_s * 2**attempt, MOST_WAIT_S) * random.uniform(0.75, 1.25)
