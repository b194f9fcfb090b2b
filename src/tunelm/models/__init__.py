"""Models: one protocol, and the engines behind it, loaded when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunelm.config import ModelConfig
    from tunelm.models.base import ChatModel
    from tunelm.models.budget import Wallet
    from tunelm.route_settings import EndpointSettings

ENDPOINTS = {
    "openai": "https://api.openai.com/v1",
    "ollama": "http://127.0.0.1:11434/v1",
}
"""What stands before the slash in `openai/NAME` -> the endpoint that has the model NAME."""


def open_model(
    config: ModelConfig, adapter: Path | None = None, wallet: Wallet | None = None
) -> ChatModel:
    """The model a config names, with an adapter on it if one is given; `wallet` as in `load`.

    A name such as `ollama/llama3.2` is that of a model behind an API, unless a folder of that
    name is here; one that may cost money is refused (see tunelm.models.remote.open_remote).

    Raises ModelError when it cannot be loaded, PrerequisiteError when an extra is missing.
    """
    if endpoint := remote_base(config):
        from tunelm.errors import ModelError
        from tunelm.models.remote import open_endpoint

        if adapter is not None:
            raise ModelError(f"{adapter}: {config.base} is behind an API and takes no adapter.")
        return open_endpoint(endpoint, wallet)
    from tunelm.models.loading import require_torch

    require_torch()
    from tunelm.models.local import open_local

    return open_local(config, adapter)


def remote_base(config: ModelConfig) -> EndpointSettings | None:
    """Where a base model behind an API is; None for one whose weights are here."""
    from tunelm.route_settings import EndpointSettings

    model, url = config.base, config.base_url
    if url is None:
        if (found := remote_name(config.base)) is None:
            return None
        model, url = found
    return EndpointSettings(
        model=model,
        base_url=url,
        api_key_env=config.api_key_env,
        usd_per_million_in=config.usd_per_million_in,
        usd_per_million_out=config.usd_per_million_out,
    )


def remote_name(name: str) -> tuple[str, str] | None:
    """(model, base_url) of `openai/NAME` or `ollama/NAME`; None for every other name.

    >>> remote_name("ollama/llama3.2:1b")
    ('llama3.2:1b', 'http://127.0.0.1:11434/v1')
    >>> remote_name("tunelm-nano") is None
    True
    """
    provider, slash, model = name.partition("/")
    if not slash or not model or provider not in ENDPOINTS or Path(name).exists():
        return None
    return model, ENDPOINTS[provider]
