"""LoRA fine-tuning with the LoRA layer written by hand in plain PyTorch, in the same six steps.

    python examples/huggingface_custom_lora.py [--model FOLDER_OR_HUB_ID] [--max-steps N]

What PEFT and Trainer do in huggingface_lora.py is no magic: a small correction beside each frozen
matrix, and a loop that trains it. Data, format, inference and comparison come from that file.
"""

import math
from itertools import islice

import torch
import transformers
from huggingface_lora import ask, compare, encode, parse_arguments, read_rows
from torch import nn
from torch.nn.utils.rnn import pad_sequence


class LoRALinear(nn.Module):
    """y = W x + (alpha / r) B A x. W is frozen; B starts at zero, so that y starts unchanged."""

    def __init__(self, linear, r=16, alpha=32):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / r
        self.a = nn.Parameter(linear.weight.new_empty(r, linear.in_features))
        self.b = nn.Parameter(linear.weight.new_zeros(linear.out_features, r))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x):
        """Shapes: (..., in_features) to (..., out_features)."""
        return self.linear(x) + self.scale * (x @ self.a.T @ self.b.T)

    @torch.no_grad()
    def merge(self):
        """W + (alpha / r) B A as an ordinary layer: nothing is left to add at inference."""
        self.linear.weight += self.scale * (self.b @ self.a)
        return self.linear


def replace_layers(model, kind, make):
    """Put `make(layer)` in the place of each layer of that kind, but for the output head."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, kind) and layer is not model.get_output_embeddings():
            model.set_submodule(name, make(layer))


def batches(encoded, pad, size=4):
    """Padded batches in a new order every epoch, without end."""
    while True:
        order = torch.randperm(len(encoded)).tolist()
        for start in range(0, len(order), size):
            rows = [encoded[i] for i in order[start : start + size]]
            ids = [torch.tensor(row["input_ids"]) for row in rows]
            yield {
                "input_ids": pad_sequence(ids, True, pad),
                "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], True, 0),
                "labels": pad_sequence([torch.tensor(r["labels"]) for r in rows], True, -100),
            }


def main():
    arguments = parse_arguments()
    print("\n== Step 1: environment and data ==")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, held_out = read_rows()
    print(f"{device}; {len(train)} pairs to learn from, {len(held_out)} held out")
    torch.manual_seed(0)

    print("\n== Step 2: format ==")
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoded = [encode(tokenizer, row) for row in train]
    for key in ("input_ids", "labels"):
        print(f"the last tokens of a row, {key}: {encoded[0][key][-25:]}")

    print("\n== Step 3: model ==")
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(arguments.model, dtype=torch.float32).to(device).eval()
    untuned = [ask(model, tokenizer, row) for row in held_out]
    model.requires_grad_(False)
    replace_layers(model, nn.Linear, LoRALinear)
    learning = [p for p in model.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in learning):,} of {model.num_parameters():,} parameters learn")

    print("\n== Step 4: fine-tuning ==")
    optimizer = torch.optim.AdamW(learning, lr=2e-3, weight_decay=0.0)  # 2e-4 from 1B up
    steps = arguments.max_steps
    for step, batch in enumerate(islice(batches(encoded, tokenizer.pad_token_id), steps)):
        loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)  # falls to zero
        optimizer.step()
        optimizer.zero_grad()
        if step % max(1, steps // 4) == 0 or step == steps - 1:
            print(f"step {step + 1:3}  loss {loss.item():.3f}")

    print("\n== Step 5: inference ==")
    probe = torch.tensor([encoded[0]["input_ids"]], device=device)
    with torch.no_grad():
        beside = model(probe).logits
        replace_layers(model, LoRALinear, LoRALinear.merge)
        apart = (model(probe).logits - beside).abs().max().item()
    print(f"merged into the weights; the logits moved by {apart:.1e} at most")
    if apart > 1e-3 * beside.abs().max().item():
        raise SystemExit("merging changed the model")
    tuned = [ask(model, tokenizer, row) for row in held_out]
    print(f"{len(held_out)} questions answered by the base and by the tuned model")

    print("\n== Step 6: comparison ==")
    compare(held_out, untuned, tuned)


if __name__ == "__main__":
    main()
