"""A small Llama in as few operations as PyTorch allows.

A step of a small model is spent on calling operations more than on computing them. This does the
same as Transformers' Llama with joined weight matrices and a table of rotary positions, in a
third of the operations. `runner.choose_runner` tries it against the original before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from tunelm.server.slots import Part, SlotCache

LARGEST = 50_000_000
"""Parameters up to which it is worth its second copy of the weights."""
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def can_be_lean(model: Any) -> bool:
    """Whether a model is a plain, small Llama: no layer of it replaced, by an adapter or else."""
    if type(model).__name__ != "LlamaForCausalLM" or model.config.hidden_act != "silu":
        return False
    found = [m for name, m in model.named_modules() if name.rpartition(".")[2] in _LINEAR]
    plain = all(type(module) is nn.Linear for module in found)
    return (
        plain
        and model.dtype == torch.float32
        and sum(p.numel() for p in model.parameters()) <= LARGEST
    )


class LeanLlama:
    """What `slots.Slots` asks instead of the model it was made from.

    Prompts that enter and rows that get one more token go through it in one pass.
    """

    def __init__(self, model: Any) -> None:
        config, inner = model.config, model.model
        self.config, self.device, self.dtype = config, model.device, model.dtype
        self._heads: int = config.num_attention_heads
        self._groups: int = config.num_key_value_heads
        self._size: int = inner.layers[0].self_attn.head_dim
        self._eps: float = config.rms_norm_eps
        self._embedding, self._head = inner.embed_tokens.weight, model.lm_head
        self._norm = inner.norm.weight
        self._layers = [_Layer(layer) for layer in inner.layers]
        places = torch.arange(config.max_position_embeddings, device=self.device)[None]
        with torch.inference_mode():
            cos, sin = inner.rotary_emb(self._embedding, position_ids=places)
        half = self._size // 2
        sign = torch.ones(self._size, dtype=sin.dtype, device=self.device)
        sign[:half] = -1.0
        self._cos, self._sin = cos[0], sin[0] * sign

    def last_logits(self, parts: Sequence[Part], cache: SlotCache) -> torch.Tensor:
        """The logits after the last token of each row of all parts, (rows, vocabulary)."""
        kept: list[torch.Tensor] = []
        begin = 0
        for part in parts:
            rows, new = part.ids.shape
            kept.append(torch.arange(rows, device=self.device) * new + part.last + begin)
            begin += rows * new
        return self._logits(self._states(parts, cache)[torch.cat(kept)])

    def all_logits(self, part: Part, cache: SlotCache) -> torch.Tensor:
        """The logits after every token of a part with one row, (tokens, vocabulary)."""
        return self._logits(self._states([part], cache))

    def _states(self, parts: Sequence[Part], cache: SlotCache) -> torch.Tensor:
        """The last layer's output for all tokens of all parts, one after the other.

        All but attention is done for all of them together.
        """
        ids = torch.cat([part.ids.flatten() for part in parts])
        places = torch.cat([part.positions.flatten() for part in parts])
        states = functional.embedding(ids, self._embedding)
        cos, sin = self._cos[places, None], self._sin[places, None]
        for number, layer in enumerate(self._layers):
            normed = functional.rms_norm(states, states.shape[-1:], layer.norm_in, self._eps)
            joined = functional.linear(normed, layer.qkv, layer.qkv_bias)
            joined = joined.view(len(ids), -1, self._size)
            turned = joined[:, : self._heads + self._groups]
            turned = torch.addcmul(turned * cos, turned.roll(self._size // 2, -1), sin)
            values = joined[:, self._heads + self._groups :]
            states = layer.add_output(states, self._seen(parts, cache, turned, values, number))
            normed = functional.rms_norm(states, states.shape[-1:], layer.norm_out, self._eps)
            states = layer.add_mlp(states, normed)
        return states

    def _seen(
        self,
        parts: Sequence[Part],
        cache: SlotCache,
        turned: torch.Tensor,
        values: torch.Tensor,
        number: int,
    ) -> torch.Tensor:
        """What attention sees: (tokens, heads times size). `turned` are queries, then keys."""
        found: list[torch.Tensor] = []
        begin = 0
        for part in parts:
            rows, new = part.ids.shape
            end = begin + rows * new
            both = turned[begin:end].view(rows, new, -1, self._size).transpose(1, 2)
            own = values[begin:end].view(rows, new, -1, self._size).transpose(1, 2)
            begin, cache.part = end, part
            all_keys, all_values = cache.update(both[:, self._heads :], own, number)
            seen = functional.scaled_dot_product_attention(
                both[:, : self._heads],
                all_keys,
                all_values,
                attn_mask=part.mask,
                enable_gqa=self._heads != self._groups,
            )
            found.append(seen.transpose(1, 2).reshape(rows * new, -1))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return self._head(
            functional.rms_norm(states, states.shape[-1:], self._norm, self._eps)
        ).float()


class _Layer:
    """One layer's weights, those that see the same input joined into one matrix."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.norm_in = layer.input_layernorm.weight
        self.norm_out = layer.post_attention_layernorm.weight
        self.qkv, self.qkv_bias = _join(attention.q_proj, attention.k_proj, attention.v_proj)
        self._output, self._output_bias = _join(attention.o_proj)
        self._gate_up, self._gate_up_bias = _join(mlp.gate_proj, mlp.up_proj)
        self._down, self._down_bias = _join(mlp.down_proj)
        self._width = mlp.gate_proj.out_features

    def add_output(self, states: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """What attention saw, added to the states (tokens, width)."""
        return _add(states, seen, self._output, self._output_bias)

    def add_mlp(self, states: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
        """The feed-forward part, added to the states."""
        both = functional.linear(normed, self._gate_up, self._gate_up_bias)
        gated = functional.silu(both[:, : self._width]) * both[:, self._width :]
        return _add(states, gated, self._down, self._down_bias)


def _join(*layers: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight = torch.cat([layer.weight.detach() for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    return weight, torch.cat(biases) if biases else None


def _add(
    states: torch.Tensor, new: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    added = torch.addmm(states, new, weight.t())
    return added if bias is None else added + bias
