"""A teacher-student chatbot in each of three ways, in six steps; offline on the bundled model.

python examples/tutor_dialogue.py --route prompt|cloud|local [--quick] [--out RUN] [--set KEY=VALUE]
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import tunelm
from tunelm.config import load_config
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Problem, Turn, read_dialogues
from tunelm.tutor.strategies import STRATEGIES, Strategy
from tunelm.tutor.teaching import turn_examples
from tunelm.tutor.tutor import TeacherStudentDialogueModel

HERE = Path(__file__).resolve().parent
HAND_MADE = HERE.parent / "src" / "tunelm" / "tasks" / "edu_dialogues.jsonl"
QUICK = ["compare.conversations=24", "routes.local.max_steps=20", "routes.cloud.n_epochs=1"]
SHOWN = ("solved_unaided", "solved_after_telling", "telling_rate")


def read_scenarios():
    """(the strategy a good teacher would choose, the dialogue so far) of each test scenario."""
    scenarios = []
    for line in (HERE / "tutor_scenarios.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        problem = Problem(
            row["problem"], row["subject"], row["problem"], tuple(row["solutions"]),
            tuple(row.get("wrong", ())), row.get("misconception"),
        )  # fmt: skip
        turns = [  # [words] of the student's, [words, strategy] of the teacher's
            Turn(TEACHER, said[0], Strategy(said[1])) if len(said) == 2 else Turn(STUDENT, said[0])
            for said in row["turns"]
        ]
        scenarios.append((Strategy(row["expected"]), Dialogue(problem, tuple(turns))))
    return scenarios


def talk(model, scenarios, shown):
    """What the tutor on this model says in each scenario; how often it takes what is expected."""
    tutor, chosen = TeacherStudentDialogueModel(model), 0
    for expected, dialogue in scenarios:
        reply = tutor.reply(dialogue)
        chosen += reply.strategy is expected
        if shown:
            print(f"student: {dialogue.turns[-1].text}")
            print(f"  expected {expected}; chosen {reply.strategy}: {reply.why}")
            print(f"  teacher: {reply.text}")
            if reply.mended:
                print(f"  the model wrote: {reply.raw.text.strip()}")
    return chosen


def main():
    parser = argparse.ArgumentParser(description="A teacher-student chatbot, in six steps.")
    parser.add_argument("--route", choices=("prompt", "cloud", "local"), default="local")
    parser.add_argument("--out", type=Path, help="where the run is kept  [default: nowhere]")
    parser.add_argument("--quick", action="store_true", help="a few steps: how, not how well")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    print("\n== Step 1: environment and data ==")
    small = [dialogue for dialogue in read_dialogues(HAND_MADE) if dialogue.small]
    config = load_config("edu-dialogue")
    every = read_dialogues(config.data.path)
    print(f"tunelm {version('tunelm')}; {len(every)} dialogues, {len(small)} by hand for a look:")
    for turn in small[0].turns[:4]:
        print(f"  {turn.role}{f' ({turn.strategy})' if turn.strategy else ''}: {turn.text}")

    print("\n== Step 2: format ==")
    row = next(iter(turn_examples(small)))
    print(f"a row for each turn of the teacher's, {len(list(turn_examples(every)))} in all:")
    print(f"  {row.messages[-1].role}: {row.messages[-1].content!r}")
    print(f"  assistant: {row.answers[0]!r}")

    print("\n== Step 3: model ==")
    scenarios = read_scenarios()
    print(
        f"{config.model.base} in a TeacherStudentDialogueModel, which knows of each strategy when:"
    )
    for strategy, words in STRATEGIES.items():
        print(f"  {strategy}: {words.when}")

    print(f"\n== Step 4: adaptation by {arguments.route}, with the model as it is beside it ==")
    kept = arguments.out or Path(tempfile.mkdtemp()) / "run"
    overrides = [f'compare.routes=["baseline", "{arguments.route}"]', *arguments.set]
    report = tunelm.compare(
        "edu-dialogue", kept, resume=kept.exists(), overrides=QUICK * arguments.quick + overrides
    )
    routes = {route["name"]: route for route in report["routes"]}
    if routes[arguments.route]["status"] != "done":
        raise SystemExit(f"{arguments.route} {routes[arguments.route]['reason']}")

    print("\n== Step 5: conversation ==")
    model = tunelm.load(kept / arguments.route)
    chosen = talk(model, scenarios, shown=True)
    print(
        f"the expected strategy in {chosen} of {len(scenarios)} scenarios, by rule in every route"
    )

    print("\n== Step 6: comparison ==")
    for name, route in routes.items():
        scores = {metric: route["scores"][metric] for metric in SHOWN}
        told = ", ".join(
            f"{metric} {100 * s['value']:.1f} ({100 * s['ci_low']:.1f} to {100 * s['ci_high']:.1f})"
            for metric, s in scores.items()
        )
        print(f"{name}: {told}; {scores['solved_unaided']['n']} conversations")
    for sentence in report["verdict"][:3]:
        print(sentence)


if __name__ == "__main__":
    main()
