"""What both OpenAI examples do at a provider: connect, have one job done, ask. Not run by itself.

Everything here is the official SDK's, and works at any provider of its fine-tuning protocol.
"""

import contextlib
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import openai

from tunelm.config import ModelConfig
from tunelm.models.address import is_loopback
from tunelm.routes.finetune_server import LocalServer

PASSING = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError)
"""Errors that may be over in a while; any other is the caller's to mend."""


def add_options(parser, epochs):
    parser.add_argument("--model", default="tunelm-nano")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--base-url", help="another endpoint; its key stands in OPENAI_API_KEY")
    parser.add_argument("--spend", action="store_true", help="allow an endpoint that may charge")


@contextlib.contextmanager
def connect(arguments):
    """A client of `tunelm serve`, started for it, or of --base-url; errors of the API end it."""
    host = urlsplit(arguments.base_url or "http://localhost").hostname or ""
    if not is_loopback(host) and not arguments.spend:
        raise SystemExit(f"{host} may charge for training and for answers: allow it with --spend")
    with contextlib.ExitStack() as stack:
        url, key = arguments.base_url, None
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            served = LocalServer(ModelConfig(base=arguments.model), folder)
            url, key = stack.enter_context(served).url, "none is needed"
        try:
            # by itself the SDK sends a creation again, and has the job made, and paid for, twice
            yield openai.OpenAI(base_url=url, api_key=key, max_retries=0)
        except openai.OpenAIError as error:
            raise SystemExit(f"{type(error).__name__} at {url}: {error}".splitlines()[0]) from None


def upload(client, path):
    with path.open("rb") as file:
        return client.files.create(file=file, purpose="fine-tune").id


def create_once(client, **order):
    """The job of this order; where no answer came, it is looked for before it is asked for again."""
    mark = {"made_from": f"{order['training_file']} {order['method']}"[:500]}
    for pause in (1, 5, 30):
        for job in client.fine_tuning.jobs.list(limit=20):
            if job.metadata == mark and job.status not in ("failed", "cancelled"):
                return job
        with contextlib.suppress(*PASSING):
            return client.fine_tuning.jobs.create(metadata=mark, **order)
        time.sleep(pause)
    raise SystemExit("the provider gives no answer: look at its jobs before you run this again")


def follow(client, job):
    """The job when it has succeeded; a network that is gone for a while is waited for."""
    seen = set()
    while job.status not in ("succeeded", "failed", "cancelled"):  # also what we do not know
        time.sleep(1)
        try:
            job = client.fine_tuning.jobs.retrieve(job.id)
            events = client.fine_tuning.jobs.list_events(job.id, limit=100).data  # newest first
        except PASSING as error:
            print(f"  {type(error).__name__}: trying again")
            continue
        for event in reversed([e for e in events if e.id not in seen]):
            if event.type == "message" or event.data.get("step", 0) % 10 == 0:
                print(f"  {job.status}: {event.message}")
            seen.add(event.id)
    if job.status != "succeeded":
        raise SystemExit(f"job {job.id} {job.status}: {job.error and job.error.message}")
    return job


def ask(client, model, chats):
    """A model's greedy answers to the chats without their last messages, on one line each."""
    answers = []
    for chat in chats:
        made = client.chat.completions.create(
            model=model, messages=chat[:-1], max_tokens=64, temperature=0
        )
        answers.append(" ".join((made.choices[0].message.content or "").split()))
    return answers
