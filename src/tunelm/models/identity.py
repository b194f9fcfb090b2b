"""Which base model this is, by content: an adapter must not be put on another.

PEFT loads an adapter onto any model whose layers have fitting shapes, and only warns about
keys it misses; the answers are then quietly wrong. So an adapter carries the hashes made here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelm.errors import ModelError, PrerequisiteError
from tunelm.types import content_hash

# What Transformers loads first comes first: a folder may hold the same model twice, and
# another machine may have downloaded only one of the two.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.safetensors")
_TOKENIZER = (
    ("tokenizer.json",),
    ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt"),
)
_PARTS = {
    "weights": "its weights",
    "tokenizer": "its tokenizer",
    "chat_template": "its chat template",
}
CARD = "tunelm.json"
"""The file in an adapter's folder that says which base, prompt and settings it belongs to."""
_hashes: dict[tuple[str, int, int], str] = {}


def base_identity(base: Path | str, revision: str | None = None) -> dict[str, str | None]:
    """Hashes of a base model's weights, tokenizer and chat template.

    Args:
        base: the model's folder, or a hub id whose files are in the local hub cache.
        revision: of the hub id.

    Returns:
        `weights`, `tokenizer` and `chat_template`, hex digits; the template is None where the
        model has none. File hashes are kept for the process's life, by path, time and size.

    Raises:
        PrerequisiteError: a hub id that is not in the cache.
        ModelError: the folder holds no weights or no tokenizer.
    """
    weights = {path.name: _sha256(path) for path in _weight_files(base_folder(base, revision))}
    of_weights = next(iter(weights.values())) if len(weights) == 1 else content_hash(weights)
    return {"weights": of_weights, **tokenizer_identity(base, revision)}


def tokenizer_identity(base: Path | str, revision: str | None = None) -> dict[str, str | None]:
    """`base_identity` without the weights."""
    folder = base_folder(base, revision)
    config = _tokenizer_config(folder)
    template = config.pop("chat_template", None)
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        template = jinja.read_text(encoding="utf-8")
    tokenizer = {path.name: _sha256(path) for path in _tokenizer_files(folder)}
    return {
        "tokenizer": content_hash({"files": tokenizer, "config": config}),
        "chat_template": None if template is None else content_hash(template),
    }


def base_folder(base: Path | str, revision: str | None = None) -> Path:
    """The folder of a base model; a hub id is looked up in the local cache, without network.

    Raises:
        PrerequisiteError: neither a folder nor in the cache.
    """
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(base), revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise PrerequisiteError(
            f"{base}: neither a folder nor a model in the local hub cache. "
            "Give the folder of a model, or load the hub id once with the network on."
        ) from None


def check_adapter(adapter: Path, base: Mapping[str, Any]) -> None:
    """`check_identity` with the identity that stands in an adapter's folder.

    Raises:
        ModelError: the adapter carries no identity, or that of another base.
    """
    try:
        card = json.loads((adapter / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{adapter}: no {CARD} there, so nobody can tell which base model it belongs to. "
            "Give the folder of an adapter that tunelm trained."
        ) from None
    check_identity(card["identity"], base)


def check_identity(saved: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Refuse a base that is not the one an adapter was trained on.

    Args:
        saved: the identity stored with the adapter.
        base: that of the model at hand, from `base_identity`.

    Raises:
        ModelError: says which of weights, tokenizer and chat template differ.
    """
    different = [key for key in _PARTS if saved.get(key) != base.get(key)]
    if different:
        lines = [f"{_PARTS[k]} ({saved.get(k)} then, {base.get(k)} now)" for k in different]
        raise ModelError(
            "this base model is not the one the adapter was trained on: "
            f"{' and '.join(lines)} differ. Use the same base, or train again on this one."
        )


def _weight_files(folder: Path) -> list[Path]:
    for pattern in _WEIGHTS:
        files = sorted(p for p in folder.glob(pattern) if not p.name.startswith("adapter"))
        if files:
            return files
    raise ModelError(f"{folder}: no weights there (looked for {' or '.join(_WEIGHTS)}).")


def _tokenizer_files(folder: Path) -> list[Path]:
    for names in _TOKENIZER:
        files = [folder / name for name in names if (folder / name).is_file()]
        if files:
            return files
    looked = ", ".join(name for names in _TOKENIZER for name in names)
    raise ModelError(f"{folder}: no tokenizer there (looked for {looked}).")


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _sha256(path: Path) -> str:
    stat = path.stat()
    key = (str(path.resolve()), stat.st_mtime_ns, stat.st_size)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]
