"""Prices, providers and token counts: dated, with sources, and unknown where nobody knows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tunelm.cli import cli
from tunelm.config import BudgetConfig, ModelConfig, TaskConfig
from tunelm.data.openai_tokens import count_openai_tokens
from tunelm.errors import BudgetError, ConfigError, DataError, PrerequisiteError
from tunelm.models import remote
from tunelm.price_list import condense, price_list, update, updated_path
from tunelm.prices import (
    Price,
    estimate_training,
    inference_price,
    listed_prices,
    shutdown_date,
    training_price,
)
from tunelm.providers import check, find, presets
from tunelm.route_settings import BaselineSettings
from tunelm.routes import baseline
from tunelm.routes.base import FitContext
from tunelm.types import Example, Message

TODAY = date(2026, 11, 21)
KEYS = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "input_cost_per_token_batches",
    "output_cost_per_token_batches",
)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def raw_list(scale: float = 1.0, every: int = 1) -> dict[str, Any]:
    """The bundled list in the form of LiteLLM's, with every n-th model, its prices scaled."""
    raw: dict[str, Any] = {"sample_spec": {"litellm_provider": "one of ...", "mode": "one of ..."}}
    names = {"together": "together_ai", "fireworks": "fireworks_ai", "cohere": "cohere_chat"}
    for provider, models in price_list().models.items():
        theirs = names.get(provider, provider)
        for model, row in list(models.items())[::every]:
            entry: dict[str, Any] = {"litellm_provider": theirs, "mode": "chat"}
            for key, value in zip(KEYS, row, strict=False):
                entry[key] = value and value * scale / 1e6
            key = model if provider in ("openai", "anthropic") else f"{theirs}/{model}"
            raw[key] = entry
    return raw


def write(path: Path, raw: object) -> str:
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    return str(path)


# ---- the tables


def test_every_price_has_a_source_and_a_day_and_none_is_zero():
    result = run("prices", "--json")
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert len(found["training"]) > 40
    assert len(found["inference"]) > 1000
    for row in [*found["training"], *found["inference"]]:
        assert row["source"]
        assert date.fromisoformat(row["as_of"]) <= date.today()
        assert row["verified"] in (True, False)
        assert row["stale"] == ((date.today() - date.fromisoformat(row["as_of"])).days > 90)
        figures = [v for k, v in row.items() if k == "value" or k.startswith("usd_")]
        assert all(value is None or 0 < value <= 10_000 for value in figures)


def test_prices_are_shown_with_their_sources():
    everything = run("prices").output
    assert "gpt-4o-mini-2024-07-18" in everything
    assert "stale: older than 90 days" in everything
    assert "unknown" in everything  # Azure's
    one = run("prices", "gpt-4o-mini").output
    assert "3.00" in one
    assert "ft:gpt-4o-mini-2024-07-18" in one
    assert "2027-01-14" in one
    assert "LiteLLM's price list" in one
    assert "https://platform.openai.com/docs/pricing" in one


def test_a_model_without_a_price_is_said_with_the_closest_name():
    error = run("prices", "gpt-4o-minni").exception
    assert isinstance(error, ConfigError)
    assert "Did you mean gpt-4o-mini" in str(error)
    error = run("prices", "gpt-4o", "--as-of", "2026-11-01").exception
    assert "give --update" in str(error)


@pytest.mark.parametrize(
    ("provider", "model", "method", "value"),
    [
        ("openai", "gpt-4.1-2025-04-14", "supervised", 25.0),
        ("openai", "gpt-4.1-mini", "supervised", 5.0),
        ("openai", "gpt-3.5-turbo-0125", "supervised", 8.0),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org:suffix:id", "supervised", 3.0),
        ("openai", "o4-mini", "reinforcement", 100.0),
        ("crusoe", "meta-llama/Llama-3.1-8B-Instruct", "supervised", 0.4),
        ("fireworks", "qwen3-14b", "supervised", 0.5),
        ("fireworks", "mixtral-8x7b", "supervised", 3.0),
        ("fireworks", "kimi-1000b", "supervised", 10.0),
        ("nebius", "Qwen/Qwen3-0.6B", "supervised", 0.4),
        ("nebius", "Qwen/Qwen3-30B-A3B", "supervised", 2.8),
        ("together", "Llama-3.3-70B-Instruct", "dpo-full", 8.0),
    ],
)
def test_training_prices_by_name_and_by_size(provider, model, method, value):
    price = training_price(provider, model, method)
    assert price is not None
    assert price.value == value


@pytest.mark.parametrize(
    ("provider", "model", "method"),
    [
        ("local", "tunelm-nano", "supervised"),
        ("openai", "gpt-4o-2024-05-13", "supervised"),
        ("openai", "gpt-4o-mini", "dpo"),
        ("fireworks", "a-model-of-unknown-size", "supervised"),
        ("together", "llama-405b", "supervised"),
        ("nobody", "gpt-4o", "supervised"),
    ],
)
def test_an_unknown_training_price_is_none(provider, model, method):
    assert training_price(provider, model, method) is None


def test_a_price_that_was_looked_for_and_not_found_says_where():
    price = training_price("azure", "gpt-4o-mini")
    assert price is not None
    assert price.value is None
    assert price.describe(TODAY).startswith("unknown USD per 1M tokens (https://learn.microsoft")


def test_a_price_is_stale_after_ninety_days_and_says_so():
    price = Price("p", "m", "supervised", 2.0, "USD per 1M tokens", "a page", TODAY, False)
    assert not price.stale(TODAY + timedelta(days=90))
    assert price.stale(TODAY + timedelta(days=91))
    told = price.describe(TODAY + timedelta(days=91))
    assert told == (
        "2 USD per 1M tokens (a page, 2026-11-21, stale: older than 90 days, not verified)"
    )


# ---- what answers cost


def test_prices_of_answers_are_found_by_name_provider_and_fine_tune():
    mini = inference_price("gpt-4o-mini-2024-07-18")
    assert mini == inference_price("openai/gpt-4o-mini-2024-07-18")
    assert mini == inference_price("gpt-4o-mini-2024-07-18", "openai")
    assert mini is not None
    assert (mini.usd_in, mini.usd_cached_in, mini.usd_out) == (0.15, 0.075, 0.6)
    tuned = inference_price("ft:gpt-4o-mini-2024-07-18:org:suffix:id:ckpt-step-9")
    assert tuned is not None
    assert (tuned.usd_in, tuned.usd_cached_in, tuned.usd_out) == (0.3, 0.15, 1.2)
    assert (tuned.usd_batch_in, tuned.usd_batch_out) == (0.15, 0.6)
    azure = inference_price("gpt-4o-mini-2024-07-18", "azure")
    assert azure is not None
    assert azure.provider == "azure"
    assert inference_price("nebius/meta-llama/Llama-3.3-70B-Instruct") is not None


@pytest.mark.parametrize("model", ["llama3.2:1b", "ft:unheard-of:org::id", "local/tunelm-nano", ""])
def test_an_unknown_price_of_answers_is_none(model: str):
    assert inference_price(model) is None
    assert shutdown_date(model) is None


def test_shutdown_dates_are_those_of_the_base():
    assert shutdown_date("gpt-4.1-nano-2025-04-14") == date(2026, 10, 23)
    assert shutdown_date("ft:gpt-4.1-mini-2025-04-14:org:x:y") == date(2027, 1, 14)


def test_a_zero_in_the_list_is_unknown_and_a_step_in_price_is_kept():
    raw = {
        "gpt-free": {"litellm_provider": "openai", "mode": "chat", KEYS[0]: 0, KEYS[1]: 0.0},
        "gpt-half": {"litellm_provider": "openai", "mode": "chat", KEYS[0]: 1e-6, KEYS[1]: 0},
        "gpt-long": {
            "litellm_provider": "openai",
            "mode": "chat",
            KEYS[0]: 1e-6,
            KEYS[1]: 2e-6,
            "input_cost_per_token_above_200k_tokens": 2e-6,
            "input_cost_per_token_above_128k_tokens": 2e-6,
        },
        "gpt-image": {"litellm_provider": "openai", "mode": "image_generation", KEYS[0]: 1e-6},
        "unheard/of": {"litellm_provider": "unheard", "mode": "chat", KEYS[0]: 1e-6},
    }
    models = condense(raw, TODAY, "test").models["openai"]
    assert dict(models) == {
        "gpt-half": [1.0],
        "gpt-long": [1.0, 2.0, None, None, None, 128_000],
    }


def test_an_updated_list_is_used_from_then_on(tmp_path: Path):
    raw = raw_list()
    raw["gpt-9"] = {
        "litellm_provider": "openai",
        "mode": "chat",
        KEYS[0]: 7e-6,
        KEYS[1]: 9e-6,
        "deprecation_date": "2031-05-06",
    }
    assert inference_price("gpt-9") is None
    file = write(tmp_path / "list.json", raw)
    assert "give --as-of" in str(run("prices", "--update", file).exception)
    result = run("prices", "--update", file, "--as-of", str(date.today()))
    assert result.exit_code == 0, result.exception
    assert str(date.today()) in result.output
    price = inference_price("gpt-9")
    assert price is not None
    assert (price.usd_in, price.usd_out, price.shutdown) == (7.0, 9.0, date(2031, 5, 6))
    assert price.as_of == date.today()
    assert updated_path().is_file()
    assert [p.name for p in updated_path().parent.iterdir()] == ["prices.json"]


@pytest.mark.parametrize(
    ("content", "error", "found"),
    [
        ("<html>", DataError, "not JSON"),
        ("[1]", DataError, "not a JSON object"),
        ("{}", DataError, "cut short"),
        ({"a": 1, "b": 2}, DataError, "cannot be right"),
        ("cut", DataError, "cut short"),
        ("another unit", DataError, "another unit"),
        ("old", DataError, "--as-of"),
        ("early", DataError, "a day yet to come"),
        ("[" * 100_000, DataError, "not JSON"),
        ("missing", PrerequisiteError, "no such file"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_not_taken(tmp_path: Path, content, error, found):
    made = {"cut": raw_list(every=3), "another unit": raw_list(20), "old": raw_list(), "early": {}}
    path = tmp_path / "list.json"
    if content != "missing":
        write(path, made.get(content, content) if isinstance(content, str) else content)
    before = inference_price("gpt-4o")
    days = {"old": date(2025, 1, 1), "early": date.today() + timedelta(days=2)}
    with pytest.raises(error, match=found) as refused:
        update(str(path), days.get(str(content), date.today()))
    assert "\n" not in str(refused.value)
    assert not updated_path().exists()
    assert inference_price("gpt-4o") == before


@pytest.mark.parametrize(
    "wrong", [-1e-6, 2.0, "free", True, float("nan"), [1], 10**400], ids=lambda w: str(w)[:9]
)
def test_single_wrong_entries_are_left_out_and_many_refuse_the_list(tmp_path: Path, wrong):
    raw = raw_list()
    raw["gpt-4o"][KEYS[0]] = wrong
    update(write(tmp_path / "list.json", raw), date.today())
    assert inference_price("gpt-4o") is None
    for key in list(raw)[1:40]:
        raw[key][KEYS[0]] = wrong
    with pytest.raises(DataError, match="entries cannot be right"):
        update(write(tmp_path / "list.json", raw), date.today())


def test_a_damaged_updated_list_is_said_and_how_to_mend_it():
    updated_path().parent.mkdir(parents=True, exist_ok=True)
    updated_path().write_text('{"as_of": ')
    with pytest.raises(DataError, match=r"no price list. Remove it"):
        inference_price("gpt-4o")


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/list.json"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_list_is_fetched_from_an_address():
    with serving(200, json.dumps(raw_list(2.0)).encode()) as url:
        fresh = update(url)
    assert (fresh.as_of, fresh.url) == (date.today(), url)
    price = inference_price("gpt-4o-mini")
    assert price is not None
    assert price.usd_in == 0.3
    with serving(404, b"") as url, pytest.raises(PrerequisiteError, match="HTTP 404"):
        update(url)
    with pytest.raises(PrerequisiteError, match="The list in use stays") as refused:
        update(url)  # nobody there any more
    assert "\n" not in str(refused.value)
    assert inference_price("gpt-4o-mini") == price


# ---- forecasts of a job


def test_a_job_is_forecast_from_tokens_epochs_and_price():
    price = training_price("openai", "gpt-4o-mini")
    found = estimate_training([500] * 1000, 3, price, TODAY)
    assert found.value == pytest.approx(4.5)
    assert found.low == pytest.approx(4.05)
    assert found.high == pytest.approx(4.95)
    assert "500,000 tokens x 3 epochs x 3 USD per 1M tokens" in found.method
    assert "stale" in found.method
    exact = estimate_training([100, 900], 1, price, TODAY, limit=500, margin=0)
    assert exact.value == exact.low == exact.high == pytest.approx(600 * 3 / 1e6)


def test_epochs_left_to_the_provider_make_a_wide_range():
    found = estimate_training([1000] * 10, None, training_price("openai", "gpt-4o"), TODAY)
    assert found.value == pytest.approx(10 * 0.25)  # ten epochs, so that 100 examples are seen
    assert found.low == pytest.approx(1 * 0.25 * 0.9)
    assert found.high == pytest.approx(25 * 0.25 * 1.1)
    assert "the provider chooses" in found.method


@pytest.mark.parametrize(
    ("tokens", "price", "reason"),
    [
        (None, training_price("openai", "gpt-4o"), "unknown: no vocabulary"),
        ([5], None, "unknown: no price of this training is known"),
        ([5], training_price("azure", "gpt-4o"), "unknown: unknown USD per 1M tokens (https"),
        ([5], training_price("openai", "o4-mini", "reinforcement"), "unknown: 100 USD per hour"),
    ],
)
def test_what_is_unknown_makes_the_forecast_unknown(tokens, price, reason):
    found = estimate_training(tokens, 3, price, TODAY, reason="no vocabulary")
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.method.startswith(reason)


CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "You are a terse teacher."},
    {"role": "user", "content": "Pourquoi le ciel est-il bleu ? 空はなぜ青いの?", "name": "Ann"},
    {"role": "assistant", "content": "La diffusion de Rayleigh.", "weight": 0},
]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("ft:gpt-3.5-turbo-0125:org::id", "cl100k_base"),
    ],
)
def test_tokens_are_counted_as_openai_counts_them(model: str, name: str):
    counts, reason = count_openai_tokens([{"messages": CHAT}], model)
    if counts is None:
        pytest.skip(reason)
    tiktoken = pytest.importorskip("tiktoken")
    encoding = tiktoken.get_encoding(name)  # loaded by now
    expected = 3 + sum(3 + len(encoding.encode(m["role"] + "")) for m in CHAT) + 1
    expected += sum(len(encoding.encode(m["content"])) for m in CHAT)
    assert counts == [expected + len(encoding.encode("Ann"))]


def test_tool_calls_count_and_a_weight_does_not():
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [call], "weight": 1}]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    rows = [
        {"messages": CHAT},
        {"messages": [{k: v for k, v in m.items() if k != "weight"} for m in CHAT]},
        {"messages": asked},
        {"messages": asked, "tools": tools},
    ]
    counts, reason = count_openai_tokens(rows, "gpt-4o")
    if counts is None:
        pytest.skip(reason)
    plain, unweighted, called, declared = counts
    assert plain == unweighted < called < declared


def test_tokens_are_unknown_without_a_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    counts, reason = count_openai_tokens([{"messages": CHAT}], "gpt-4o")
    assert counts is None
    assert "TIKTOKEN_CACHE_DIR" in reason or "not installed" in reason


# ---- providers


@pytest.mark.parametrize(
    ("provider", "model", "today", "accepted", "found"),
    [
        ("openai", "gpt-4o-mini", TODAY, None, "in 54 days .*--accept-shutdown 2027-01-14"),
        ("openai", "gpt-4o-mini", TODAY, date(2027, 1, 15), r"got 2027-01-15"),
        ("openai", "gpt-4.1-nano-2025-04-14", TODAY, None, "ended on 2026-10-23"),
        ("openai", "ft:gpt-3.5-turbo-0125:o::i", TODAY, None, "ended on 2026-10-23"),
        ("openai", "gpt-4o", date(2027, 1, 6), date(2027, 1, 14), "no new fine-tuning job since"),
        ("https://api.openai.com/v1/", "gpt-4o", TODAY, None, "accept-shutdown 2027-01-14"),
        ("openai", "gpt-5-2025-08-07", TODAY, None, "ends on 2026-12-11, in 20 days"),
        ("azure", "gpt-4.1-mini", date(2027, 10, 14), None, "ended on 2027-10-14"),
        ("together", "Llama-3.3-70B", TODAY, None, "a shape of its own"),
        ("fireworks", "qwen3-14b", TODAY, None, "a shape of its own"),
        ("bedrock", "openai.gpt-oss-20b", TODAY, None, "by reinforcement, not by supervised"),
        ("opnai", "gpt-4o", TODAY, None, "Did you mean 'openai'"),
        ("", "gpt-4o", TODAY, None, "no provider ''"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_one_line(provider, model, today, accepted, found):
    with pytest.raises(ConfigError, match=found) as refused:
        check(provider, model, today, accepted)
    assert "\n" not in str(refused.value)


def test_what_one_must_know_first_is_said():
    notes = "\n".join(check("openai", "gpt-4o-mini", TODAY, date(2027, 1, 14)))
    assert "never fine-tuned" in notes
    assert "takes no new job from 2027-01-06 on" in notes
    assert "ends on 2027-01-14, in 54 days" in notes
    assert "not verified" in notes
    notes = "\n".join(check("crusoe", "openai/gpt-oss-12b", TODAY))
    assert "Did you mean 'openai/gpt-oss-120b'?" in notes
    assert any("stale" in note for note in check("azure", "gpt-4o", TODAY))
    assert "no bill" in " ".join(check("local", "tunelm-nano", date(2030, 1, 1)))


def test_sixty_days_before_its_end_a_model_may_still_be_tuned_unasked():
    assert check("azure", "gpt-4o", date(2027, 8, 1))
    with pytest.raises(ConfigError, match="in 60 days"):
        check("azure", "gpt-4o", date(2027, 8, 2))


def test_providers_are_found_by_name_and_address():
    custom = find("http://127.0.0.1:8000/v1/")
    assert (custom.base_url, custom.pause, custom.hyperparameters) == (
        "http://127.0.0.1:8000/v1",
        None,
        {},
    )
    assert check("http://127.0.0.1:8000/v1", "any-model", TODAY) == ()
    mine = find("https://my-resource.openai.azure.com/openai/v1")
    assert (mine.name, mine.address()) == (
        "azure",
        "https://my-resource.openai.azure.com/openai/v1",
    )
    with pytest.raises(ConfigError, match="with your own resource for RESOURCE"):
        find("azure").address()
    assert find("azure").address("https://r.openai.azure.com/openai/v1").startswith("https://r.")
    assert find("local").address() is None


def test_hyperparameters_are_held_against_what_the_provider_takes():
    openai = find("openai")
    fine = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.1}
    openai.check_hyperparameters(fine)
    find("http://127.0.0.1:8000/v1").check_hyperparameters({"anything": 7})
    for wrong, found in [
        ({"n_epochs": 51}, "at least 1, at most 50"),
        ({"n_epochs": 0}, "at least 1"),
        ({"batch_size": "all"}, "Valid: auto"),
        ({"learning_rate_multiplier": 0}, "above 0"),
        ({"learning_rate": 1e-5}, "no hyperparameter 'learning_rate'"),
    ]:
        with pytest.raises(ConfigError, match=found):
            openai.check_hyperparameters(wrong)
    with pytest.raises(ConfigError, match="Valid: n_epochs, batch_size, learning_rate"):
        find("nebius").check_hyperparameters({"learning_rate_multiplier": 1.0})


def test_models_are_listed_with_what_is_known_of_each_provider():
    shown = run("models")
    assert shown.exit_code == 0, shown.exception
    for name in ("tunelm-nano", *presets()):
        assert name in shown.output
    assert "gone since 2026-10-23" in shown.output
    assert "together is not supported" in shown.output
    found = json.loads(run("models", "--json").output)
    nano = next(m for m in found["bundled"] if m["name"] == "tunelm-nano")
    assert 3_000_000 < nano["parameters"] < 4_000_000
    openai = next(p for p in found["providers"] if p["name"] == "openai")
    assert openai["jobs_end"] == "2027-01-06"
    assert all(model["source"] and model["as_of"] for model in openai["models"])


# ---- a model behind an API


def plan_at(base_url: str, folder: Path, spend: bool = False, **more: object):
    settings = BaselineSettings.model_validate(
        {"model": "gpt-4o-mini", "base_url": base_url, **more}
    )
    rows = [Example("1", (Message("user", "Now?"),), ("Yes",), "1")]
    context = FitContext(
        name="api",
        metric="token_f1",
        train=rows,
        dev=rows,
        work=folder,
        task=TaskConfig(name="t"),
        model=ModelConfig(),
        budget=BudgetConfig(spend=spend),
    )
    return baseline.BaselineRoute(settings), context


def test_a_known_endpoint_has_the_lists_price_named_and_still_needs_leave(tmp_path: Path):
    update(write(tmp_path / "list.json", raw_list()), date.today())
    route, context = plan_at("https://api.openai.com/v1", tmp_path)
    plan = route.plan(context)
    tokens = (
        plan.forecasts["prompt_tokens_dev"].value,
        plan.forecasts["completion_tokens_dev"].value,
    )
    usd = plan.forecasts["usd_dev"]
    assert usd.value == pytest.approx((tokens[0] * 0.15 + tokens[1] * 0.6) / 1e6)  # type: ignore
    assert "LiteLLM's price list" in usd.method
    assert any("reckoned by 0.15 in, 0.6 out" in note for note in plan.notes)
    with pytest.raises(BudgetError, match="--spend"):
        route.fit(context)
    route, context = plan_at("https://api.openai.com/v1", tmp_path, spend=True)
    with pytest.raises(BudgetError, match="max_usd is 0"):
        route.fit(context)


def test_a_price_of_ones_own_comes_first_and_an_unknown_host_stays_unknown(tmp_path: Path):
    given = {"usd_per_million_in": 8.0, "usd_per_million_out": 8.0}
    route, context = plan_at("https://api.openai.com/v1", tmp_path, **given)
    assert "the prices given" in route.plan(context).forecasts["usd_dev"].method
    for url in ("https://gateway.example/v1", "https://x.openai.azure.com/openai/v1"):
        route, context = plan_at(url, tmp_path, spend=True)
        assert route.plan(context).forecasts["usd_dev"].value is None
        with pytest.raises(BudgetError, match="is unknown"):
            route.fit(context)


def test_a_stale_price_pays_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Later(date):
        @classmethod
        def today(cls) -> date:
            return date.today() + timedelta(days=400)

    monkeypatch.setattr(remote, "date", Later)
    route, context = plan_at("https://api.openai.com/v1", tmp_path, spend=True)
    assert route.plan(context).forecasts["usd_dev"].value is None
    with pytest.raises(BudgetError, match="is unknown"):
        route.fit(context)


def test_all_prices_are_named_once():
    seen = [(p.provider, p.model, p.method, p.unit) for p in listed_prices()]
    assert len(seen) == len(set(seen))
