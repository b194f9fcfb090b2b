"""Which family of models a name belongs to: a judge prefers its relatives.

GPT-4 as a judge chose its own answers 87% of the time where people did not (FastChat, issue 3911).
So a judge has to come from another family than what it judges. Names are all there is to go by
behind an API; a folder also says which architecture it is and what it was made from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelm.errors import ConfigError
from tunelm.models.identity import CARD
from tunelm.prices import base_of

_FAMILIES: Mapping[str, str] = {
    "openai": r"gpt(?!-?(?:neo|j))|chatgpt|o[1-9](?:[-_.]|$)|davinci|babbage|codex",
    "anthropic": r"claude",
    "llama": r"(?:code|tiny)?-?llama|vicuna|alpaca",
    "qwen": r"qwen|qwq|qvq",
    "mistral": r"mi[sx]tral|ministral|magistral|codestral|devstral|zephyr",
    "google": r"gemma|gemini|palm(?![a-z])|learnlm|t5|flan",
    "deepseek": r"deepseek",
    "microsoft": r"phi-?\d",
    "cohere": r"command-|aya-|c4ai",
    "xai": r"grok",
    "zhipu": r"glm|chatglm",
    "moonshot": r"kimi|moonshot",
    "yi": r"yi-",
    "smollm": r"smollm",
    "allenai": r"olmo|tulu",
    "falcon": r"falcon",
    "granite": r"granite",
    "nemotron": r"nemotron",
    "bloom": r"bloom",
    "eleuther": r"gpt-?(?:neo|j)|pythia",
    "tunelm-nano": r"tunelm-nano",
}
"""Family -> how the names of its models begin, where no letter stands before them."""


def families_of(name: str | Path) -> frozenset[str]:
    """The families of a model, by its name or its folder; empty where they are unknown.

    More than one where a model was distilled from another family.

    >>> sorted(families_of("openai/gpt-4o-mini")), sorted(families_of("o3-mini"))
    (['openai'], ['openai'])
    >>> sorted(families_of("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"))
    ['deepseek', 'qwen']
    >>> sorted(families_of("my-tutor"))
    []
    """
    folder = Path(name)
    if folder.is_dir():
        return _of_folder(folder)
    return _of_name(str(name))


def check_family(judge: str | Path, judged: str | Path, allow: bool = False) -> str | None:
    """Refuse a judge of the same family as what it judges.

    Returns:
        What to print beside every number: that both are of one family (with `allow`), or that it
        is unknown whether they are; None where they are known to be of different ones.

    Raises:
        ConfigError: same family, without `allow`; both names.
    """
    of_judge, of_judged = families_of(judge), families_of(judged)
    unknown = [str(n) for n, f in ((judge, of_judge), (judged, of_judged)) if not f]
    if not unknown and not of_judge & of_judged:
        return None
    if same := of_judge & of_judged or ({str(judge)} if str(judge) == str(judged) else set()):
        said = f"the judge {judge} and the judged {judged} are of one family ({', '.join(same)})"
        if allow:
            return f"{said}: judges prefer their own"
        raise ConfigError(
            f"{said}, and judges prefer their own. Take a judge of another family, or go on all the"
            " same with --same-family, which is then printed beside every number."
        )
    return (
        f"the family of {' and of '.join(unknown)} is unknown: whether {judge} judges its own kind"
        " could not be checked"
    )


def _of_name(name: str) -> frozenset[str]:
    text = base_of(name).lower()
    found = {f for f, form in _FAMILIES.items() if re.search(rf"(?<![a-z])(?:{form})", text)}
    return frozenset(found)


def _of_folder(folder: Path) -> frozenset[str]:
    """By the base that its card names, by what it says it was made from, by its architecture."""
    card, config = _read(folder / CARD), _read(folder / "config.json")
    base = card.get("base", {}).get("base") or _read(folder / "adapter_config.json").get(
        "base_model_name_or_path"
    )
    if base and str(base) != str(folder):
        return families_of(str(base))
    made_from = str(config.get("_name_or_path") or "")
    named = _of_name(made_from) | _of_name(folder.resolve().name)
    return named or _of_name(str(config.get("model_type") or ""))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
