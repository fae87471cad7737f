"""Page: what a browser asks for, over HTTP. Names and texts leave as JSON, never as HTML."""

import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from hica.errors import HicaError
from hica.printable import plain
from hica_client.review import agreement, clusters, facts, labels, pictures, regions
from hica_client.review.access import COOKIE, HEADERS, USED, Access
from hica_client.review.desk import PAGE, Desk, Row
from hica_client.review.suggest import Suggested, suggestions

logger = logging.getLogger("hica.client")

ASSETS = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "ask.js": "text/javascript",
    "gallery.js": "text/javascript",
    "clusters.js": "text/javascript",
    "labels.js": "text/javascript",
    "regions.js": "text/javascript",
    "facts.js": "text/javascript",
}
Verdict = Literal["accept", "reject"] | None


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class OfCluster(_Said):
    """What is said of a cluster."""

    verdict: Verdict
    name: str = Field("", max_length=80)


class OfImage(_Said):
    """What is said of an image."""

    verdict: Verdict


class OfLabel(_Said):
    """The label that is given to an image."""

    label: str | None = Field(max_length=200)


class OfRegions(_Said):
    """What is said of some regions of an image."""

    places: list[int] = Field(max_length=1000)
    verdict: Verdict


def make_page(desk: Desk, access: Access, touched: Callable[[], None] = lambda: None) -> FastAPI:
    """The page of a desk; `touched` is called at every request that is answered."""
    page = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    search = Search(desk)

    @page.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        cookie = request.cookies.get(COOKIE, "")
        refusal = access.refusal(request.method, request.url.path, request.headers, cookie)
        if refusal is None:
            touched()
            response = await answer(request)
        else:
            response = PlainTextResponse(refusal, 403)
        response.headers.update(HEADERS)
        return response

    @page.exception_handler(HicaError)
    def in_words(_: Request, error: HicaError) -> JSONResponse:
        return JSONResponse({"error": plain(str(error))}, 409)

    @page.exception_handler(RequestValidationError)
    def not_understood(_: Request, __: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "not understood: load the page again"}, 422)

    @page.get("/enter")
    def enter(token: str = "") -> Response:
        cookie = access.exchange(token)
        if cookie is None:
            return PlainTextResponse(USED, 403)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", path="/")
        return response

    @page.get("/")
    def whole() -> Response:
        return Response(_asset("page.html"), media_type="text/html")

    @page.get("/favicon.ico")
    def no_icon() -> Response:
        return Response(status_code=204)

    @page.get("/asset/{name}")
    def asset(name: str) -> Response:
        if name not in ASSETS:
            return PlainTextResponse("no such file", 404)
        return Response(_asset(name), media_type=ASSETS[name])

    @page.get("/api/desk")
    def on_the_desk() -> dict[str, Any]:
        told: dict[str, Any] = {"site": desk.site.site.name, "study": desk.study.study.name}
        told |= {"reviewer": desk.reviewer, "classes": list(desk.classes), "of_a_page": PAGE}
        return told | {"images": len(desk.rows), "private": desk.study.privacy.is_private}

    @page.get("/api/clusters")
    def all_clusters() -> dict[str, Any]:
        return clusters.listed(desk)

    @page.get("/api/clusters/{number}")
    def cluster(number: int, page: int = 0) -> dict[str, Any]:
        return clusters.gallery(desk, number, max(page, 0))

    @page.post("/api/clusters/{number}")
    def judge_cluster(number: int, said: OfCluster) -> dict[str, Any]:
        clusters.judge(desk, number, said.verdict, said.name)
        return clusters.listed(desk)

    @page.get("/api/labels")
    def label_choices() -> list[dict[str, Any]]:
        return labels.choices(desk)

    @page.get("/api/images")
    def images(label: str = "", page: int = 0) -> dict[str, Any]:
        return labels.page_of(desk, label, max(page, 0))

    @page.post("/api/images/{key}/label")
    def give_label(key: str, said: OfLabel) -> dict[str, Any]:
        labels.give_label(desk, key, said.label)
        return desk.told(desk.row(key))

    @page.post("/api/images/{key}")
    def judge_image(key: str, said: OfImage) -> dict[str, Any]:
        labels.judge_image(desk, key, said.verdict)
        return desk.told(desk.row(key))

    @page.get("/api/regions")
    def region_keys() -> list[str]:
        return regions.keys(desk)

    @page.get("/api/regions/{key}")
    def regions_of(key: str) -> dict[str, Any]:
        return regions.regions(desk, key)

    @page.post("/api/regions/{key}")
    def judge_regions(key: str, said: OfRegions) -> dict[str, Any]:
        regions.judge(desk, key, said.places, said.verdict)
        return regions.regions(desk, key)

    @page.get("/api/suggestions")
    def what_next() -> dict[str, Any]:
        return search.told()

    @page.get("/api/agreement")
    def agreed() -> dict[str, Any]:
        return agreement.agreement(desk)

    @page.get("/api/facts")
    def of_the_study() -> dict[str, Any]:
        return facts.facts(desk)

    @page.get("/small/{key}")
    def small(key: str) -> Response:
        return Response(pictures.small(desk, desk.row(key)), media_type="image/jpeg")

    @page.get("/large/{key}")
    def large(key: str) -> Response:
        return Response(pictures.large(desk, desk.row(key)), media_type="image/jpeg")

    @page.get("/outline/{key}/{place}")
    def outline(key: str, place: int) -> Response:
        drawn = pictures.outline(desk, desk.row(key), place)
        return Response(drawn, media_type="image/png")

    return page


class Search:
    """What to label next, looked for in a thread of its own: it may take minutes the first time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen = self._of = 0
        self._found: list[Suggested] | None = None
        self._error = ""

    def told(self) -> dict[str, Any]:
        """How far it is, or what was found; the first call starts it."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()
            if self._found is None:
                working = not self._error
                return {
                    "seen": self._seen,
                    "of": self._of,
                    "error": self._error,
                    "working": working,
                }
        rows = [{**self._desk.told(each.row), "alike": each.why.alike} for each in self._found]
        return {"images": rows, "page": 0, "pages": 1, "working": False, "error": ""}

    def _look(self) -> None:
        try:
            self._found = suggestions(self._desk, PAGE, self._tracked)
        except HicaError as error:
            self._error = plain(str(error))
        except Exception:
            logger.exception("what to label next")
            self._error = "a fault in the program; the terminal says more"

    def _tracked(self, rows: Sequence[Row]) -> Iterator[Row]:
        self._of = len(rows)
        for row in rows:
            yield row
            self._seen += 1


def _asset(name: str) -> bytes:
    return resources.files("hica_client.review").joinpath(name).read_bytes()
