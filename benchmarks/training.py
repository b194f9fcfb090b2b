"""Training speed: real (non-padding) tokens a second, beside the two usual ways to do it.

Three trainers run in turn on the same model (a Llama of about 5.9 million parameters, made on
the spot with its own BPE tokenizer), the same rows, the same LoRA settings (rank 16 on all
linear layers, batches of 8, AdamW, float32 on a CPU, bfloat16 autocast on a GPU), each in a
process of its own:

    tunelm          batches of alike length, no attention mask, logits only at labels
    trainer-512     transformers.Trainer as tutorials show it: every row padded to 512
    trl             TRL's SFTTrainer with length grouping, loss on the answers only

What is timed is the training loop: from its first step to its last, without imports, loading,
tokenizing, evaluation and saving; the first steps warm up and are left out. All three count
tokens the same way: the prompt and the answer of each row trained on, no padding.

    python benchmarks/training.py --rows gsm8k.jsonl

Rows are JSON lines with `question` and `answer`; without --rows, those of the bundled task.
TRL is no dependency of tunelm; where it is missing its row is left out. To have it, in an
environment of its own:

    python -m venv /tmp/trl && /tmp/trl/bin/pip install -c constraints.txt -e '.[all]' trl datasets
    /tmp/trl/bin/python benchmarks/training.py --rows gsm8k.jsonl
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
BUNDLED = HERE.parents[1] / "src" / "tunelm" / "tasks" / "edu_qa.jsonl"
SYSTEM = "Solve the problem."
BATCH = 8
MAX_LENGTH = 512
BARS = {"trainer-512": 2.5, "trl": 1.0}
PLAIN_TEMPLATE = """\
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


def main() -> None:
    """Make the model, run the trainers in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=BUNDLED, help="JSON lines: question, answer")
    parser.add_argument("--steps", type=int, default=60, help="timed steps of each run")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the clock starts")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each trainer")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(TRAINERS[given.one](given.folder, given)))
        return
    names = [n for n in TRAINERS if n != "trl" or importlib.util.find_spec("trl")]
    if "trl" not in names:
        print("TRL is not installed here: its row is left out (see the head of this file).")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parameters = prepare(folder, given)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for repeat in range(given.repeats):
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                runs[name].append(run_one(name, folder))
                print(f"  {name}: {runs[name][-1]['rate']:.0f} tokens/s", file=sys.stderr)
    report(runs, given, parameters)


def run_one(name: str, folder: Path) -> dict[str, Any]:
    """One trainer in a fresh process; its last line of output is the measurement."""
    command = [sys.executable, str(HERE), *sys.argv[1:], "--one", name, "--folder", str(folder)]
    env = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    measured["rate"] = measured["tokens"] / measured["seconds"]
    return measured


def report(runs: dict[str, list[dict[str, Any]]], given: Any, parameters: int) -> None:
    """A Markdown table: the median of the repeats, their range, and tunelm's ratio to each."""
    versions = {p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft")}
    if "trl" in runs:
        versions["trl"] = importlib.metadata.version("trl")
    print(f"\n{parameters / 1e6:.1f}M parameters, rows {given.rows.name}, {given.device},", end=" ")
    print(f"{os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads, {platform.machine()},")
    print(f"{given.repeats} runs of {given.steps} steps after {given.warmup},", end=" ")
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
    print(
        "| trainer | real tokens/s (median) | lowest-highest | padding | last loss | peak RSS |",
        end="",
    )
    print(" tunelm is faster by | bar |\n|---|---|---|---|---|---|---|---|")
    ours = [one["rate"] for one in runs["tunelm"]]
    for name, measured in runs.items():
        rates = [one["rate"] for one in measured]
        last = measured[-1]
        cells = [
            name,
            f"{statistics.median(rates):,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{1 - last['tokens'] / last['padded']:.1%}",
            f"{last['loss']:.3f}",
            f"{last['rss'] / 1e6:,.0f} MB",
        ]
        if name in BARS:
            # repeats stand side by side in time: their ratios cancel a machine's drift
            ratio = statistics.median(a / b for a, b in zip(ours, rates, strict=True))
            verdict = "met" if ratio >= BARS[name] else "MISSED"
            cells += [f"{ratio:.2f}x", f"{BARS[name]}x {verdict}"]
        else:
            cells += ["", ""]
        print("| " + " | ".join(cells) + " |")


def prepare(folder: Path, given: Any) -> int:
    """Write rows, tokenizer and model; return the model's parameters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    rows = read_lines(given.rows)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|start|>", "<|end|>"]
    tokenizer.train_from_iterator(
        (row["question"] + " " + row["answer"] for row in rows),
        trainers.BpeTrainer(
            vocab_size=4096,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>"
    )
    fast.chat_template = PLAIN_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096,
            hidden_size=256,
            intermediate_size=800,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=2,
        )
    )
    model.save_pretrained(folder / "model")
    fast.save_pretrained(folder / "model")
    kept = [row for row in rows if len(fast(row["question"] + row["answer"])["input_ids"]) < 450]
    count = (given.steps + given.warmup) * BATCH
    if len(kept) < count:
        sys.exit(f"{given.rows} has {len(kept)} rows of fitting length; {count} are needed.")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(kept[:count]):
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ]
            file.write(json.dumps({"id": str(number), "messages": messages}) + "\n")
    return model.num_parameters()


def read_lines(path: Path) -> list[Any]:
    """JSON lines. Not by splitlines(), which also breaks at characters that texts may hold."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def encoded_rows(folder: Path) -> tuple[Any, list[Any]]:
    """The rows as tunelm encodes them: how many tokens there really are."""
    from transformers import AutoTokenizer

    from tunelm.training.job import TrainingRow
    from tunelm.training.rows import encode_rows
    from tunelm.types import as_messages

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    lines = read_lines(folder / "rows.jsonl")
    rows = [TrainingRow(line["id"], as_messages(line["messages"])) for line in lines]
    return tokenizer, encode_rows(rows, tokenizer, {tokenizer.eos_token_id}, MAX_LENGTH)


def train_tunelm(folder: Path, given: Any) -> dict[str, Any]:
    """Ours, by the door the local route uses (in this process, which is fresh already)."""
    from tunelm.config import ModelConfig
    from tunelm.route_settings import LocalSettings
    from tunelm.training.job import TrainingJob
    from tunelm.training.worker import run

    work = Path(tempfile.mkdtemp(dir=folder))
    settings = LocalSettings(
        r=16, alpha=32, learning_rate=1e-3, epochs=1, batch_size=BATCH, stop_on="none"
    )
    model = ModelConfig(base=str(folder / "model"), device=given.device, max_length=MAX_LENGTH)
    job = TrainingJob(model=model, settings=settings)
    (work / "job.json").write_text(job.model_dump_json())
    (work / "train.jsonl").write_text((folder / "rows.jsonl").read_text())
    (work / "dev.jsonl").write_text("")
    result = run(work)
    steps = [event for event in read_lines(work / "events.jsonl") if event["event"] == "step"]
    first = steps[given.warmup - 1]
    return {
        "tokens": steps[-1]["tokens"] - first["tokens"],
        "padded": (steps[-1]["tokens"] - first["tokens"])
        * result["padded_tokens"]
        / result["tokens"],
        "seconds": steps[-1]["time"] - first["time"],
        "loss": statistics.mean(e["loss"] for e in steps[-10:]),
        "rss": result["peak_rss_bytes"],
    }


def train_trainer(folder: Path, given: Any) -> dict[str, Any]:
    """transformers.Trainer the way tutorials do: padding="max_length", labels of -100."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    tokenizer, rows = encoded_rows(folder)
    data: list[dict[str, list[int]]] = []
    for row in rows:
        fill = MAX_LENGTH - len(row.ids)
        labels = [-100] * row.n_prompt + list(row.supervised) + [-100] * fill
        data.append(
            {
                "input_ids": [*row.ids, *[tokenizer.pad_token_id] * fill],
                "attention_mask": [1] * len(row.ids) + [0] * fill,
                "labels": labels,
            }
        )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    lora = LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", bias="none"
    )
    clock = make_clock(given.warmup)
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(**common_arguments(folder, given)),
        train_dataset=data,
        callbacks=[clock],
    )
    clock.attach(trainer)
    trainer.train()
    return clock.measured()


def train_trl(folder: Path, given: Any) -> dict[str, Any]:
    """SFTTrainer, loss on the answers only, rows of alike length together."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    torch.manual_seed(0)
    chats = [line["messages"] for line in read_lines(folder / "rows.jsonl")]
    split = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]
    clock = make_clock(given.warmup)
    arguments = SFTConfig(
        **common_arguments(folder, given),
        max_length=MAX_LENGTH,
        completion_only_loss=True,
        packing=False,
        train_sampling_strategy="group_by_length",
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
        dataset_num_proc=None,
    )
    trainer = SFTTrainer(
        model=str(folder / "model"),
        args=arguments,
        train_dataset=Dataset.from_list(split),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", bias="none"
        ),
        callbacks=[clock],
    )
    clock.attach(trainer)
    trainer.train()
    return clock.measured()


def common_arguments(folder: Path, given: Any) -> dict[str, Any]:
    """What both Trainers are told: the same work as tunelm does, and nothing beside it."""
    return {
        "output_dir": tempfile.mkdtemp(dir=folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 3,
        "use_cpu": given.device == "cpu",
        "bf16": given.device == "cuda",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": given.device == "cuda",
        "seed": 0,
    }


def make_clock(warmup: int) -> Any:
    """A callback that times the steps after `warmup`, and counts their tokens."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Times steps; counts tokens as they enter the model."""

        def __init__(self) -> None:
            self.began = self.seconds = 0.0
            self.tokens = self.padded = self.step = 0
            self.losses: list[float] = []

        def attach(self, trainer: Any) -> None:
            """Count what goes through the trainer's own training step."""
            inner = trainer.training_step

            def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                if self.step >= warmup:
                    mask = inputs["attention_mask"]
                    # the turn end is only ever a target: tunelm does not feed it, nor count it
                    self.tokens += int(mask.sum()) - mask.shape[0]
                    self.padded += mask.numel() - mask.shape[0]
                loss = inner(model, inputs, *args, **kwargs)
                self.losses.append(float(loss))
                return loss

            trainer.training_step = counted

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Start after the warm-up, stop at each step from then on."""
            self.step = state.global_step
            now = time.monotonic()
            if self.step == warmup:
                self.began = now
            self.seconds = now - self.began

        def measured(self) -> dict[str, Any]:
            """The measurement."""
            from tunelm.rundir import peak_memory

            return {
                "tokens": self.tokens,
                "padded": self.padded,
                "seconds": self.seconds,
                "loss": statistics.mean(self.losses[-10:]),
                "rss": peak_memory(),
            }

    return Clock()


TRAINERS = {"tunelm": train_tunelm, "trainer-512": train_trainer, "trl": train_trl}

if __name__ == "__main__":
    main()
