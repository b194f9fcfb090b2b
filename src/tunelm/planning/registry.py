"""A dated registry of open models (`tables/models.toml`), and what of a model's shape one needs."""

from __future__ import annotations

import difflib
import functools
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.errors import ConfigError, ModelError
from tunelm.models.loading import BUNDLED
from tunelm.price_list import TABLES

PERMISSIVE = "permissive"
MANY = "many"
"""Stands in `languages` for a hundred and more."""
SHAPE = ("layers", "width", "inner", "heads", "kv_heads", "head", "vocabulary", "tied")
_FOLDER = "its config.json"


@dataclass(frozen=True, slots=True)
class OpenModel:
    """One model whose weights can be had.

    Attributes:
        name: hub id, `tunelm-nano`, or a folder.
        family: as people name it.
        parameters: stored ones, exact.
        layers: how many.
        width: of the hidden state.
        inner: width of the MLP.
        heads: of attention.
        kv_heads: of keys and values.
        head: size of one head.
        vocabulary: tokens of the output layer.
        tied: whether input and output embeddings are one matrix.
        layout: how the linear layers lie: llama, phi or gpt.
        licence: its name; "unknown" of a folder.
        licence_class: permissive, conditions or unknown.
        context: most tokens it was made for.
        chat_template: whether it has one, and so follows instructions.
        languages: ISO codes as the publisher names them; (MANY,) for a hundred and more; empty:
            unknown.
        released: the day; None: unknown.
        strengths: what it is known for.
        source: where this is from.
        as_of: the day of that.
        verified: which of licence, context, chat_template, languages, released and shape were read
            at the publisher; all others are general knowledge.
    """

    name: str
    family: str
    parameters: int
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool
    layout: str
    licence: str
    licence_class: str
    context: int
    chat_template: bool
    languages: tuple[str, ...]
    released: date | None
    strengths: str
    source: str
    as_of: date | None
    verified: tuple[str, ...]

    def doubtful(self) -> tuple[str, ...]:
        """The fields that a user should read in the model's own card before relying on them."""
        every = ("licence", "context", "languages", "released")
        return tuple(name for name in every if name not in self.verified)

    def speaks(self, language: str) -> bool:
        """Whether a language is among those its publisher names."""
        return MANY in self.languages or language in self.languages

    def linear_layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each linear layer of one block, output layer left out."""
        query, value = self.heads * self.head, self.kv_heads * self.head
        down = (self.inner, self.width)
        if self.layout == "llama":
            attention = [query, value, value]
            mlp = [self.inner, self.inner]
        else:
            attention = [query + 2 * value]
            mlp = [2 * self.inner] if self.layout == "phi" else [self.inner]
        into = [(self.width, size) for size in (*attention, *mlp)]
        return [*into, (query, self.width), down]


@functools.cache
def registry() -> tuple[OpenModel, ...]:
    """All models of the table, in its order."""
    data = tomllib.loads((TABLES / "models.toml").read_text(encoding="utf-8"))
    found: list[OpenModel] = []
    for family in data["family"]:
        shared = {k: v for k, v in family.items() if k not in ("models", "name")}
        shared |= {key: tuple(shared[key]) for key in ("languages", "verified")}
        for name, parameters, *shape in family["models"]:
            own = dict(zip(SHAPE, shape, strict=True))
            found.append(OpenModel(name, family["name"], parameters, **own, **shared))
    return tuple(found)


def find_model(name: str) -> OpenModel:
    """A model of the registry, or of a folder; upper and lower case do not matter.

    >>> find_model("qwen/qwen3-4b").parameters
    4022468096

    Raises ConfigError with the closest names, and what a model outside the registry must bring.
    """
    for model in registry():
        if name.lower() in (model.name.lower(), model.name.rpartition("/")[2].lower()):
            return model
    folder = BUNDLED.get(name, Path(name))
    if (folder / "config.json").is_file():
        return of_folder(folder)
    known = {model.name.rpartition("/")[2].lower(): model.name for model in registry()}
    near = difflib.get_close_matches(name.rpartition("/")[2].lower(), known, n=3, cutoff=0.4)
    hint = f" Closest: {', '.join(known[n] for n in near)}." if near else ""
    raise ConfigError(
        f"model {name!r} is not in the registry, so its size, context and licence are not "
        f"known.{hint} All: tunelm models --registry. Of any other model, give the folder that "
        "holds its config.json and *.safetensors."
    )


def of_folder(folder: Path) -> OpenModel:
    """What a model's own files say of it; licence and languages they do not say.

    Raises ModelError for a config without the shape of a causal language model.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        return _of_config(folder, config)
    except KeyError as error:
        raise ModelError(
            f"{folder}/config.json: has no {error}, so it is no causal language model whose memory "
            "can be reckoned."
        ) from None


def _of_config(folder: Path, config: dict[str, Any]) -> OpenModel:
    def first(*names: str) -> Any:
        return next((config[n] for n in names if config.get(n) is not None), None)

    kind = str(config["model_type"])
    width, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    if width is None or heads is None:
        raise KeyError("hidden_size")
    template = any((folder / name).is_file() for name in ("chat_template.jinja",))
    if (path := folder / "tokenizer_config.json").is_file():
        template = template or "chat_template" in json.loads(path.read_text(encoding="utf-8"))
    return OpenModel(
        name=str(folder),
        family=kind,
        parameters=stored_parameters(folder),
        layers=int(first("num_hidden_layers", "n_layer")),
        width=int(width),
        inner=int(first("intermediate_size", "n_inner") or 4 * width),
        heads=int(heads),
        kv_heads=int(first("num_key_value_heads") or heads),
        head=int(first("head_dim") or width // heads),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", kind == "gpt2")),
        layout={"phi3": "phi", "gpt2": "gpt", "gpt_neox": "gpt"}.get(kind, "llama"),
        licence="unknown",
        licence_class="unknown",
        context=int(first("max_position_embeddings", "n_positions") or 0),
        chat_template=template,
        languages=(),
        released=None,
        strengths="unknown",
        source=_FOLDER,
        as_of=None,
        verified=("context", "shape"),
    )


def stored_parameters(folder: Path) -> int:
    """The parameters in a folder's safetensors, from their headers; no weights are read.

    Raises ModelError where there are none.
    """
    total = 0
    for path in sorted(folder.glob("model*.safetensors")):
        with path.open("rb") as file:  # the header: its length, then JSON
            tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(t["shape"]) for k, t in tensors.items() if k != "__metadata__")
    if not total:
        raise ModelError(f"{folder}: has no model*.safetensors, so its size is not known.")
    return total


def size_of(parameters: float) -> str:
    """A count of parameters as people say it.

    >>> size_of(8_030_261_248), size_of(999_885_952), size_of(494_032_768), size_of(3_443_136)
    ('8.0B', '1.0B', '494M', '3.4M')
    """
    if parameters >= 999.5e6:
        return f"{parameters / 1e9:.1f}B"
    millions = parameters / 1e6
    return f"{millions:.0f}M" if millions >= 100 else f"{millions:.1f}M"


def registry_rows(models: Sequence[OpenModel]) -> list[dict[str, str]]:
    """Rows of a table; "?" marks what was not read at the publisher."""

    def mark(model: OpenModel, field: str, text: str) -> str:
        return text if field in model.verified else f"{text}?"

    return [
        {
            "model": model.name,
            "parameters": f"{model.parameters:,}",
            "context": mark(model, "context", f"{model.context:,}"),
            "licence": mark(model, "licence", model.licence),
            "template": "yes" if model.chat_template else "no",
            "languages": mark(model, "languages", ", ".join(model.languages) or "unknown"),
            "released": mark(model, "released", str(model.released or "unknown")),
        }
        for model in models
    ]
