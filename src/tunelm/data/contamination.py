"""What the test rows of a split share with its train rows: looked at in every run."""

from __future__ import annotations

from typing import Any

from tunelm.data.overlap import Comparison, Document, OverlapIndex
from tunelm.data.split import Split
from tunelm.types import Example

SHOWN = 20


def contamination(split: Split) -> dict[str, Any]:
    """Test rows that share a piece of 13 words with a train row, or a short question whole.

    Equal and nearly equal questions are never parted by the split; this finds the rest, such as a
    passage or a paragraph that stands in two documents. Nothing is moved: it may be quoted text.

    Returns:
        `rows` of `of` test rows, and how many of them share something of what is `asked`, not of
        the answer alone; `shared_wording`, pieces left out because many rows hold them; and
        `found`, the first 20 with the piece, those that share of what is asked first.
    """
    wholes, questions = OverlapIndex(), OverlapIndex()
    for example in split.test:
        whole = _document(example)
        wholes.add(whole)
        questions.add(_asked(example, whole))
    train, train_questions = Comparison(wholes), Comparison(questions)
    for example in split.train:  # once: there may be millions, on disk
        whole = _document(example)
        train.look(whole)
        train_questions.look(_asked(example, whole))
    shared, asked = train.found(), train_questions.found()
    of_asked = {row.source for row in asked.rows}
    alone = [row for row in shared.rows if row.source not in of_asked]
    return {
        "rows": len(asked.rows) + len(alone),
        "asked": len(asked.rows),
        "of": len(split.test),
        "shared_wording": shared.common,
        "found": [
            {"test_id": row.source, "train_id": row.others[0], "piece": row.piece}
            for row in (*asked.rows, *alone)[:SHOWN]
        ],
    }


def _asked(example: Example, whole: Document) -> Document:
    """What stands before the answer, of the whole of it."""
    if not example.messages:  # running text is all there is
        return whole
    return Document(whole.source, (*whole.asked, *whole.texts[2:]), whole.asked)


def _document(example: Example) -> Document:
    # phrases of teachers and students are in every dialogue; what must not be known is the problem
    problem = example.metadata.get("problem")
    asked = str(problem or " ".join(message.content for message in example.messages))
    if not asked:
        return Document(example.id, example.answers, example.answers[:1])
    context = (example.context,) if example.context else ()
    return Document(example.id, (asked, *example.answers[:1], *context), (asked,))
