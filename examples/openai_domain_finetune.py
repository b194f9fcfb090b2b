"""A model for one domain, biology, with the official OpenAI SDK; offline, against our own server.

python examples/openai_domain_finetune.py [--rows N] [--epochs N]

Beside the domain's own questions it asks some of other subjects: what a domain model forgets, or
answers in the domain's manner where it should not, shows there only.
"""

import argparse
import json
from pathlib import Path

import openai
from openai_jobs import add_options, ask, connect, create_once, follow, upload

from tunelm.scoring.text import contains, token_f1

TASKS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks"
BIOLOGY, OTHERS = TASKS / "edu_biology_qa.jsonl", TASKS / "edu_qa.jsonl"
WRITTEN, VALIDATION = Path("openai_biology_training.jsonl"), Path("openai_biology_validation.jsonl")
SYSTEM = "You are a biology tutor. Answer the student's question in one or two sentences."
HELD_OUT = 12


def read_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def split(rows):
    """(train, validation, held out): questions on one fact stay together, or the test is none."""
    facts = list(dict.fromkeys(row["group"] for row in rows))
    parts = {fact: i % 4 for i, fact in enumerate(facts)}
    held_out = [row for row in rows if parts[row["group"]] == 0]
    validation = [row for row in rows if parts[row["group"]] == 1]
    train = [row for row in rows if parts[row["group"]] > 1]
    return train, validation[:HELD_OUT], held_out[:HELD_OUT]


def chat(row):
    roles = (("system", SYSTEM), ("user", row["question"]), ("assistant", row["answer"]))
    return [{"role": role, "content": text} for role, text in roles]


def write(path, rows):
    lines = [json.dumps({"messages": chat(row)}, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def score(name, rows, answers):
    """Form and content: the words shared with the gold answer, and whether the fact is there."""
    n = len(rows)
    f1 = sum(token_f1(a, row["answer"]) for a, row in zip(answers, rows, strict=True)) / n
    right = sum(contains(a, row["key_answer"]) for a, row in zip(answers, rows, strict=True)) / n
    print(f"{name:14} token-F1 {f1:.3f}  contains {right:.3f}  n = {n}")


def main():
    parser = argparse.ArgumentParser(description="Fine-tuning for a domain, in six steps.")
    parser.add_argument("--rows", type=int, help="most rows to learn from")
    add_options(parser, epochs=4)
    arguments = parser.parse_args()

    print("\n== Step 1: environment and data ==")
    train, validation, held_out = split(read_rows(BIOLOGY))
    train, elsewhere = train[: arguments.rows], read_rows(OTHERS)[:HELD_OUT]
    print(f"openai {openai.__version__}; biology: {len(train)} rows to learn from, ", end="")
    print(
        f"{len(validation)} to watch, {len(held_out)} held out; {len(elsewhere)} of other subjects"
    )

    print("\n== Step 2: format ==")
    if len(train) < 10:
        raise SystemExit(f"{len(train)} rows: a job takes ten or more")
    write(WRITTEN, train)
    write(VALIDATION, validation)
    print(f"{WRITTEN} and {VALIDATION}: lines such as\n{json.dumps({'messages': chat(train[0])})}")

    with connect(arguments) as client:
        print("\n== Step 3: model ==")
        model = client.models.retrieve(arguments.model)
        print(f"{model.id} by {model.owned_by} at {client.base_url}")

        print("\n== Step 4: fine-tuning ==")
        settings = {"n_epochs": arguments.epochs, "batch_size": 8}
        job = create_once(
            client,
            model=model.id,
            training_file=upload(client, WRITTEN),
            validation_file=upload(client, VALIDATION),
            method={"type": "supervised", "supervised": {"hyperparameters": settings}},
            suffix="biology",
            seed=0,
        )
        job = follow(client, job)
        for point in client.fine_tuning.jobs.checkpoints.list(job.id).data[::-1]:
            print(f"  {point.fine_tuned_model_checkpoint}: loss {point.metrics.full_valid_loss}")

        print("\n== Step 5: inference ==")
        answers = {
            (name, domain): ask(client, which, [chat(row) for row in rows])
            for name, which in (("base", model.id), ("tuned", job.fine_tuned_model))
            for domain, rows in (("biology", held_out), ("others", elsewhere))
        }
        print(f"e.g. {held_out[0]['question']} {answers['tuned', 'biology'][0]}")

    print("\n== Step 6: comparison ==")
    for (name, domain), given in answers.items():
        score(f"{name} {domain}", held_out if domain == "biology" else elsewhere, given)
    print(f"{HELD_OUT} rows a line prove nothing: to know, tunelm compare edu-biology")


if __name__ == "__main__":
    main()
