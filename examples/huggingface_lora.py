"""LoRA fine-tuning by hand with Hugging Face: Transformers' Trainer and PEFT, in six steps.

    python examples/huggingface_lora.py [--model FOLDER_OR_HUB_ID] [--max-steps N]

The twenty pairs of src/tunelm/tasks/edu_qa_extended.jsonl, tunelm's own small model, no network.
The same steps with the LoRA layer written out: huggingface_custom_lora.py.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model

from tunelm.models.loading import BUNDLED
from tunelm.scoring.text import contains, token_f1

ROWS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "edu_qa_extended.jsonl"
SYSTEM = "Answer the student's question in one or two sentences."
HELD_OUT = 6


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(BUNDLED["tunelm-nano"]), help="a folder or hub id")
    parser.add_argument("--max-steps", type=int, default=40, help="updates of the adapter")
    arguments = parser.parse_args()
    if arguments.model == parser.get_default("model") and not Path(arguments.model).is_dir():
        parser.error(f"{arguments.model} is missing: run `make nano`, or give --model")
    return arguments


def render(tokenizer, row, *answer):
    """The chat in the model's own template, up to where the answer begins or with it."""
    texts = zip(("system", "user", "assistant"), (SYSTEM, row["question"], *answer), strict=False)
    chat = [{"role": role, "content": text} for role, text in texts]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=not answer)


def encode(tokenizer, row):
    """One training row: the whole chat as tokens, and labels on the answer and its end only."""
    prompt, whole = render(tokenizer, row), render(tokenizer, row, row["answer"]).rstrip()
    if not whole.startswith(prompt):
        raise SystemExit("this chat template changes earlier turns: its prompt cannot be masked")
    start = tokenizer.encode(prompt, add_special_tokens=False)  # the template wrote its own
    end = tokenizer.encode(whole[len(prompt) :], add_special_tokens=False)
    return {"input_ids": start + end, "labels": [-100] * len(start) + end}  # -100: no loss here


def ask(model, tokenizer, row):
    """The model's greedy answer, on one line."""
    inputs = tokenizer(render(tokenizer, row), add_special_tokens=False, return_tensors="pt").to(
        model.device
    )
    made = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    answer = made[0, inputs["input_ids"].shape[1] :]
    return " ".join(tokenizer.decode(answer, skip_special_tokens=True).split())


def main():
    arguments = parse_arguments()
    print("\n== Step 1: environment and data ==")
    torch.manual_seed(0)
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    random.Random(0).shuffle(rows)
    held_out, train = rows[:HELD_OUT], rows[HELD_OUT:]
    gpu = torch.cuda.is_available()
    print(f"torch {torch.__version__} on {'a GPU' if gpu else 'the CPU'}; "
          f"{len(train)} pairs to learn from, {HELD_OUT} held out")  # fmt: skip

    print("\n== Step 2: format ==")
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoded = [encode(tokenizer, row) for row in train]
    learnt = [token for token in encoded[0]["labels"] if token != -100]
    print("a row:        ", repr(tokenizer.decode(encoded[0]["input_ids"])))
    print("learnt of it: ", repr(tokenizer.decode(learnt)))

    print("\n== Step 3: model ==")
    base = transformers.AutoModelForCausalLM.from_pretrained(arguments.model)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    model.print_trainable_parameters()

    print("\n== Step 4: fine-tuning ==")
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder, max_steps=arguments.max_steps, per_device_train_batch_size=4,
            learning_rate=2e-3, lr_scheduler_type="cosine", warmup_steps=2,  # 2e-4 from 1B up
            logging_steps=max(1, arguments.max_steps // 4), save_strategy="no", report_to="none",
            label_names=["labels"], disable_tqdm=True, use_cpu=not gpu, dataloader_pin_memory=gpu,
        )  # fmt: skip
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        transformers.Trainer(model, settings, train_dataset=encoded, data_collator=collator).train()

    print("\n== Step 5: inference ==")
    model.eval()
    tuned = [ask(model, tokenizer, row) for row in held_out]
    with model.disable_adapter():  # the same weights without the correction
        untuned = [ask(model, tokenizer, row) for row in held_out]
    for row, before, after in zip(held_out, untuned, tuned, strict=True):
        print(f"{row['question']}\n  gold   {row['answer']}\n  base   {before}\n  tuned  {after}")
    print("\n== Step 6: comparison ==")
    compare(held_out, {"base": untuned, "tuned": tuned})


def compare(rows, answers):
    """Means over the held-out rows, and what so few rows cannot prove."""
    for name, given in answers.items():
        f1 = sum(token_f1(a, r["answer"]) for a, r in zip(given, rows, strict=True)) / len(rows)
        hit = sum(contains(a, r["key_answer"]) for a, r in zip(given, rows, strict=True))
        print(f"{name:6} token-F1 {f1:.3f}  contains {hit / len(rows):.3f}  n = {len(rows)}")
    print(
        f"{len(rows)} rows prove nothing: a single one moves 'contains' by {1 / len(rows):.2f}, and there"
    )
    print("is no interval, no second seed and no control. For those: tunelm compare")


if __name__ == "__main__":
    main()
