"""The page in Debian's Chromium, driven by keys alone; skipped by name where there is none."""

import shutil
import threading
import time
from contextlib import contextmanager

import pytest
from tests.unit.hica_client.review.conftest import HOSTILE

from hica_client.review import clusters, labels
from hica_client.review.serving import Idle, open_port, serve

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: see .ci/chromium"),
]


@contextmanager
def served(desk):
    """The address of the page while it is served."""
    found, ready, over = [], threading.Event(), threading.Event()

    def opened(access):
        found.append(access.address)
        ready.set()

    def clock():
        return float("inf") if over.is_set() else time.monotonic()

    arguments = (desk, open_port(0), Idle(600, clock), opened)
    thread = threading.Thread(target=serve, args=arguments)
    thread.start()
    assert ready.wait(60)
    try:
        yield found[0]
    finally:
        over.set()
        thread.join()


@pytest.fixture
def open_page():
    """Opens an address in a browser of its own; whatever the page complains of fails the test."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        complaints = []

        def open_page(address):
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.on("console", lambda said: complaints.append(said.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(address)
            return page

        open_page.complaints = complaints
        yield open_page
        browser.close()


def said(page, words):
    page.get_by_role("status").filter(has_text=words).wait_for()


def test_clusters_are_judged_by_keys_and_the_decision_is_saved(desk, open_page, monkeypatch):
    monkeypatch.setattr(clusters, "PAGE", 3)
    with served(desk) as address:
        page = open_page(address)
        page.locator(".tile:focus").wait_for()
        assert page.locator(".tile").count() == 3
        page.keyboard.press("n")
        page.locator("#where", has_text="page 2 of 2").wait_for()
        assert page.locator(".tile").count() == 1
        page.keyboard.press("x")
        page.locator(".tile.rejected").wait_for()
        page.keyboard.press("a")
        said(page, "cluster 0 is accepted")
        page.keyboard.press("]")
        page.locator("h2", has_text="Cluster 1").wait_for()
        page.keyboard.press("r")
        said(page, "its images are left out of the next rounds")
        page.keyboard.press("e")
        page.keyboard.type("<i>noise</i> a r x")  # letters of a name are no commands
        page.keyboard.press("Enter")
        page.locator("nav.list", has_text="<i>noise</i> a r x").wait_for()
        second = open_page(address)
        assert "opens the page once only" in second.inner_text("body")
        assert not second.context.cookies()
        stranger = open_page(address.partition("/enter")[0])
        assert "the address that hica-client has printed" in stranger.inner_text("body")
    kept = [(each.kind, each.verdict) for each in desk.standing.all]
    assert kept == [
        ("image", "reject"),
        ("cluster", "accept"),
        ("cluster", "reject"),
        ("cluster", "reject"),
    ]
    assert desk.standing.all[-1].name == "<i>noise</i> a r x"
    refused = [text for text in open_page.complaints if "403" not in text]
    assert refused == []


def test_labels_and_regions_by_keys_beside_hostile_names(desk, open_page, monkeypatch):
    monkeypatch.setattr(labels, "PAGE", 5)
    with served(desk) as address:
        page = open_page(address)
        page.locator(".tile:focus").wait_for()
        page.keyboard.press("L")
        page.locator("figcaption", has_text=HOSTILE).wait_for()
        page.keyboard.press("2")
        page.locator("figcaption", has_text="round → square").wait_for()
        page.keyboard.press("Enter")  # the next one has the focus
        page.locator("figcaption", has_text="square ✓").wait_for()
        page.keyboard.press("p")
        said(page, "this is the first page")
        page.keyboard.press("R")
        page.locator(".picture img").nth(2).wait_for()
        page.keyboard.press("1")
        page.locator("button.reject").wait_for()
        page.keyboard.press("n")
        page.locator("#where", has_text="image 2 of 8").wait_for()
        page.keyboard.press("N")
        page.locator("figcaption", has_text="7.png").wait_for()
        page.keyboard.press("A")
        page.locator("p", has_text="No thing was looked at by two reviewers").wait_for()
        page.keyboard.press("S")
        page.locator("p", has_text="Nothing has left this site yet.").wait_for()
        assert page.title() == "HiCA review" and page.locator("main img").count() == 0
    assert [each.kind for each in desk.standing.all] == ["label", "label", "region"]
    assert open_page.complaints == []
