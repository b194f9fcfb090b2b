"""LoRA fine-tuning by hand with Transformers' Trainer and PEFT, in six steps; needs no network.

python examples/huggingface_lora.py [--model FOLDER_OR_HUB_ID] [--max-steps N]
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model

from tunelm.models.loading import BUNDLED
from tunelm.scoring.text import contains, token_f1

ROWS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "edu_qa_extended.jsonl"
SYSTEM = "Answer the student's question in one or two sentences."


def parse_arguments():
    nano = str(BUNDLED["tunelm-nano"])
    parser = argparse.ArgumentParser(description="LoRA fine-tuning by hand, in six steps.")
    parser.add_argument("--model", default=nano, help="a folder or hub id (default: tunelm-nano)")
    parser.add_argument("--max-steps", type=int, default=40, help="updates of the adapter")
    arguments = parser.parse_args()
    if arguments.model == nano and not Path(nano).is_dir():
        parser.error(f"{nano} is missing: run `make nano`, or give --model FOLDER")
    return arguments


def read_rows():
    """The pairs to learn from, and every third, held out."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    return [row for i, row in enumerate(rows) if i % 3], rows[::3]


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
    inputs = tokenizer([render(tokenizer, row)], add_special_tokens=False, return_tensors="pt")
    made = model.generate(**inputs.to(model.device), max_new_tokens=64, do_sample=False)
    answer = made[0, inputs["input_ids"].shape[1] :]
    return " ".join(tokenizer.decode(answer, skip_special_tokens=True).split())


def compare(rows, untuned, tuned):
    for row, before, after in zip(rows, untuned, tuned, strict=True):
        print(f"{row['question']}\n  gold   {row['answer']}\n  base   {before}\n  tuned  {after}")
    n = len(rows)
    for name, answers in (("base", untuned), ("tuned", tuned)):
        f1 = sum(token_f1(a, r["answer"]) for a, r in zip(answers, rows, strict=True)) / n
        found = sum(contains(a, r["key_answer"]) for a, r in zip(answers, rows, strict=True)) / n
        print(f"{name:6} token-F1 {f1:.3f}  contains {found:.3f}  n = {n}")
    print(f"{n} rows prove nothing: one moves 'contains' by {1 / n:.2f}. Where the base knew the")
    print("facts already (tunelm-nano does), only the form was learnt. To know: tunelm compare")


def main():
    arguments = parse_arguments()
    print("\n== Step 1: environment and data ==")
    gpu = torch.cuda.is_available()
    train, held_out = read_rows()
    print(f"{'GPU' if gpu else 'CPU'}; {len(train)} pairs to learn from, {len(held_out)} held out")
    torch.manual_seed(0)

    print("\n== Step 2: format ==")
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoded = [encode(tokenizer, row) for row in train]
    learnt = [token for token in encoded[0]["labels"] if token != -100]
    print(f"{tokenizer.decode(encoded[0]['input_ids'])!r}\nlearnt: {tokenizer.decode(learnt)!r}")

    print("\n== Step 3: model ==")
    base = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)  # freezes the base
    model.print_trainable_parameters()

    print("\n== Step 4: fine-tuning ==")
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            output_dir=folder, max_steps=arguments.max_steps, per_device_train_batch_size=4,
            learning_rate=2e-3, lr_scheduler_type="cosine", warmup_steps=2,  # 2e-4 from 1B up
            logging_steps=max(1, arguments.max_steps // 4), disable_tqdm=True, report_to="none",
            save_strategy="no", label_names=["labels"], use_cpu=not gpu, dataloader_pin_memory=gpu,
        )  # fmt: skip
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        transformers.Trainer(model, settings, train_dataset=encoded, data_collator=collator).train()

    print("\n== Step 5: inference ==")
    model.eval()
    tuned = [ask(model, tokenizer, row) for row in held_out]
    with model.disable_adapter():  # the same weights without the correction
        untuned = [ask(model, tokenizer, row) for row in held_out]
    print(f"{len(held_out)} questions answered by the base and by the tuned model")

    print("\n== Step 6: comparison ==")
    compare(held_out, untuned, tuned)


if __name__ == "__main__":
    main()
