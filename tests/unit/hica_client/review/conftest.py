"""A desk at a site whose rows are hostile, with clusters of stage 1, and a browser of its page."""

import csv
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from hica_client.review.access import Access
from hica_client.review.desk import Desk
from hica_client.review.page import make_page
from hica_client.session import Session
from hica_client.site import load_site

HOSTILE = "<img src=x onerror=document.title='broken'>.png"
PORT = 8123


@pytest.fixture
def study(toy_study):
    return toy_study("federation.min_count=1", "alignment.shots=2", "regions.method=superpixels")


@pytest.fixture
def site(draw_site):
    """Sixteen images, the first of a name that is HTML, two of them without a label."""
    site = load_site(draw_site("north"))
    folder = site.data.manifest.parent
    shutil.move(folder / "0.png", folder / HOSTILE)
    rows = list(csv.DictReader(site.data.manifest.open()))
    rows[0] |= {"image": HOSTILE, "patient_id": "<script>p0</script>"}
    for number in (6, 7):
        rows[number] |= {"label": "", "split": ""}
    with site.data.manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return site


@pytest.fixture
def drawn(site, study):
    """The study has begun here: roles are drawn, and clusters kept."""
    session = Session(site, study)
    ids = session.images("unlabelled")
    labels = np.arange(len(ids)) % 2
    session.keep({"pseudo_labels": {"labels": labels, "images": ids}}, "question")
    return session


@pytest.fixture
def desk(site, study, drawn):
    return Desk(site, study, "anna")


@pytest.fixture
def second(site, study, drawn):
    """The same, of another reviewer."""
    return Desk(site, study, "ben")


@pytest.fixture
def access():
    return Access(PORT)


@pytest.fixture
def stranger(desk, access):
    """A browser that has not opened the printed address."""
    base = f"http://127.0.0.1:{PORT}"
    with TestClient(make_page(desk, access), base, follow_redirects=False) as browser:
        yield browser


@pytest.fixture
def browser(stranger, access):
    """The browser of the reviewer; what it posts comes from the page."""
    stranger.get(access.address)
    stranger.headers["origin"] = f"http://127.0.0.1:{PORT}"
    return stranger
