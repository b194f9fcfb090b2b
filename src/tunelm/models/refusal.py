"""What a refusal means: try again, give up this row, or give up the model, and how to mend it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from tunelm.errors import ModelError
from tunelm.models.endpoint import Endpoint, Reply, printable
from tunelm.models.protocol import model_entries, model_names

if TYPE_CHECKING:
    from tunelm.models.fleet import Fleet

NO_QUOTA = "insufficient_quota"
"""A 429 that waiting does not mend."""


def passing(reply: Reply) -> bool:
    """Whether trying again may help."""
    status = reply.status
    if reply.code == NO_QUOTA:
        return False
    return status is None or status in (200, 408, 429) or status >= 500


def final(reply: Reply) -> bool:
    """Whether the first reply says that no request of this model will ever be answered."""
    status = reply.status
    if status is None:
        return not reply.sent
    return status in (401, 403, 404, 405) or 300 <= status < 400 or reply.code == NO_QUOTA


def refusal(model: str, endpoint: Endpoint | Fleet, reply: Reply) -> str:
    """One line: what was got instead of an answer, and how to mend it.

    For an address or a name that is not there, GET /models is asked what is.
    """
    head = f"{model} at {endpoint.address.url}: {reply.error}."
    if reply.status is None:
        return f"{head} Start the server there, or correct base_url."
    if reply.code == NO_QUOTA:
        return f"{head} Waiting does not mend this: the account has nothing left to spend."
    if reply.status in (401, 403):
        return f"{head} {_key_advice(endpoint)}"
    if reply.status == 404 or 300 <= reply.status < 400:
        there = _models_there(model, endpoint)
        return f"{head} Check base_url (most end in /v1) and the model's name.{there}"
    return head


def describe(model: str, endpoint: Endpoint | Fleet) -> dict[str, Any]:
    """What the endpoint says about a model, from GET /models: {listed, entry}; None: nothing.

    Raises ModelError where nothing answers there, or the key is refused (401).
    """
    reply = endpoint.models()
    if reply.status == 401 or (reply.status is None and not reply.sent):
        raise ModelError(refusal(model, endpoint, reply))
    entries = model_entries(reply)
    found = [entry for entry in entries if entry["id"] == model]
    scalars = (str, int, float, bool)
    entry = {k: v for k, v in found[0].items() if isinstance(v, scalars)} if found else None
    if entry is not None:
        entry = {k: printable(v) if isinstance(v, str) else v for k, v in entry.items()}
    return {"listed": len(entries) if reply.data is not None else None, "entry": entry}


def _key_advice(endpoint: Endpoint | Fleet) -> str:
    if endpoint.variable is None:
        return "It wants a key: put it into an environment variable, and its name into api_key_env."
    state = "is set, but this key is not accepted" if endpoint.has_key else "is not set"
    return f"The key is read from the environment variable {endpoint.variable}, which {state}."


def _models_there(model: str, endpoint: Endpoint | Fleet) -> str:
    names = model_names(endpoint.models())
    if not names:
        return ""
    near = difflib.get_close_matches(model, names, n=8, cutoff=0.4) or names[:8]
    more = f" and {len(names) - len(near)} more" if len(names) > len(near) else ""
    return " " + endpoint.clean(f"It has {', '.join(near)}{more}.")
