"""The chat page of `tunelm serve` in a real browser: talk, found again, votes, keys alone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tunelm.chat.store import ChatStore
from tunelm.server.app import create_app
from tunelm.server.batch import Batch
from tunelm.server.settings import ServerSettings
from tunelm.testing import ScriptedModel

from .browser import chromium, contrasts
from .serving import listening, slowly

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
expect.set_options(timeout=20_000)

SHOTS = os.environ.get("TUNELM_SHOTS")
"""A folder for pictures of the page; none are taken without it."""
QUESTION = "What is a list in Python?"
OTHER = "tunelm-nano-terse"
EVIL = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'


@dataclasses.dataclass
class Place:
    """A running server and the browser that looks at it."""

    url: str
    app: Any
    browser: Any
    state: Path

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}/chat/api/{path}", timeout=60, **options)


@dataclasses.dataclass
class SlowServer:
    process: subprocess.Popen[bytes]
    ready: Path

    def url(self) -> str:
        while not self.ready.exists():
            assert self.process.poll() is None
            time.sleep(0.05)
        return json.loads(self.ready.read_text())["url"].removesuffix("/v1")


SLOW = """
import time
import tunelm.server.engine
from tunelm.cli import main
from tunelm.server.batch import Batch
step = Batch.step
Batch.step = lambda self, new: (time.sleep(0.15), step(self, new))[1]
tunelm.server.engine.end_tokens = lambda model, tokenizer: set()
main()
"""


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowServer]:
    """A server with an endless model, in a process of its own; it starts while other tests run."""
    state = tmp_path_factory.mktemp("slow")
    ready = state / "ready.json"
    command = [sys.executable, "-c", SLOW, "serve", "--no-train", "--state", str(state)]
    command += ["--ready-file", str(ready), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield SlowServer(process, ready)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def place(slow_server: SlowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    state = tmp_path_factory.mktemp("chat") / "state"
    settings = ServerSettings(
        "tunelm-nano", state, train=False, chat=True, contact="Call 0800 1111, at any hour."
    )
    with chromium() as browser:
        app = create_app(settings)
        catalog = app.state.target.catalog
        base = catalog.get("tunelm-nano")
        catalog.add(dataclasses.replace(base, id=OTHER, system="Answer in a few words."))
        with listening(app) as url:
            yield Place(url.removesuffix("/v1"), app, browser, state)


@contextmanager
def looking(place: Place, path: str = "/", **options: Any) -> Iterator[Any]:
    """A page, and at its end: no error in it, and no request to anywhere else."""
    context = place.browser.new_context(**{"reduced_motion": "reduce", **options})
    context.set_default_timeout(20_000)
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: "Content Security" in said.text and wrong.append(said.text))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(place.url + path)
        page.wait_for_selector("#model option, dialog[open]", state="attached")
        yield page
        assert wrong == []
        assert [url for url in asked if not url.startswith((place.url, "blob:"))] == []
    finally:
        context.close()


@pytest.fixture
def page(place: Place) -> Iterator[Any]:
    with looking(place) as page:
        yield page


@pytest.fixture(autouse=True)
def emptied(place: Place) -> Iterator[None]:
    """Each test begins with no conversations."""
    yield
    place.api("DELETE", "conversations")


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def say(page: Any, text: str) -> None:
    """Send a message and wait for the whole answer."""
    before = page.locator(".tools, .vote").count()
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".tools, .vote")).to_have_count(before + 1)


def answers(page: Any) -> list[str]:
    return page.locator(".turn:not(.own) > .text").all_inner_texts()


def tutor(page: Any, problem: str = "What is 7 times 8?", solution: str = "56") -> None:
    """Choose the tutor and one's own problem."""
    page.get_by_label("Learn with a tutor").check()
    page.get_by_role("combobox", name="Problem").select_option("own")
    page.get_by_label("Your problem").fill(problem)
    page.get_by_label("Its solution").fill(solution)


@pytest.fixture
def endless(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that writes until its limit of tokens, for more than half a minute."""
    slowly(place.app, monkeypatch)


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """A model that writes a token for each release of this, and all the rest after the test."""
    step, tokens = Batch.step, threading.Semaphore(0)

    def when_let(self: Batch, new: Any) -> Any:
        tokens.acquire()
        return step(self, new)

    monkeypatch.setattr(Batch, "step", when_let)
    yield tokens
    tokens.release(1000)


# --- a conversation -----------------------------------------------------------------------------

HEARD = """() => {
  window.heard = [];
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes) {
      const hidden = change.target.parentElement.closest("[aria-hidden]") ||
        change.target.closest("[aria-hidden]");
      if (!hidden && node.nodeName === "SPAN" && !node.closest(".head, button")) {
        window.heard.push(node.textContent);
      }
    }
  }).observe(document.getElementById("log"), { childList: true, subtree: true });
}"""
"""Keeps what a screen reader is given of an answer, piece by piece."""


def test_an_answer_streams_sentence_by_sentence_and_is_found_again(
    place: Place, page: Any, tap: threading.Semaphore
):
    page.evaluate(HEARD)
    page.get_by_label("Message", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    tap.release(8)
    text = page.locator(".turn:not(.own) > .text")
    expect(text).to_contain_text(re.compile(r"\w+ \w+"))
    begun = text.inner_text()
    tap.release(8)
    expect(text).to_contain_text(re.compile(rf"{re.escape(begun)}.*\w+ \w+"))
    grown = text.inner_text()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    tap.release(1000)
    expect(page.locator(".tools")).to_be_visible(timeout=30_000)
    whole = text.inner_text()
    assert len(begun) < len(grown) < len(whole)
    assert whole.startswith(grown)

    heard = page.evaluate("window.heard")
    assert "".join(heard).strip() == whole.strip()
    assert all(re.search(r"[.!?…:\n]\s*$", sentence) for sentence in heard[:-1])
    expect(page.get_by_role("log", name="Conversation")).to_have_attribute("aria-live", "polite")

    id = page.url.partition("#")[2]
    kept = place.api("GET", f"conversations/{id}").json()
    assert [turn["text"] for turn in kept["turns"]] == [QUESTION, whole]
    shot(page, "light")
    page.reload()
    expect(page.get_by_role("heading", level=2, name=QUESTION)).to_be_visible()
    assert answers(page) == [whole]
    say(page, "Explain what a loop does.")
    assert place.api("GET", f"conversations/{id}").json()["turns"][2]["role"] == "user"


def test_conversations_are_searched_renamed_exported_and_deleted(place: Place, page: Any):
    say(page, "How many legs has a spider?")
    page.get_by_role("link", name="New conversation").click()
    say(page, QUESTION)
    past = page.get_by_role("navigation", name="Past conversations").get_by_role("link")
    expect(past).to_have_count(2)
    page.get_by_label("Search conversations").fill("SPIDER")
    expect(past).to_have_count(1)
    expect(page.locator("#found")).to_have_text("1 found")
    past.click()
    expect(page.locator(".own")).to_have_text(re.compile("spider"))
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Eight legs")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_have_text("Eight legs")
    page.get_by_label("Search conversations").fill("eight")
    expect(past).to_contain_text(["Eight legs"])

    said = place.api("GET", f"conversations/{page.url.partition('#')[2]}").json()["turns"]
    for form, ending in (("Markdown", "md"), ("JSON", "json"), ("JSON Lines", "jsonl")):
        page.get_by_role("button", name="Export", exact=True).click()
        with page.expect_download() as download:
            page.locator("#export-forms").get_by_role("button", name=form, exact=True).click()
        assert download.value.suggested_filename == f"conversation.{ending}"
        text = Path(download.value.path()).read_text(encoding="utf-8")
        if form == "Markdown":
            assert text.startswith("# Eight legs")
        else:
            texts = [turn["text"] for turn in json.loads(text)["turns"]]
            assert texts == [turn["text"] for turn in said]

    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("New conversation")
    assert [one["title"] for one in place.api("GET", "conversations").json()["conversations"]] == [
        QUESTION
    ]
    page.get_by_text("All conversations").click()
    page.get_by_role("button", name="Delete all…").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
    expect(page.locator("#found")).to_have_text(re.compile("No|Nothing"))
    assert place.api("GET", "conversations").json()["conversations"] == []


def test_thumbs_become_training_rows_and_an_answer_can_be_had_again(place: Place, page: Any):
    say(page, QUESTION)
    first = answers(page)[0]
    down = page.get_by_role("button", name="Bad answer")
    down.click()
    expect(down).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator(".tools:visible")).to_have_count(1, timeout=30_000)
    expect(page.locator(".tools")).to_have_count(1)  # the former answer was hidden, now it is gone
    (second,) = answers(page)
    assert second != first
    up = page.get_by_role("button", name="Good answer")
    up.click()
    expect(up).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "false")
    page.reload()
    expect(up).to_have_attribute("aria-pressed", "true")
    page.get_by_text("All conversations").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Training rows from thumbs").click()
    (row,) = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [m["content"] for m in json.loads(row)["messages"]] == [QUESTION, second]
    assert json.loads(row)["rejected"] == [first]
    up.click()
    expect(up).to_have_attribute("aria-pressed", "false")
    (_, turn) = place.api("GET", f"conversations/{page.url.partition('#')[2]}").json()["turns"]
    assert (turn["text"], turn["rating"]) == (second, 0)
    page.route("**/again", lambda route: route.abort())
    page.get_by_role("button", name="Answer again").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    assert answers(page) == [second]


def test_a_tutor_shows_its_strategy_and_why(page: Any):
    page.get_by_label("Learn with a tutor").check()
    expect(page.locator("#problem option")).not_to_have_count(1)
    shot(page, "start-tutor")
    tutor(page)
    page.get_by_label("Style").select_option("socratic")
    say(page, "I think it is 54.")
    expect(page.get_by_role("heading", level=2)).to_have_text("What is 7 times 8?")
    expect(page.locator("#about")).to_have_text("tunelm-nano · tutor, socratic")
    chip = page.locator(".chip")
    reason = page.locator(".why")
    expect(reason).to_be_hidden()
    chip.click()
    expect(chip).to_have_attribute("aria-expanded", "true")
    expect(reason).to_contain_text("Why: the student")
    page.get_by_role("button", name="Say nothing").click()
    expect(page.locator(".tools")).to_have_count(2)
    expect(page.locator(".own .silent")).to_have_text("(says nothing)")
    expect(page.locator(".chip").nth(1)).to_contain_text("Encouragement")
    shot(page, "tutor")
    page.reload()
    expect(page.locator(".chip").nth(1)).to_contain_text("Encouragement")


def test_what_is_left_out_of_the_prompt_is_shown_and_too_long_a_text_stays(page: Any):
    say(page, "one two three four " * 400)
    expect(page.locator(".note")).to_contain_text(["characters of the last message are left out"])
    box = page.get_by_label("Message", exact=True)
    box.fill("x" * 99_000)
    expect(page.locator("#count")).to_have_text("1,000 characters left")
    box.fill("x" * 100_001)
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("100,000 characters; this one has 100,001")
    assert len(box.input_value()) == 100_001
    box.fill("  ")
    box.press("Enter")
    expect(page.locator(".own")).to_have_count(1)


# --- two side by side ---------------------------------------------------------------------------


def test_two_models_are_compared_blind(place: Place, page: Any):
    told: list[str] = []
    page.on("response", lambda r: "/conversations" in r.url and told.append(r.text()))
    page.get_by_label("Compare two, blind").check()
    page.get_by_label("Second model").select_option(OTHER)
    say(page, QUESTION)
    expect(page.get_by_role("region", name="Answer A")).to_be_visible()
    page.wait_for_timeout(300)  # the list is asked for after an answer
    assert told
    assert not [text for text in told if "tunelm-nano" in text]
    pair = place.api("GET", f"conversations/{page.url.partition('#')[2]}").json()["turns"][1]
    assert set(pair) == {"id", "role", "a", "b", "vote"}
    shot(page, "versus-before")
    page.get_by_role("button", name="A is better").click()
    tally = page.locator(".tally")
    expect(tally).to_contain_text("A was better. A was tunelm-nano")
    assert [pair for pair in contrasts(page) if pair[0] < 4.5] == []
    expect(tally).to_contain_text(re.compile(r"95% interval \d+% to \d+%"))
    expect(tally).to_be_focused()
    expect(page.locator(".vote")).to_have_count(0)
    again = place.api("POST", f"pairs/{pair['id']}/vote", json={"choice": "b"})
    assert (again.status_code, again.json()["error"]["message"]) == (
        400,
        "there is a choice already: it cannot be changed",
    )
    say(page, "Say it in other words.")
    shot(page, "versus")
    names = [page.locator(f".side-of:nth-child({i}) h3 span").first.inner_text() for i in (1, 2)]
    assert set(names) == {"tunelm-nano", OTHER}
    page.reload()
    expect(page.get_by_role("button", name="Same")).to_be_visible()
    expect(page.locator(".side-of.better")).to_have_count(1)
    same = place.api("POST", "conversations", json={"text": "x", "model": OTHER, "other": OTHER})
    assert "beside itself" in same.json()["error"]["message"]


# --- keys and screen readers --------------------------------------------------------------------


def focused(page: Any) -> str:
    """The name of what has the focus; it must be seen to have it."""
    found = page.evaluate(
        """() => {
          const at = document.activeElement, style = getComputedStyle(at);
          const around = getComputedStyle(at.closest(".composer") ?? at);
          const text = at === document.body ? "" : (at.labels?.[0] ?? at).innerText;
          return { name: text || at.ariaLabel || at.tagName,
                   seen: style.outlineStyle !== "none" || around.boxShadow !== "none" };
        }"""
    )
    assert found["seen"] or found["name"] == "BODY", found
    return " ".join(found["name"].split())


def tab_to(page: Any, name: str, key: str = "Tab") -> list[str]:
    """Press a key until something of that name has the focus; what had it before."""
    passed: list[str] = []
    for _ in range(60):
        page.keyboard.press(key)
        if (now := focused(page)) == name:
            return passed
        passed.append(now)
    raise AssertionError(f"{name} is not reached: {passed}")


def test_everything_is_done_without_a_mouse(place: Place, page: Any):
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("What is a loop?")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("And a list?")
    page.keyboard.press("Enter")
    expect(page.locator(".tools")).to_be_visible(timeout=30_000)
    expect(page.locator(".own .text")).to_have_text("What is a loop?\nAnd a list?")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()

    assert tab_to(page, "Good answer", "Shift+Tab") == ["Answer again", "Copy", "Bad answer"]
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    tab_to(page, "Delete", "Shift+Tab")
    page.keyboard.press("Enter")
    assert focused(page) == "Cancel"
    ring = [(page.keyboard.press("Tab"), focused(page))[1] for _ in range(6)]
    assert set(ring) <= {"Cancel", "Delete", "BODY"}
    assert {"Cancel", "Delete"} <= set(ring)
    page.keyboard.press("Escape")
    assert focused(page) == "Delete"
    assert tab_to(page, "Rename", "Shift+Tab") == ["Export"]

    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    order = [focused(page)] if focused(page) != "BODY" else []
    order += tab_to(page, "Message")
    wanted = ["New conversation", "Search conversations", "All conversations", "Rename", "Export"]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places)
    tab_to(page, "Skip to the message box")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    assert len(place.api("GET", "conversations").json()["conversations"]) == 1

    tab_to(page, "New conversation")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_have_text("New conversation")
    tab_to(page, "Chat Ask a model anything.", "Shift+Tab")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Learn with a tutor")).to_be_checked()
    expect(page.get_by_label("Style")).to_be_visible()


@pytest.mark.usefixtures("endless")
def test_escape_stops_an_answer_which_is_kept_and_marked(place: Place, page: Any):
    page.keyboard.type("Explain what a loop does, with an example.")
    page.keyboard.press("Enter")
    expect(page.locator(".turn:not(.own) > .text")).to_contain_text(re.compile(r"\w+ \w+ \w+"))
    page.keyboard.press("Escape")
    expect(page.locator(".note").first).to_have_text("The answer was cut off")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    kept = place.api("GET", f"conversations/{page.url.partition('#')[2]}").json()["turns"][1]
    assert (kept["complete"], kept["text"]) == (False, answers(page)[0])
    assert kept["text"]

    page.get_by_role("link", name="New conversation").click()
    page.get_by_label("Compare two, blind").check()
    page.get_by_label("Second model").select_option(OTHER)
    page.get_by_label("Message", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".pair .wait")).to_have_count(2)
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_have_text("The last message has no answer.")
    expect(page.locator(".pair")).to_have_count(0)
    assert place.api("GET", "conversations").json()["conversations"][0]["other"]


def test_the_tree_that_screen_readers_see_names_everything(page: Any):
    start = page.locator("body").aria_snapshot()
    for line in (
        '- complementary "Conversations"',
        '- heading "tunelm" [level=1]',
        '- searchbox "Search conversations"',
        '- group "What would you like to do?"',
        '- combobox "Model"',
        '- textbox "Message"',
    ):
        assert line in start
    page.get_by_label("Learn with a tutor").check()
    tutor(page)
    say(page, "I think it is 54.")
    page.locator(".chip").click()
    tree = page.locator("body").aria_snapshot()
    for line in (
        "- main:",
        '- heading "What is 7 times 8?" [level=2]',
        '- log "Conversation"',
        '- heading "You" [level=3]',
        '- heading "Tutor" [level=3]',
        ': why?" [expanded]',
        '- button "Good answer"',
        '- region "Your message"',
    ):
        assert line in tree
    unnamed = re.findall(
        r"^\s*- (?:button|link|textbox|combobox|radio|searchbox|dialog)\b(?! \").*",
        f"{start}\n{tree}",
        re.M,
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.querySelectorAll('[id]').length") == page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
    )


# --- looks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(place: Place, scheme: str):
    with looking(place, color_scheme=scheme) as page:
        page.get_by_label("Learn with a tutor").check()
        page.get_by_text("All conversations").click()
        found = contrasts(page)
        shot(page, f"start-{scheme}")
        tutor(page)
        say(page, "I think it is 54. " * 300)
        page.locator(".chip").click()
        page.get_by_role("button", name="Good answer").click()
        page.get_by_role("button", name="Say nothing").click()
        expect(page.locator(".tools")).to_have_count(2)
        page.get_by_label("Message", exact=True).fill("x" * 100_001)
        page.get_by_label("Message", exact=True).press("Enter")
        shot(page, f"talk-{scheme}")
        found += contrasts(page)
        page.get_by_role("button", name="Delete", exact=True).click()
        found += contrasts(page)
        shot(page, f"dialog-{scheme}")
    assert len(found) > 60
    assert [pair for pair in found if pair[0] < 4.5] == []


@pytest.mark.parametrize(("width", "height", "scale"), [(320, 640, 1), (640, 400, 2)])
def test_small_windows_need_no_scrolling_sideways(
    place: Place, width: int, height: int, scale: int
):
    """320 px, and a window of 1280 by 800 at 200% zoom."""
    wide = "document.documentElement.scrollWidth > innerWidth"
    size = {"viewport": {"width": width, "height": height}, "device_scale_factor": scale}
    with looking(place, **size) as page:
        page.get_by_label("Compare two, blind").check()
        page.get_by_label("Second model").select_option(OTHER)
        assert not page.evaluate(wide)
        say(page, "Name a river. " + "x" * 200)
        assert not page.evaluate(wide)
        box = page.get_by_label("Message", exact=True).bounding_box()
        assert box["y"] + box["height"] <= height
        shot(page, f"narrow-{width}")
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("button", name="Close the list")).to_be_focused()
        shot(page, f"narrow-{width}-list")
        assert not page.evaluate(wide)
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Conversations")).to_be_focused()
        page.get_by_role("button", name="Conversations").click()
        page.get_by_role("navigation").get_by_role("link").click()
        expect(page.locator("body")).not_to_have_class(re.compile("with-side"))


def test_text_from_the_right_and_text_that_looks_like_a_page(place: Place):
    """What a person, a model, a title and a model's name hold is shown, and never run."""
    catalog = place.app.state.target.catalog
    base = catalog.get("tunelm-nano")
    evil = ScriptedModel(lambda request: f"{EVIL} said {len(request.messages)}")
    catalog.add(dataclasses.replace(base, id=EVIL, compose=lambda inner: evil))
    try:
        with looking(place) as page:
            page.get_by_label("Model", exact=True).select_option(EVIL)
            say(page, EVIL)
            assert answers(page) == [f"{EVIL} said 1"]
            assert page.locator(".own .text").inner_text() == EVIL
            expect(page.get_by_role("heading", level=2)).to_have_text(EVIL)
            page.reload()
            expect(page.locator(".tools")).to_be_visible()
            assert page.evaluate("window.hit") is None
            assert page.locator("img, #log script, #list script").count() == 0
            say(page, "ما هي القائمة؟")
            direction = "getComputedStyle(document.querySelectorAll('.own .text')[1]).direction"
            assert page.evaluate(direction) == "rtl"
    finally:
        catalog.remove(EVIL)


# --- the server ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("endless")
def test_a_browser_that_leaves_ends_the_work_and_what_was_said_is_kept(place: Place):
    health = f"{place.url}/health"
    with looking(place) as page:
        page.keyboard.type("Explain what a loop does, with an example.")
        page.keyboard.press("Enter")
        expect(page.locator(".turn:not(.own) > .text")).to_contain_text(re.compile(r"\w+ \w+ \w+"))
        shown, id = answers(page)[0], page.url.partition("#")[2]
        busy = place.api("POST", f"conversations/{id}/messages", json={"text": "And?"})
        assert "being answered" in busy.text
        assert httpx.get(health).json()["running"] == 1
    deadline = time.monotonic() + 15
    while httpx.get(health).json()["running"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert httpx.get(health).json()["running"] == 0
    turns = place.api("GET", f"conversations/{id}").json()["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[1]["complete"] is False
    assert turns[1]["text"].startswith(shown[:10])


def test_a_server_that_is_killed_in_mid_answer_costs_nothing_that_was_written(
    place: Place, slow_server: SlowServer
):
    with looking(dataclasses.replace(place, url=slow_server.url())) as page:
        page.keyboard.type(QUESTION)
        page.keyboard.press("Enter")
        text = page.locator(".turn:not(.own) > .text")
        expect(text).to_contain_text(re.compile(r"\w+ \w+ \w+"))
        page.wait_for_timeout(700)  # an answer is saved twice a second
        slow_server.process.send_signal(signal.SIGKILL)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server does not answer")
        expect(page.locator(".note")).to_have_text("The answer was cut off")
        (broken,) = answers(page)
        box = page.get_by_label("Message", exact=True)
        box.fill("Are you there?")
        box.press("Enter")
        expect(alert).to_contain_text("The server does not answer")
        expect(alert.get_by_role("button", name="Try again")).to_be_visible()
        expect(box).to_have_value("Are you there?")
        assert answers(page) == [broken]
        id = page.url.partition("#")[2]
    store = ChatStore(slow_server.ready.with_name("chat.sqlite"))
    asked, said = store.conversation(id).turns
    store.close()
    assert (asked.text, said.complete) == (QUESTION, False)
    assert said.text[:12] == broken[:12] != ""


def test_a_key_is_asked_for_and_a_damaged_file_is_told(place: Place, tmp_path: Path):
    (tmp_path / "chat.sqlite").write_bytes(b"no database at all" * 99)
    settings = ServerSettings("tunelm-nano", tmp_path, train=False, chat=True, api_keys=("sesame",))
    with listening(create_app(settings)) as url:
        own = dataclasses.replace(place, url=url.removesuffix("/v1"))
        assert own.api("GET", "start").status_code == 401
        with looking(own) as page:
            expect(page.get_by_role("dialog")).to_contain_text("This server asks for a key")
            key = page.get_by_role("textbox", name="Key")
            expect(key).to_be_focused()
            key.fill("wrong")
            page.keyboard.press("Enter")
            expect(page.get_by_role("dialog")).to_contain_text("That key was not accepted.")
            page.keyboard.press("Escape")
            expect(page.get_by_role("alert")).to_contain_text("without the key")
            page.get_by_role("button", name="Try again").click()
            key.fill("sesame")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("was damaged")
            say(page, QUESTION)
            page.reload()
            expect(page.locator(".tools")).to_be_visible()
            assert page.evaluate("Object.keys(localStorage).length") == 0
            page.get_by_role("button", name="Delete", exact=True).click()
            page.get_by_role("dialog").get_by_role("button", name="Delete").click()
            expect(page.get_by_role("alert")).to_contain_text("Not touched: chat.sqlite.damaged-")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "rebound.example.org"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
    ids=str,
)
def test_only_the_own_page_may_ask(place: Place, headers: dict[str, str], status: int):
    body = {"Content-Type": "application/json", **headers}
    answer = place.api("POST", "conversations/none/stop", headers=body, content="{}")
    assert answer.status_code == status


def test_the_page_loads_nothing_from_elsewhere_and_can_be_left_out(place: Place, tiny_model: Path):
    answer = httpx.get(place.url)
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    names = re.findall(r'(?:href|src)="(/[^"]+)"', answer.text)
    assert set(names) == {"/chat/icon.svg", "/chat/page.css", "/chat/page.js"}
    assert {httpx.get(place.url + name).status_code for name in names} == {200}
    assert httpx.get(f"{place.url}/chat/../auth.py").status_code == 404
    for path, status in (("conversations/none", 404), ("conversations/none/export", 404)):
        assert place.api("GET", path).status_code == status
    bare = create_app(ServerSettings(str(tiny_model), Path("nowhere"), train=False))
    with listening(bare) as url:
        assert httpx.get(url.removesuffix("v1")).status_code == 404
    assert not Path("nowhere").exists()


def test_a_pupil_in_danger_reads_whom_to_call_and_not_what_was_suspected(place: Place):
    begin = {"text": "I want to hurt myself.", "model": "tunelm-nano", "style": "adaptive"}
    lines = place.api("POST", "conversations", json=begin).text.splitlines()
    assert "Call 0800 1111, at any hour." in json.loads(lines[-1])["turn"]["text"]
    assert "a fixed text answers" not in "".join(lines)
    kept = ChatStore(place.state / "chat.sqlite")
    (summary,) = kept.conversations("hurt myself")
    assert "a fixed text answers" in " ".join(kept.conversation(summary.id).turns[1].notes)
    kept.close()
