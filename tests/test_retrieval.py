"""Retrieval: passages, search by words and by meaning, fine-tuning, and its own figures."""

import json
import math
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tunelm.errors import ConfigError, DataError, ModelError
from tunelm.retrieval.chunks import Passage, read_corpus, read_passages, write_passages
from tunelm.retrieval.citations import citation_figures, citations
from tunelm.retrieval.embed import cached_vectors, embedder_identity, open_embedder
from tunelm.retrieval.index import ByMeaning, ByWords, Fused, build_retriever
from tunelm.retrieval.lexical import Bm25, Hit
from tunelm.retrieval.quality import compare_retrievers, figures, gold_passages
from tunelm.retrieval.shown import search_text, with_passages
from tunelm.retrieval.tune import CARD, batches, training_pairs, tune
from tunelm.scoring.text import normalise
from tunelm.types import Example, FinishReason, Message, Prediction, content_hash

pytest.importorskip("bm25s")


def example(question: str, answer: str, group: str | None = None, **metadata: object) -> Example:
    identity = content_hash([question, answer])
    messages = (Message("user", question),)
    return Example(identity, messages, (answer,), group or identity, metadata=metadata)


def passage(text: str, key: str = "") -> Passage:
    return Passage(content_hash(text), text, "book.md:1", key=key)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- search by words ------------------------------------------------------------------------------


def test_bm25_finds_the_text_with_the_rare_word_in_any_script():
    texts = ["the cat and the dog", "the dog", "光合作用は植物の働き", "हिन्दी एक भाषा है", ""]
    found = Bm25(texts).search(["Cat!", "dog", "光合", "भाषा", "", "unheard"], 2)
    assert [hits[0].index for hits in found] == [0, 1, 2, 3, 0, 0]
    assert [hit.score for hit in found[4]] == [0, 0]
    assert found[0][1] == Hit(1, 0.0)  # equal ones by their place
    assert Bm25(texts).search(["dog"], 2) == [found[1]]


def test_bm25_takes_no_texts_and_texts_without_words():
    assert Bm25([]).search(["a"], 3) == [[]]
    assert Bm25(["", "?!"]).search(["a"], 9) == [[Hit(0, 0.0), Hit(1, 0.0)]]
    assert ByWords(["", "?!"]).search(["a"], 9) == [[]]


# --- passages -------------------------------------------------------------------------------------

MARKDOWN = """# Animals

A short paragraph
over two lines

## Young

A young cow is a calf.
A young horse is a foal.

```python
# no heading

x = 1
```
### Deeper
last
"""


def test_markdown_becomes_paragraphs_statements_and_fences_below_their_headings(tmp_path):
    passages = read_corpus(write(tmp_path / "book.md", MARKDOWN), 40, 5).passages
    got = [(p.source, p.title, p.text) for p in passages]
    assert got == [
        ("book.md:3", "Animals", "A short paragraph\nover two lines"),
        ("book.md:8", "Animals > Young", "A young cow is a calf."),
        ("book.md:9", "Animals > Young", "A young horse is a foal."),
        ("book.md:11", "Animals > Young", "```python\n# no heading\n\nx = 1\n```"),
        ("book.md:17", "Animals > Young > Deeper", "last"),
    ]
    again = read_corpus(write(tmp_path / "other.md", "\n\n" + MARKDOWN), 40, 5).passages
    assert [p.id for p in again] == [p.id for p in passages]
    write_passages(tmp_path / "passages.jsonl", passages)
    assert read_passages(tmp_path / "passages.jsonl") == passages


def test_a_long_paragraph_is_cut_at_sentences_that_overlap_and_nothing_is_lost(tmp_path):
    rng = random.Random(0)
    sentences = [
        " ".join(f"w{i}x{rng.randrange(999)}" for _ in range(rng.randint(3, 12)))
        + rng.choice(".!?")
        for i in range(60)
    ]
    text = " ".join(sentences)
    passages = read_corpus(write(tmp_path / "a.txt", text), 30, 10).passages
    assert all(len(p.text.split()) <= 30 for p in passages)
    assert all(p.text in text for p in passages)
    assert all(any(s in p.text for p in passages) for s in sentences)
    repeated = sum(len(p.text.split()) for p in passages) - len(text.split())
    assert 0 < repeated <= 10 * (len(passages) - 1)
    plain = read_corpus(tmp_path / "a.txt", 30, 0).passages
    assert " ".join(p.text for p in plain) == text


def test_a_sentence_without_end_and_a_script_without_spaces_are_cut_too(tmp_path):
    words = " ".join(f"word{i}" for i in range(100))
    unspaced = "".join(chr(0x4E00 + i) for i in range(300))
    long = "".join(str(i) for i in range(3000))
    text = f"{words}\n\n{unspaced}\n\n{long}"
    passages = read_corpus(write(tmp_path / "a.txt", text), 20, 0).passages
    assert "".join(p.text.replace(" ", "") for p in passages) == "".join(text.split())
    assert max(len(p.text) for p in passages) < 1000


def test_rows_keep_their_id_and_title_and_a_row_without_text_is_named(tmp_path):
    rows = [{"id": 7, "title": "Cows", "text": "A calf."}, {"text": "A foal."}, {"text": "A foal."}]
    path = write(tmp_path / "rows.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    corpus = read_corpus(path, 20, 0)
    assert [(p.key, p.title, p.searched) for p in corpus.passages] == [
        ("7", "Cows", "Cows\nA calf."),
        ("", "", "A foal."),
    ]
    assert corpus.duplicates == 1
    write(path, '{"text": "fine"}\n{"body": "x"}\n{"text": ["x"]}\n')
    with pytest.raises(
        DataError, match=r"rows.jsonl:2: .*'text'.*body(.|\n)*rows.jsonl:3: 'text' is"
    ):
        read_corpus(path, 20, 0)


def test_a_folder_is_read_whole_and_one_without_text_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "b.txt", "# not a heading\n")
    write(tmp_path / "sub" / "a.md", "# Head\ntext")
    write(tmp_path / "c.docx", "x")
    corpus = read_corpus(tmp_path, 20, 0)
    got = [(p.source, p.title) for p in corpus.passages]
    assert got == [("b.txt:1", ""), ("sub/a.md:2", "Head")]
    (left_out,) = corpus.left_out
    assert "c.docx: left out: no document" in left_out
    with pytest.raises(DataError, match=r"the corpus holds no text\. Give data\.corpus"):
        read_corpus(write(tmp_path / "c.md", "# Only a heading\n"), 20, 0)
    with pytest.raises(DataError, match="the file is empty"):
        read_corpus(write(tmp_path / "empty.txt", ""), 20, 0)


# --- search by meaning ----------------------------------------------------------------------------

CONCEPTS = 12
BOOK = [f"book{i}" for i in range(CONCEPTS)]
SPOKEN = [f"spoken{i}" for i in range(CONCEPTS)]
"""The same things by two names: the corpus uses the first, questions the second."""


def make_embedder(folder: Path, seed: int = 0) -> Path:
    """Write an untrained BERT of one small layer over those words, with mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    parts = folder.with_name(folder.name + "-parts")
    parts.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", *BOOK, *SPOKEN]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(parts)
    torch.manual_seed(seed)
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(shape).save_pretrained(parts)
    SentenceTransformer(str(parts), device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def embedder_folder(tmp_path_factory):
    pytest.importorskip("sentence_transformers")
    return make_embedder(tmp_path_factory.mktemp("embedder") / "model")


def vocabulary_task() -> tuple[list[Passage], list[Example]]:
    """Two book words a passage; the question names the same two in spoken words."""
    passages: list[Passage] = []
    rows: list[Example] = []
    for a in range(CONCEPTS):
        for b in range(a):
            passages.append(passage(f"{BOOK[a]} {BOOK[b]}", key=f"{a}-{b}"))
            question = f"what is {SPOKEN[b]} {SPOKEN[a]}"
            rows.append(example(question, "unsaid", passage_id=f"{a}-{b}"))
    random.Random(1).shuffle(rows)
    return passages, rows


def test_tuning_learns_words_that_questions_and_corpus_do_not_share(embedder_folder, tmp_path):
    passages, rows = vocabulary_task()
    train, dev, held_out = rows[:40], rows[40:52], rows[52:]
    gold = gold_passages(rows, passages)
    assert len(gold) == len(rows)
    embedder = open_embedder(str(embedder_folder), "cpu")
    texts = [p.searched for p in passages]

    def found(model, rows):
        engine = ByMeaning(model, model.passages(texts))
        return engine.search([row.question for row in rows], 10)

    def judge(model):
        figure = figures(dev, found(model, dev), gold, 5)
        return figure["recall@5"]["value"], figure["mrr"]["value"]

    before = found(embedder, held_out)
    pairs = training_pairs({r.id: r.question for r in rows}, train, gold, passages)
    assert len(pairs) == len(train)
    told: list[tuple[int, int]] = []
    folder = tmp_path / "tuned"
    tuned = tune(
        embedder, pairs, passages, folder, judge, epochs=30, progress=lambda *at: told.append(at)
    )
    got = compare_retrievers("recall@5", held_out, found(tuned, held_out), before, gold)
    assert got.low is not None
    assert got.low > 0.1
    assert got.n == len(held_out)
    record = json.loads((folder / CARD).read_text(encoding="utf-8"))
    by_epoch = [tuple(pair) for pair in record["dev_by_epoch"]]
    assert record["chosen_epoch"] == by_epoch.index(max(by_epoch)) > 0
    assert told[-1][0] == told[-1][1] == len(told)
    assert tuned.identity == embedder_identity(folder) != embedder.identity
    again = tune(embedder, [], passages, folder, judge)  # finished before: nothing to learn from
    assert np.array_equal(again.passages(texts), tuned.passages(texts))


def test_tuning_is_the_same_again_and_refuses_rows_without_known_passages(
    embedder_folder, tmp_path
):
    passages, rows = vocabulary_task()
    gold = gold_passages(rows, passages)
    pairs = training_pairs({r.id: r.question for r in rows}, rows[:20], gold, passages)
    vectors = []
    for name in ("a", "b"):
        embedder = open_embedder(str(embedder_folder), "cpu")
        dev = iter([(0.0, 0.0), (1.0, 0.0)])
        judge = partial(lambda figures, _: next(figures), dev)
        tuned = tune(embedder, pairs, passages, tmp_path / name, judge, epochs=1)
        vectors.append(tuned.passages(["book1 book2"]))
    assert np.array_equal(*vectors)
    with pytest.raises(DataError, match="of no train row the passage"):
        tune(embedder, [], passages, tmp_path / "c", lambda _: (0.0, 0.0))


def test_no_batch_holds_a_passage_that_answers_another_of_its_questions():
    passages, rows = vocabulary_task()
    twice = [
        example(row.question + " again", "unsaid", passage_id=row.metadata["passage_id"])
        for row in rows
    ]
    both = rows + twice
    gold = gold_passages(both, passages)
    pairs = training_pairs({r.id: r.question for r in both}, both, gold, passages)
    made = batches(pairs, random.Random(0))
    assert sorted(p.question for batch in made for p in batch) == sorted(p.question for p in pairs)
    for batch in made:
        for pair in batch:
            shown = [
                n for other in batch if other is not pair for n in (other.positive, other.negative)
            ]
            assert not pair.gold & set(shown)


def test_vectors_are_unit_long_kept_in_a_file_and_tied_to_the_model(embedder_folder, tmp_path):
    embedder = open_embedder(str(embedder_folder), "cpu")
    vectors = cached_vectors(embedder, ["book1", "book2 book3"], tmp_path)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    (file,) = tmp_path.iterdir()
    assert embedder.identity in file.name
    np.save(file, np.zeros((2, 32), np.float32))
    assert not cached_vectors(embedder, ["book1", "book2 book3"], tmp_path).any()  # from the file
    assert cached_vectors(embedder, ["book1"], tmp_path).any()
    other = make_embedder(tmp_path / "other", seed=1)
    assert embedder_identity(other) != embedder.identity == embedder_identity(embedder_folder)


def test_a_retriever_that_is_none_is_refused_with_what_is_valid(tmp_path):
    with pytest.raises(ConfigError, match=r"'bm24': no such folder\. Did you mean 'bm25'\?"):
        open_embedder("bm24")
    with pytest.raises(ConfigError, match="its folder, or a hub id"):
        open_embedder(str(tmp_path / "missing"))
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelError, match=r"cannot be loaded: .*Valid: bm25, a folder"):
        open_embedder(str(tmp_path), "cpu")


class _Given:
    """Stands for a model in tests of the index: each text is the number of its vector."""

    name = "given"

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def queries(self, texts):
        return self.vectors[[int(text) for text in texts]]


def test_faiss_finds_nearly_what_exact_search_finds_and_the_same_twice():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 24))
    vectors = (centres[rng.integers(0, 40, 4000)] + 0.5 * rng.normal(size=(4000, 24))).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = [str(i) for i in range(0, 4000, 40)]
    exact = ByMeaning(_Given(vectors), vectors).search(queries, 10)
    cells = [ByMeaning(_Given(vectors), vectors, exact_below=1000) for _ in range(2)]
    near = cells[0].search(queries, 10)
    pairs = list(zip(exact, near, strict=True))
    shared = sum(len({h.index for h in a} & {h.index for h in b}) for a, b in pairs)
    assert shared / (10 * len(queries)) > 0.95
    assert all(a[0].index == b[0].index for a, b in pairs)  # each query is a vector of its own
    assert cells[1].search(queries, 10) == near
    assert cells[0].search([], 10) == []


class _Ranks:
    def __init__(self, name: str, *order: int) -> None:
        self.name, self.order = name, order

    def search(self, queries, k):
        return [[Hit(i, 1.0) for i in self.order][:k] for _ in queries]


def test_fusion_adds_reciprocal_ranks():
    ((first, second, *rest),) = Fused([_Ranks("a", 3, 1), _Ranks("b", 1, 2)]).search(["q"], 9)
    assert first == Hit(1, 1 / 62 + 1 / 61)
    assert second == Hit(3, 1 / 61)
    assert rest == [Hit(2, 1 / 62)]


def test_an_embedding_model_is_fused_with_words(embedder_folder):
    passages, rows = vocabulary_task()
    retriever = build_retriever(passages, open_embedder(str(embedder_folder), "cpu"))
    assert retriever.name == f"bm25+{embedder_folder}"
    assert len(retriever.search([rows[0].question], 3)[0]) == 3
    assert retriever.search(["book3 book1"], 1)[0][0].score == pytest.approx(2 / 61, rel=0.05)


# --- its own figures ------------------------------------------------------------------------------

PASSAGES = [
    passage("The capital of Norway is Oslo."),
    passage("The capital of Spain is Madrid.", key="spain"),
    passage("Madrid has museums."),
    *[passage(f"Number {n} is one of many.") for n in range(6)],
]


def test_a_rows_passage_is_the_one_it_names_or_the_few_that_hold_its_answer():
    rows = [
        example("Norway?", "It is Oslo, I think.", key_answers=["Oslo"]),
        example("Spain?", "Madrid"),
        example("Spain again?", "Madrid", passage_id="spain"),
        example("Which?", "one of many"),  # in too many
        example("Nowhere?", "Atlantis"),
    ]
    gold = gold_passages(rows, PASSAGES)
    assert [gold.get(row.id) for row in rows] == [{0}, {1, 2}, {1}, None, None]


def test_recall_and_mrr_by_hand_with_unknown_rows_counted():
    rows = [example(f"q{i}", "a", group=f"g{i}") for i in range(5)]
    gold = {row.id: frozenset([7]) for row in rows[:4]}
    ranks = (1, 2, 5, None)
    found = [[Hit(7 if at == rank else 99 + at, 1.0) for at in range(1, 11)] for rank in ranks]
    figure = figures(rows, [*found, []], gold, 2)
    assert (figure["rows"], figure["known"]) == (5, 4)
    assert [figure[f"recall@{k}"]["value"] for k in (1, 2, 3, 5, 10)] == [
        0.25,
        0.5,
        0.5,
        0.75,
        0.75,
    ]
    assert figure["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1 / 5) / 4)
    assert figure["mrr"]["n"] == figure["mrr"]["n_groups"] == 4
    assert figure["mrr"]["low"] < figure["mrr"]["value"] < figure["mrr"]["high"]
    best = [[Hit(7, 1.0)]] * 5
    got = compare_retrievers("mrr", rows, best, [*found, []], gold)
    assert got.n == 4
    assert got.diff == pytest.approx(1 - figure["mrr"]["value"])
    unknown = figures(rows[4:], [[]], gold, 2)
    assert (unknown["known"], unknown["mrr"]["value"], unknown["mrr"]["n"]) == (0, None, 0)


# --- what is shown, and what is cited -------------------------------------------------------------


def test_passages_stand_numbered_before_the_users_last_text():
    chat = (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "Norway?"))
    shown = with_passages(chat, PASSAGES[:2])
    assert shown[:2] == chat[:2]
    assert shown[2].content == (
        "Passage: [1] The capital of Norway is Oslo.\n[2] The capital of Spain is Madrid."
        "\n\nQuestion: Norway?"
    )
    assert with_passages(chat, []) == chat
    text = (Message("text", "Once upon"),)
    assert with_passages(text, PASSAGES[:1]) == text
    assert search_text(chat) == "Hello Norway?"
    assert search_text((*chat[:2], Message("user", "What is the capital of Norway?"))) == (
        "What is the capital of Norway?"
    )
    assert search_text(text) == ""


def test_citations_are_read_and_compared_with_what_the_passages_say():
    shown = PASSAGES[:2]
    both = citations("Oslo [1] and Madrid [1, 2].", shown)
    assert (both.numbers, both.valid, both.support) == ((1, 2), True, 1.0)
    half = citations("Oslo is cold [1].", shown)
    assert half.support == 0.5
    assert citations("Oslo.", shown).numbers == ()
    made_up = citations("Oslo [9].", shown)
    assert (made_up.valid, made_up.support) == (False, None)


def test_citation_figures_count_every_answer_once():
    rows = [example(f"q{i}", "The capital is Oslo.", group=f"g{i}") for i in range(5)]
    said = ["The capital is Oslo [1].", "The king is cold [1].", "Oslo [3].", "Oslo.", None]
    answers = [
        Prediction(row.id, "dev", text, FinishReason.STOP if text else FinishReason.ERROR)
        for row, text in zip(rows, said, strict=True)
    ]
    figure = citation_figures(rows, answers, [PASSAGES[:1]] * 5, 0.5, "exact_match")
    assert (figure["answers"], figure["failed"]) == (4, 1)
    assert figure["cited"]["value"] == 0.75
    assert figure["valid"]["value"] == pytest.approx(2 / 3)
    assert figure["supported"]["value"] == pytest.approx(1 / 3)
    assert figure["supported"]["n"] == 3
    assert figure["exact_match"] == 0
    assert figure["exact_match without marks"] == 0.25
    assert normalise("Oslo [1].") == "oslo 1"  # why the two differ
    assert not math.isnan(figure["cited"]["low"])
