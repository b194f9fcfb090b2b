"""Training on tiny models: what must be learned is learned, and what must fail fails loudly."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, DataError, ModelError, StoppedError, TrainingError
from tunelm.route_settings import LocalSettings
from tunelm.testing import make_tiny_model
from tunelm.training import process
from tunelm.training.batches import epoch_batches, steps_by_epoch
from tunelm.training.job import TrainingJob, TrainingRow, write_job
from tunelm.types import Message

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tunelm.models.decoding import end_tokens
from tunelm.models.identity import base_identity, check_adapter, check_identity
from tunelm.training.adapter import (
    default_learning_rate,
    load_shapes,
    make_optimizer,
    make_trainable,
    probe,
    prove_learning,
    trainable,
)
from tunelm.training.rows import encode_rows
from tunelm.training.steps import Stepper, collate, logits_of, noisy_embeddings, summed_loss
from tunelm.training.worker import run

PLAIN_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


def chats(count, start=0):
    """Chats of varied length."""
    rng = random.Random(7)
    return [
        TrainingRow(
            f"row-{i}",
            (
                Message("system", "Say which number."),
                Message("user", f"Which? {'word ' * rng.randint(0, 12)}{i}"),
                Message("assistant", f"It is the number {i}."),
            ),
        )
        for i in range(start, start + count)
    ]


def job_for(base, **settings):
    model = ModelConfig(base=str(base), device="cpu", max_length=256)
    fast = {"epochs": 2, "learning_rate": 5e-3, "r": 4, "batch_size": 4} | settings
    return TrainingJob(model=model, settings=LocalSettings(**fast), checkpoint_seconds=0)


def broken_model(folder):
    """A base with one weight that is no number."""
    base = make_tiny_model(folder)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return base


def prepared(work, job, train=None, dev=None):
    write_job(
        work, job, chats(16) if train is None else train, chats(4, 90) if dev is None else dev
    )
    return work


def adapter_weights(work):
    return load_file(work / "adapter" / "adapter_model.safetensors")


def events(work):
    lines = (work / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- rows and their mask ------------------------------------------------------------------


def decoded(tokenizer, row):
    return tokenizer.decode(row.ids[: row.n_prompt]), tokenizer.decode(row.supervised)


def test_loss_falls_on_answer_and_turn_end_only(tokenizer):
    (row,) = encode_rows(chats(1, 7), tokenizer, {tokenizer.eos_token_id}, 256)
    prompt, supervised = decoded(tokenizer, row)
    assert supervised == "It is the number 7.<|end|>"
    assert prompt.endswith("<|end|>\n<|start|>assistant\n")


def test_only_the_last_of_several_answers_carries_loss(tokenizer):
    messages = (
        Message("user", "one?"),
        Message("assistant", "first answer"),
        Message("user", "two?"),
        Message("assistant", "second answer"),
    )
    (row,) = encode_rows([TrainingRow("a", messages)], tokenizer, {tokenizer.eos_token_id}, 256)
    prompt, supervised = decoded(tokenizer, row)
    assert supervised == "second answer<|end|>"
    assert "first answer" in prompt


DIALOGUE = (
    Message("user", "one?"),
    Message("assistant", "first answer"),
    Message("user", "two?"),
    Message("assistant", "second answer"),
    Message("user", "three?"),
    Message("assistant", "third answer"),
)


@pytest.mark.parametrize(
    ("learn", "heard"),
    [
        ((1, 3, 5), "first answer<|end|>second answer<|end|>third answer<|end|>"),
        ((1, 5), "first answer<|end|>third answer<|end|>"),
        ((5,), "third answer<|end|>"),
    ],
)
def test_the_named_answers_of_a_conversation_carry_loss(tokenizer, tiny, learn, heard):
    plain = AutoTokenizer.from_pretrained(tiny)
    plain.chat_template = PLAIN_TEMPLATE  # writes a line break after each turn's end
    row = TrainingRow("a", DIALOGUE, learn=learn)
    for one in (tokenizer, plain):
        (encoded,) = encode_rows([row], one, {tokenizer.eos_token_id}, 256)
        assert one.decode(encoded.supervised) == heard
        batch = collate([encoded], one.pad_token_id, torch.device("cpu"))
        following = [encoded.ids[place + 1] for place in batch.places.tolist()]
        assert following == batch.targets.tolist() == list(encoded.supervised)


def test_a_template_that_rewrites_earlier_answers_cannot_teach_both(tiny, tokenizer):
    forgetful = AutoTokenizer.from_pretrained(tiny)
    forgetful.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n"
        "{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    row = TrainingRow("a", DIALOGUE, learn=(1, 3, 5))
    with pytest.raises(DataError, match="Give each answer a row of its own"):
        encode_rows([row], forgetful, {tokenizer.eos_token_id}, 256)


@pytest.mark.parametrize("learn", [[1], [3, 1, 5], [0, 5], [9], []])
def test_what_a_row_may_learn_is_checked(tiny, tmp_path, learn):
    row = TrainingRow("a", DIALOGUE, learn=tuple(learn))
    work = prepared(tmp_path, job_for(tiny), train=[row])
    with pytest.raises(DataError, match="learn names assistant messages in order"):
        run(work)


def test_the_prompt_is_token_for_token_what_serving_gets(tokenizer):
    from tunelm.models.render import encode_prompt

    for chat, row in zip(
        chats(5), encode_rows(chats(5), tokenizer, {tokenizer.eos_token_id}, 256), strict=True
    ):
        assert list(row.ids[: row.n_prompt]) == encode_prompt(tokenizer, chat.messages[:-1])


def test_a_template_without_generation_markers_gives_the_same_rows(tokenizer, tiny):
    plain = AutoTokenizer.from_pretrained(tiny)
    plain.chat_template = PLAIN_TEMPLATE
    stops = {tokenizer.eos_token_id}
    assert encode_rows(chats(5), plain, stops, 256) == encode_rows(chats(5), tokenizer, stops, 256)


def test_without_a_chat_template_an_end_token_follows_the_answer(tiny):
    raw = AutoTokenizer.from_pretrained(tiny)
    raw.chat_template = None
    (row,) = encode_rows(chats(1, 3), raw, {raw.eos_token_id}, 256)
    prompt, supervised = decoded(raw, row)
    assert prompt == "Say which number.\n\n" + chats(1, 3)[0].messages[1].content + "\n"
    assert supervised == "It is the number 3.<|end|>"


def test_a_template_that_closes_no_turn_gets_an_end_token(tiny):
    open_ended = AutoTokenizer.from_pretrained(tiny)
    open_ended.chat_template = PLAIN_TEMPLATE.replace("<|end|>\n", "")
    (row,) = encode_rows(chats(1, 3), open_ended, {open_ended.eos_token_id}, 256)
    assert decoded(open_ended, row)[1] == "It is the number 3.<|end|>"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (PLAIN_TEMPLATE.replace("<|start|>assistant", "<|start|>model"), "not the beginning"),
        (PLAIN_TEMPLATE.replace("m.content", "m.content[:6]"), "whole answer"),
        (
            PLAIN_TEMPLATE.replace("{% for", "{% generation %}x y{% endgeneration %}{% for"),
            "markers cover no token",
        ),
    ],
)
def test_a_template_whose_mask_cannot_be_proven_is_refused(tiny, template, reason):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=reason):
        encode_rows(chats(1), tokenizer, {tokenizer.eos_token_id}, 256)


def test_a_template_that_refuses_a_role_says_how_to_mend_it(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = "{{ raise_exception('no system role') }}" + PLAIN_TEMPLATE
    with pytest.raises(ModelError, match=r"no system role.*task\.instructions"):
        encode_rows(chats(1), tokenizer, {tokenizer.eos_token_id}, 256)


@pytest.mark.parametrize("answer", ["", "  ", "cut <|end|> here"])
def test_an_answer_that_is_empty_or_holds_a_turn_end_is_refused(tokenizer, answer):
    row = TrainingRow("bad", (Message("user", "x"), Message("assistant", answer)))
    with pytest.raises(DataError, match="row bad"):
        encode_rows([row], tokenizer, {tokenizer.eos_token_id}, 256)


def test_every_over_long_row_is_named_and_none_is_cut(tokenizer):
    long = [dataclasses.replace(r, id=f"long-{r.id}") for r in chats(2, 50)]
    with pytest.raises(DataError) as caught:
        encode_rows(long, tokenizer, {tokenizer.eos_token_id}, 10)
    assert len(caught.value.problems) == 2
    assert "row long-row-50" in str(caught.value)


def test_a_model_without_an_end_token_is_refused(tokenizer):
    with pytest.raises(ModelError, match="end-of-text"):
        encode_rows(chats(1), tokenizer, set(), 256)


# --- batches ------------------------------------------------------------------------------


def lengths_like_real_text(count=1000):
    rng = random.Random(1)
    return [int(rng.lognormvariate(4, 0.6)) + 5 for _ in range(count)]


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"batch_tokens": 1000}])
def test_an_epoch_covers_each_row_once_with_less_than_5_percent_padding(settings):
    lengths, chosen = lengths_like_real_text(), LocalSettings(**settings)
    batches = epoch_batches(lengths, chosen, seed=0, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert 1 - sum(lengths) / padded < 0.05


def test_batches_depend_on_seed_and_epoch_only():
    lengths, settings = lengths_like_real_text(100), LocalSettings()
    first = epoch_batches(lengths, settings, 0, 0)
    assert first == epoch_batches(lengths, settings, 0, 0)
    assert first != epoch_batches(lengths, settings, 0, 1)
    assert first != epoch_batches(lengths, settings, 1, 0)


def test_batch_sizes_keep_the_limit_and_differ_by_at_most_one():
    sizes = [len(b) for b in epoch_batches([5] * 33, LocalSettings(batch_size=8), 0, 0)]
    assert sum(sizes) == 33
    assert max(sizes) <= 8
    assert max(sizes) - min(sizes) <= 1


def test_a_token_budget_is_kept_unless_one_row_alone_breaks_it():
    lengths = [*lengths_like_real_text(), 900]
    for batch in epoch_batches(lengths, LocalSettings(batch_tokens=500), 0, 0):
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 500


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"epochs": 2}, [5, 5]),
        ({"epochs": 1.4}, [5, 2]),
        ({"epochs": 0.01}, [1]),
        ({"epochs": 3, "max_steps": 7}, [5, 2]),
        ({"epochs": 1, "max_steps": 70}, [5]),
    ],
)
def test_steps_follow_epochs_and_the_cap(settings, steps):
    assert steps_by_epoch([9] * 20, LocalSettings(batch_size=4, **settings), seed=0) == steps


# --- the arithmetic -----------------------------------------------------------------------


def gpt2(folder, tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = None
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=256, **ends
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def textbook_loss(model, rows, pad_id):
    """Summed loss the plain way: all logits, an attention mask, labels of -100."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[pad_id] * (longest - len(row.ids))] for row in rows])
    mask = torch.tensor([[1] * len(r.ids) + [0] * (longest - len(r.ids)) for r in rows])
    labels = ids.clone()
    for i, row in enumerate(rows):
        labels[i, : row.n_prompt] = -100
        labels[i, len(row.ids) :] = -100
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "lm_head")])
def test_the_loss_equals_the_textbook_one_whatever_is_adapted(tiny, tokenizer, targets):
    rows = encode_rows(chats(6), tokenizer, {tokenizer.eos_token_id}, 256)
    base = AutoModelForCausalLM.from_pretrained(tiny)
    model = make_trainable(base, LocalSettings(targets=targets, method="dora"), seed=0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_(std=0.1)
    batch = collate(rows, tokenizer.pad_token_id, torch.device("cpu"))
    got, want = (
        summed_loss(logits_of(model, batch), batch),
        textbook_loss(model, rows, tokenizer.pad_token_id),
    )
    assert torch.allclose(got, want, rtol=1e-5)
    got.backward()
    gradients = [p.grad.clone() for p in trainable(model).values()]
    model.zero_grad()
    want.backward()
    for gradient, parameter in zip(gradients, trainable(model).values(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-3, atol=1e-4)


def test_a_gpt2_gives_the_textbook_loss_too(tmp_path, tiny):
    folder = gpt2(tmp_path / "gpt2", tiny)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = encode_rows(chats(6), tokenizer, {tokenizer.eos_token_id}, 256)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = collate(rows, tokenizer.pad_token_id, torch.device("cpu"))
    want = textbook_loss(model, rows, tokenizer.pad_token_id)
    assert torch.allclose(summed_loss(logits_of(model, batch), batch), want, rtol=1e-5)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole_batch(tiny, tokenizer):
    rows = encode_rows(chats(7), tokenizer, {tokenizer.eos_token_id}, 256)
    model = make_trainable(AutoModelForCausalLM.from_pretrained(tiny), LocalSettings(), seed=0)
    found = []
    for micro_tokens in (10_000, 100):
        model.zero_grad()
        loss = Stepper(model, tokenizer.pad_token_id, micro_tokens, False).backward(rows).loss
        found.append((loss, [p.grad.clone() for p in trainable(model).values()]))
    (loss, whole), (loss_in_pieces, pieces) = found
    assert loss == pytest.approx(loss_in_pieces, rel=1e-5)
    for a, b in zip(whole, pieces, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_adapter_that_did_not_move_is_no_proof(tiny, tokenizer):
    model = make_trainable(AutoModelForCausalLM.from_pretrained(tiny), LocalSettings(), seed=0)
    (row,) = encode_rows(chats(1), tokenizer, {tokenizer.eos_token_id}, 256)
    with pytest.raises(TrainingError, match="did not move"):
        prove_learning(model, row.ids, probe(model, row.ids))


# --- variants of LoRA ---------------------------------------------------------------------


def test_lora_plus_moves_b_by_its_ratio_faster_than_a(tiny, tokenizer):
    rows = encode_rows(chats(4), tokenizer, {tokenizer.eos_token_id}, 256)
    settings = LocalSettings(method="rsdora", loraplus_ratio=8)
    model = make_trainable(AutoModelForCausalLM.from_pretrained(tiny), settings, seed=0)
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    Stepper(model, tokenizer.pad_token_id, 10_000, False).backward(rows)
    optimizer = make_optimizer(model, settings)
    assert len({id(p) for g in optimizer.param_groups for p in g["params"]}) == len(before)
    for group in optimizer.param_groups:
        group["lr"] *= 1e-3
    optimizer.step()
    # Adam's first step is the learning rate in size, wherever there is a gradient
    moved = {n: float((p.detach() - before[n]).abs().max()) for n, p in trainable(model).items()}
    b = [size for name, size in moved.items() if "lora_B" in name]
    assert b == pytest.approx([8e-3] * len(b), rel=1e-3)
    magnitudes = [size for name, size in moved.items() if "magnitude" in name]
    assert max(magnitudes) == pytest.approx(8e-3, rel=1e-3)
    assert max(size for name, size in moved.items() if "lora_A" in name) <= 1.001e-3


def test_the_default_rates_of_a_and_b_lie_on_both_sides_of_loras():
    plain = default_learning_rate(192, LocalSettings())
    a = default_learning_rate(192, LocalSettings(loraplus_ratio=16))
    assert a < plain < 16 * a
    assert a * (16 * a) == pytest.approx(plain**2)
    both = LocalSettings(method="rsdora", r=64)
    assert default_learning_rate(192, both) == pytest.approx(plain / 8)


def test_lora_plus_needs_a_lora():
    with pytest.raises(ValueError, match="loraplus_ratio is for LoRA's matrix B"):
        LocalSettings(method="full", loraplus_ratio=4)


def test_noise_is_bounded_by_alpha_and_length_and_ends_with_the_block(tiny, tokenizer):
    rows = encode_rows(chats(6), tokenizer, {tokenizer.eos_token_id}, 256)
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    batch = collate(rows, tokenizer.pad_token_id, torch.device("cpu"))
    layer = model.get_input_embeddings()
    clean = layer(batch.input_ids)
    with noisy_embeddings(model, 5.0, rows):
        noise = layer(batch.input_ids) - clean
    for row, got in zip(rows, noise, strict=True):
        bound = 5 / (row.length * clean.shape[-1]) ** 0.5
        assert 0.98 * bound < got[: row.length].abs().max() <= bound * 1.0001
    assert torch.equal(layer(batch.input_ids), clean)


def test_noise_is_for_training_and_not_for_evaluation(tiny, tokenizer):
    rows = encode_rows(chats(6), tokenizer, {tokenizer.eos_token_id}, 256)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    plain = Stepper(model, tokenizer.pad_token_id, 10_000, False)
    noisy = dataclasses.replace(plain, neftune_alpha=50.0)
    assert noisy.evaluate(rows) == plain.evaluate(rows)
    clean = plain.backward(rows).loss
    losses = {noisy.backward(rows).loss for _ in range(2)}
    assert len(losses) == 2
    assert clean not in losses


# --- whole runs ---------------------------------------------------------------------------


LONG = {"epochs": 15, "dropout": 0.1, "patience": 15}
STEPS = 15 * 4


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """One whole run, with dropout, so that resuming must restore the random state too."""
    work = tmp_path_factory.mktemp("finished")
    run(prepared(work, job_for(tiny, **LONG)))
    return work


def test_loss_falls_and_the_result_says_what_was_done(finished, tiny):
    result = json.loads((finished / "result.json").read_text())
    assert result["dev_loss"] < result["dev_loss_before"] - 0.2
    assert result["step"] == STEPS
    base = AutoModelForCausalLM.from_pretrained(tiny)
    encoded = encode_rows(
        chats(16), tok := AutoTokenizer.from_pretrained(tiny), end_tokens(base, tok), 256
    )
    assert result["tokens"] == 15 * sum(row.length for row in encoded)
    assert result["supervised_tokens"] == 15 * sum(len(row.supervised) for row in encoded)
    assert result["proof"]["lora_b_norm"] > 0
    assert result["proof"]["logits_change"] > 0
    assert result["peak_rss_bytes"] > 50e6
    assert result["peak_gpu_bytes"] is None
    saved = adapter_weights(finished)
    assert result["trainable_parameters"] == sum(t.numel() for t in saved.values())


def test_parameters_are_counted_on_shapes_as_they_are_trained(finished, tiny):
    result = json.loads((finished / "result.json").read_text())
    shapes = make_trainable(load_shapes(tiny, None), LocalSettings(r=4), seed=0)
    assert all(p.is_meta for p in shapes.parameters())
    assert sum(p.numel() for p in trainable(shapes).values()) == result["trainable_parameters"]


def test_events_tell_each_step_and_evaluation(finished):
    told = events(finished)
    assert [e["step"] for e in told if e["event"] == "step"] == list(range(1, STEPS + 1))
    assert [e["step"] for e in told if e["event"] == "evaluation"] == list(range(4, STEPS + 1, 4))
    assert told[-1]["event"] == "done"


def test_a_finished_run_is_not_trained_again(finished):
    before = (finished / "events.jsonl").read_bytes()
    assert run(finished) == json.loads((finished / "result.json").read_text())
    assert (finished / "events.jsonl").read_bytes() == before


def test_only_the_last_two_checkpoints_and_the_best_are_kept(finished):
    best = json.loads((finished / "result.json").read_text())["best_step"]
    kept = {path.name for path in (finished / "checkpoints").iterdir()}
    assert kept == {f"step-{step}" for step in {best, STEPS - 1, STEPS}}


def start_training(work):
    return subprocess.Popen(
        [sys.executable, "-m", "tunelm.training", str(work), "--parent", str(os.getpid())],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.DEVNULL,
    )


def wait_for_checkpoint(process, work):
    """A checkpoint in the middle of an epoch is there."""
    while not list((work / "checkpoints").glob("step-*")):
        assert process.poll() is None, "training ended before its first checkpoint"
        time.sleep(0.005)


def test_a_run_killed_midway_ends_with_the_weights_of_an_undisturbed_one(finished, tiny, tmp_path):
    work = prepared(tmp_path, job_for(tiny, **LONG))
    killed = start_training(work)
    wait_for_checkpoint(killed, work)
    killed.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert killed.wait() != 0
    assert not (work / "result.json").exists()
    seen = []
    result = process.train(work, on_event=seen.append)
    assert seen[0]["event"] == "resumed"
    assert 0 < seen[0]["step"] < STEPS
    assert same(adapter_weights(work), adapter_weights(finished))
    undisturbed = json.loads((finished / "result.json").read_text())
    for key in ("dev_loss", "train_loss", "tokens", "best_step", "step"):
        assert result[key] == undisturbed[key]


def test_asked_to_stop_it_writes_a_checkpoint_and_can_go_on(tiny, finished, tmp_path):
    work = prepared(tmp_path, job_for(tiny, **LONG))
    asked = iter([False] * 5 + [True])
    with pytest.raises(TrainingError, match="after step 6 of 60"):
        run(work, stop=lambda: next(asked))
    run(work)
    assert same(adapter_weights(work), adapter_weights(finished))


ALL_TOGETHER = {"method": "rsdora", "loraplus_ratio": 4, "neftune_alpha": 5, "dropout": 0.1}


def test_all_variants_together_stopped_midway_end_as_undisturbed(tiny, tmp_path):
    job = job_for(tiny, **ALL_TOGETHER, learning_rate=2e-3)
    run(prepared(tmp_path / "whole", job))
    halted = prepared(tmp_path / "halted", job)
    asked = iter([False] * 4 + [True])
    with pytest.raises(StoppedError, match="after step 5 of 8"):
        run(halted, stop=lambda: next(asked))
    run(halted)
    assert same(adapter_weights(halted), adapter_weights(tmp_path / "whole"))
    calm = job_for(tiny, **{**ALL_TOGETHER, "neftune_alpha": None}, learning_rate=2e-3)
    run(prepared(tmp_path / "calm", calm))
    assert not same(adapter_weights(halted), adapter_weights(tmp_path / "calm"))


def test_a_rank_stabilised_dora_adapter_opens_with_the_outputs_it_was_saved_with(tiny, tmp_path):
    from tunelm.models.local import open_local

    seen = []
    job = job_for(tiny, **ALL_TOGETHER, stop_on="metric", epochs=1)

    def scorer(model, tokenizer, job, dev):
        seen.append(probe(model, range(5, 25)))
        return 1.0

    work = prepared(tmp_path, job)
    run(work, scorer=scorer)
    opened = open_local(job.model, work / "adapter")
    assert torch.allclose(probe(opened.model, range(5, 25)), seen[-1], atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tiny)
    assert not torch.allclose(probe(base, range(5, 25)), seen[-1], atol=1e-2)


def test_a_caller_can_stop_the_process_and_go_on(tiny, finished, tmp_path):
    work = prepared(tmp_path, job_for(tiny, **LONG))
    seen: list[str] = []
    with pytest.raises(StoppedError):
        process.train(work, on_event=lambda e: seen.append(e["event"]), stop=lambda: "step" in seen)
    assert not (work / "result.json").exists()
    process.train(work)
    assert same(adapter_weights(work), adapter_weights(finished))


def test_each_epoch_can_be_kept_as_an_adapter(tiny, finished, tmp_path):
    job = job_for(tiny, stop_on="none").model_copy(update={"keep_epochs": True})
    work = prepared(tmp_path, job)
    result = run(work)
    kept = [e for e in events(work) if e["event"] == "kept"]
    assert [(e["epoch"], e["step"]) for e in kept] == [(1, 4), (2, 8)]
    first, last = (load_file(work / e["folder"] / "adapter_model.safetensors") for e in kept)
    assert not same(first, last)
    assert same(last, adapter_weights(work))
    check_adapter(work / kept[0]["folder"], base_identity(tiny))
    measured = [e for e in events(work) if e["event"] == "evaluation"][-1]
    assert 0 <= measured["dev_accuracy"] <= 1
    assert measured["dev_loss"] == result["dev_loss"]


def test_changed_rows_settings_or_base_refuse_to_go_on(tiny, tmp_path):
    base = make_tiny_model(tmp_path / "base")
    work = prepared(tmp_path / "work", job_for(base))
    with pytest.raises(TrainingError, match="after step 1"):
        run(work, stop=lambda: True)
    with pytest.raises(TrainingError, match=r"train\.jsonl changed"):
        write_job(work, job_for(base), chats(17), chats(4, 90))
    rows = (work / "train.jsonl").read_text()
    (work / "train.jsonl").write_text(rows.replace("number 3", "number 4"))
    with pytest.raises(TrainingError, match="rows changed"):
        run(work)
    (work / "train.jsonl").write_text(rows)
    job = (work / "job.json").read_text()
    (work / "job.json").write_text(job.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(TrainingError, match=r"job\.json changed"):
        run(work)
    (work / "job.json").write_text(job)
    make_tiny_model(base, seed=1)
    with pytest.raises(TrainingError, match="base model changed"):
        run(work)


def test_a_diverging_run_fails_loudly_and_leaves_no_adapter(tiny, tmp_path):
    work = prepared(tmp_path, job_for(tiny, learning_rate=1e38))
    with pytest.raises(TrainingError, match=r"nan|inf"):
        run(work)
    assert not (work / "adapter").exists()


def test_a_broken_base_fails_the_process_loudly_and_leaves_no_adapter(tmp_path):
    work = prepared(tmp_path / "work", job_for(broken_model(tmp_path / "base")))
    with pytest.raises(TrainingError, match=r"^the dev loss is nan"):
        process.train(work)
    assert not (work / "adapter").exists()
    assert not (work / "result.json").exists()


def test_training_stops_early_and_restores_the_best_weights(tiny, tmp_path):
    # answers to dev that contradict train: dev loss must rise sooner or later
    train = chats(4)
    wrong = [Message("assistant", "zzzz zzz zzzzzz zzz!") for _ in train]
    dev = [
        dataclasses.replace(row, messages=(*row.messages[:-1], answer))
        for row, answer in zip(train, wrong, strict=True)
    ]
    settings = {"epochs": 200, "learning_rate": 2e-2, "patience": 2}
    result = run(prepared(tmp_path, job_for(tiny, **settings), train, dev))
    assert result["stopped_early"]
    assert result["best_step"] < result["step"] < 200
    told = [e for e in events(tmp_path) if e["event"] == "evaluation"]
    assert result["best_value"] == min(e["dev_loss"] for e in told)
    best = load_file(
        tmp_path / "checkpoints" / f"step-{result['best_step']}" / "weights.safetensors"
    )
    saved = adapter_weights(tmp_path)
    trained = {
        name.removeprefix("weights/").replace(".default", ""): tensor
        for name, tensor in best.items()
        if name.startswith("weights/")
    }
    assert same(trained, saved)


def test_the_metric_of_generated_answers_can_stop_training(tiny, tmp_path):
    scores = iter([0.1, 0.4, 0.3, 0.2, 0.9])
    job = job_for(tiny, epochs=5, stop_on="metric", patience=2)
    result = run(prepared(tmp_path, job), scorer=lambda *_: next(scores))
    assert (result["best_value"], result["best_step"], result["step"]) == (0.4, 8, 16)
    with pytest.raises(TrainingError, match="needs a scorer"):
        run(prepared(tmp_path / "other", job))


@pytest.mark.parametrize("method", ["rslora", "dora", "rsdora"])
def test_variants_and_models_without_chat_template_train(tiny, tmp_path, method):
    base = gpt2(tmp_path / "gpt2", tiny)
    job = job_for(base, method=method, stop_on="none", max_steps=3, batch_tokens=400)
    result = run(prepared(tmp_path / "work", job))
    assert result["step"] == 3
    assert result["best_step"] is None
    assert result["dev_loss"] < result["dev_loss_before"]


def test_an_unknown_target_names_the_layers_there_are(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"wqkv.*down_proj"):
        run(prepared(tmp_path, job_for(tiny, targets=("wqkv",))))


def test_broken_rows_are_named_by_file_and_line(tiny, tmp_path):
    work = prepared(tmp_path, job_for(tiny))
    with (work / "train.jsonl").open("a") as file:
        file.write('{"id": "no messages"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl:17"):
        run(work)


def test_training_does_not_outlive_its_parent(tiny, tmp_path):
    """The parent is killed; the training it started writes a checkpoint and ends."""
    work = prepared(tmp_path, job_for(tiny, epochs=100_000, stop_on="none"))
    script = f"""
from pathlib import Path
from tunelm.training import process
process.train(Path({str(work)!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    wait_for_checkpoint(parent, work)
    child = int((work / "heartbeat").read_text().split()[0])
    parent.kill()
    parent.wait()
    import psutil

    def running():
        return psutil.pid_exists(child) and psutil.Process(child).status() != "zombie"

    until = time.monotonic() + 120
    while running():
        assert time.monotonic() < until, "the training process lives on"
        time.sleep(0.02)
    assert not (work / "result.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_signals_on_top_of_each_other_end_a_training(tiny, tmp_path):
    """A cluster, the parent and the system may all send one, while the first is being handled."""
    work = prepared(tmp_path, job_for(tiny, epochs=100_000, stop_on="none"))
    child = start_training(work)
    try:
        wait_for_checkpoint(child, work)
        for _ in range(2000):
            child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 130
    finally:
        child.kill()
    assert not (work / "result.json").exists()


# --- the identity of a base ---------------------------------------------------------------


def test_an_adapter_carries_its_base_prompt_and_settings(finished, tiny):
    card = json.loads((finished / "adapter" / "tunelm.json").read_text())
    assert card["identity"] == base_identity(tiny)
    assert card["settings"]["r"] == 4
    check_adapter(finished / "adapter", base_identity(tiny))


@pytest.mark.parametrize(
    ("part", "words"),
    [("weights", "its weights"), ("tokenizer", "its tokenizer"), ("template", "chat template")],
)
def test_another_base_is_refused_by_what_differs(tiny, finished, tmp_path, part, words):
    other = make_tiny_model(tmp_path / "other", seed=1 if part == "weights" else 0)
    if part == "tokenizer":
        path = other / "tokenizer.json"
        path.write_text(path.read_text().replace('"single_word": false', '"single_word": true', 1))
    if part == "template":
        (other / "chat_template.jinja").write_text(PLAIN_TEMPLATE)
    with pytest.raises(ModelError, match=words) as caught:
        check_adapter(finished / "adapter", base_identity(other))
    assert str(caught.value).count(" then, ") == 1


def test_the_same_base_elsewhere_is_the_same(tiny, tmp_path):
    check_identity(base_identity(tiny), base_identity(make_tiny_model(tmp_path / "copy")))


def test_an_adapter_without_identity_is_refused(tiny, tmp_path):
    with pytest.raises(ModelError, match=r"no tunelm\.json"):
        check_adapter(tmp_path, base_identity(tiny))
