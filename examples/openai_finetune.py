"""Fine-tuning with the official OpenAI SDK, in six steps; offline, against tunelm's own server.

python examples/openai_finetune.py [--dialogues] [--epochs N]
python examples/openai_finetune.py --base-url URL --model NAME --spend    # where it costs money
"""

import argparse
import json
from pathlib import Path

import openai
from openai_jobs import add_options, ask, connect, create_once, follow, upload

from tunelm.scoring.text import token_f1

TASKS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks"
QUESTIONS = (
    TASKS / "edu_qa_extended.jsonl",
    Path("openai_edu_qa_training.jsonl"),
    "Answer the student's question in one or two sentences.",
)
DIALOGUES = (
    TASKS / "teacher_dialogues.jsonl",
    Path("openai_dialogue_training.jsonl"),
    "You are a teacher. Lead the student to the answer by questions; do not tell it.",
)


def read_chats(path, system):
    """Chats that end in the answer: to learn from, and every fifth, held out."""
    chats = []
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        turns = row.get("messages") or [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        chats.append([{"role": "system", "content": system}, *turns])
    return [chat for i, chat in enumerate(chats) if i % 5], chats[::5]


def problems_of(chats):
    """What a provider would refuse, a line each."""
    found = [f"{len(chats)} chats: a job takes ten or more"] if len(chats) < 10 else []
    for number, chat in enumerate(chats, 1):
        if chat[-1]["role"] != "assistant":
            found.append(f"chat {number} does not end in an answer")
        if not all(message["content"].strip() for message in chat):
            found.append(f"chat {number} has an empty message")
    return found


def compare(held_out, untuned, tuned):
    for chat, before, after in zip(held_out, untuned, tuned, strict=True):
        question, gold = chat[-2]["content"], chat[-1]["content"]
        print(f"{question}\n  gold   {gold}\n  base   {before}\n  tuned  {after}")
    for name, answers in (("base", untuned), ("tuned", tuned)):
        scores = [token_f1(a, c[-1]["content"]) for a, c in zip(answers, held_out, strict=True)]
        print(f"{name:6} token-F1 {sum(scores) / len(scores):.3f}  n = {len(scores)}")
    print(f"{len(held_out)} rows prove nothing: to know, tunelm compare")


def main():
    parser = argparse.ArgumentParser(description="Fine-tuning with the OpenAI SDK, in six steps.")
    parser.add_argument("--dialogues", action="store_true", help="learn from whole dialogues")
    add_options(parser, epochs=8)
    arguments = parser.parse_args()

    print("\n== Step 1: environment and data ==")
    source, written, system = DIALOGUES if arguments.dialogues else QUESTIONS
    train, held_out = read_chats(source, system)
    print(
        f"openai {openai.__version__}; {len(train)} chats to learn from, {len(held_out)} held out"
    )

    print("\n== Step 2: format ==")
    if problems := problems_of(train):
        raise SystemExit("\n".join(problems))
    lines = [json.dumps({"messages": chat}, ensure_ascii=False) for chat in train]
    written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{written}: {len(lines)} lines such as\n{lines[0]}")

    with connect(arguments) as client:
        print("\n== Step 3: model ==")
        model = client.models.retrieve(arguments.model)
        ends = (model.model_extra or {}).get("shutdown_date") or "no day that is known"
        print(f"{model.id} by {model.owned_by} at {client.base_url}, until {ends}")

        print("\n== Step 4: fine-tuning ==")
        settings = {"n_epochs": arguments.epochs}
        job = create_once(
            client,
            model=model.id,
            training_file=upload(client, written),
            method={"type": "supervised", "supervised": {"hyperparameters": settings}},
            seed=0,
        )
        job = follow(client, job)
        print(f"{job.fine_tuned_model}: {job.trained_tokens} tokens trained")

        print("\n== Step 5: inference ==")
        tuned = ask(client, job.fine_tuned_model, held_out)
        untuned = ask(client, model.id, held_out)
        print(f"{len(held_out)} held-out chats answered by the base and by the tuned model")

    print("\n== Step 6: comparison ==")
    compare(held_out, untuned, tuned)


if __name__ == "__main__":
    main()
