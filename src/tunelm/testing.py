"""What tests of tunelm, and of programs built on it, need: real parts, only small."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tunelm.errors import ModelError
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    Delta,
    FinishReason,
    Message,
    Request,
    TokenLogprobs,
    Usage,
)

_TEMPLATE = """\
{%- for message in messages -%}
<|start|>{{ message.role }}
{% if message.role == 'assistant' -%}
{% generation %}{{ message.content }}<|end|>{% endgeneration %}
{% else -%}
{{ message.content }}<|end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{% endif -%}
"""


def make_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Write an untrained Llama of about 40,000 parameters that Transformers can load.

    It has a byte-level BPE tokenizer, a chat template with generation markers, and a pad
    token that is not its end token. The same seed writes the same weights.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    specials = ["<|pad|>", "<|start|>", "<|end|>"]
    tokenizer.train_from_iterator(
        ["The quick brown fox jumps over the lazy dog. user assistant system\n"] * 4,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>"
    )
    fast.chat_template = _TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=specials.index("<|pad|>"),
            bos_token_id=None,
            eos_token_id=specials.index("<|end|>"),
        )
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return Path(folder)


class ScriptedModel:
    """A ChatModel that answers by a function; safe to call from several threads.

    Tokens are words between whitespace. A request for which `answer` raises ValueError fails
    by itself, as one that is too long does, and costs nothing; any other error is the whole
    model's.

    Attributes:
        requests: all requests answered or failed so far, in that order.
        usage: the sum of what it reported for them.
    """

    capabilities = frozenset({"complete", "stream"})

    def __init__(self, answer: Callable[[Request], str], name: str = "scripted") -> None:
        self.name = name
        self.requests: list[Request] = []
        self.usage = ZERO_USAGE
        self._answer = answer
        self._lock = threading.Lock()

    @property
    def calls(self) -> int:
        """How many requests there were."""
        return len(self.requests)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """See ChatModel."""
        return [self._complete(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """See ChatModel. One word a delta."""
        done = self._complete(request)
        if done.error is not None:
            raise ModelError(done.error)
        *pieces, last = done.text.split(" ")
        for piece in pieces:
            yield Delta(piece + " ")
        yield Delta(last, done.finish_reason, done.usage)

    def score(self, pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[TokenLogprobs]:
        """Not possible: a function has no probabilities."""
        raise ModelError(f"{self.name} cannot score: it knows no probabilities.")

    def _complete(self, request: Request) -> Completion:
        try:
            text = self._answer(request)
        except ValueError as error:
            done = Completion("", FinishReason.ERROR, ZERO_USAGE, error=str(error))
        else:
            words = sum(len(m.content.split()) for m in request.messages)
            done = Completion(text, FinishReason.STOP, Usage(words, len(text.split()), 0))
        with self._lock:
            self.requests.append(request)
            self.usage += done.usage
        return done
