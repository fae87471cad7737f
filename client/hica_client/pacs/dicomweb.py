"""DICOMweb: studies are searched by QIDO-RS and fetched by WADO-RS (PS3.18 10.6, 10.4).

httpx rather than dicomweb-client: that one holds an instance in memory and hands on what pydicom
made of it, while here the bytes go to disk as they come, up to a limit.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from hica_client.pacs import dicomweb_words as words
from hica_client.pacs.address import Web
from hica_client.pacs.connection import AGAIN, login, tls_context
from hica_client.pacs.dicom_json import attributes_of
from hica_client.pacs.errors import LostInstanceError, PacsError
from hica_client.pacs.multipart import receive
from hica_client.pacs.selection import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    Attributes,
    Query,
)
from hica_client.pacs.store import Store
from hica_client.site import PacsSection

PAGE = 200
"""Results that are asked for at once; a PACS may give fewer."""
FEW = 10
"""No archive cuts its lists shorter than this: after fewer results, no more are asked for."""
MOST_LISTING_BYTES = 64 << 20
"""Of one page."""
TRIES = 3
"""Of a request that fails in a way that passes."""
PASSING = {429, 502, 503, 504}
"""Statuses of a service that is busy or restarts."""
Answer = TypeVar("Answer")
JSON = "application/dicom+json"
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
ANY_SYNTAX = 'multipart/related; type="application/dicom"'
"""For a service that knows no `*`: it then decides on the transfer syntax itself."""


class DicomWeb:
    """A DICOMweb service, asked only with GET and only below its own address."""

    def __init__(
        self,
        web: Web,
        settings: PacsSection,
        *,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """`transport` and `pause` are for tests.

        Raises:
            ConfigurationError: Password or certificates cannot be used.
        """
        self._web = web
        self._pause = pause
        self._accept = AS_STORED
        signed = login(settings)
        headers = {"Accept-Encoding": "identity"}
        if signed is not None and signed.user is None:
            headers["Authorization"] = f"Bearer {signed.password}"
        self._signed = signed is not None
        self._client = httpx.Client(
            auth=(signed.user, signed.password) if signed is not None and signed.user else None,
            headers=headers,
            verify=tls_context(settings) if web.encrypted else True,
            timeout=httpx.Timeout(settings.timeout, read=settings.patience),
            follow_redirects=False,  # a redirect could lead anywhere
            trust_env=False,  # and so could a proxy
            transport=transport,
        )
        self._search_timeout = httpx.Timeout(settings.timeout)

    unasked = 0
    """Of an answer, only the one that was asked for is kept."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def studies(self, query: Query) -> Iterator[Attributes]:
        """See `Archive`."""
        return self._search("/studies", STUDY_KEYS, query.keys)

    def series(self, study: str) -> Iterator[Attributes]:
        """See `Archive`."""
        return self._search(f"/studies/{quote(study)}/series", SERIES_KEYS)

    def instances(self, study: str, series: str) -> Iterator[Attributes]:
        """See `Archive`."""
        path = f"/studies/{quote(study)}/series/{quote(series)}/instances"
        return self._search(path, INSTANCE_KEYS)

    def retrieve(
        self, study: str, series: str, wanted: Mapping[str, str], store: Store, **_: bool
    ) -> dict[str, LostInstanceError]:
        """See `Archive`. One request an instance: what is whole need never come twice."""
        lost = {}
        for sop in wanted:
            try:
                self._fetch(study, series, sop, store)
            except LostInstanceError as error:
                lost[sop] = error
        return lost

    def _search(
        self, path: str, keywords: tuple[str, ...], match: Mapping[str, str] | None = None
    ) -> Iterator[Attributes]:
        """All results, page after page: until one has next to nothing, or nothing new."""
        asked = [("includefield", keyword) for keyword in keywords]
        seen: set[str] = set()
        offset = 0
        while True:
            page = [("limit", str(PAGE)), ("offset", str(offset))]
            items = self._page(path, [*(match or {}).items(), *asked, *page])
            found = [attributes_of(item, keywords) for item in items]
            new = [each for each in found if each.get(keywords[0]) not in seen]
            seen.update(each.get(keywords[0], "") for each in new)
            # Repeats within a page are the caller's to count, a page of repeats alone is the end.
            yield from found if new else ()
            if len(items) < FEW:
                return
            if not new:
                if len(found) == PAGE:  # of more, or fewer, the first page was all
                    raise PacsError(
                        f"{self._web}: gives the same {len(found)} results for every page: its "
                        "paging does not work; ask for fewer studies at a time (--from-date, "
                        "--to-date)"
                    )
                return
            offset += len(items)

    def _page(self, path: str, parameters: list[tuple[str, str]]) -> list[Any]:
        """One page of a search; empty where there is nothing, or nothing more."""

        def read(response: httpx.Response) -> list[Any]:
            if response.status_code == httpx.codes.NO_CONTENT:
                return []
            if response.status_code == httpx.codes.NOT_FOUND and path != "/studies":
                return []  # the study is gone
            self._check(response)
            return self._listing(response)

        return self._ask(path, JSON, read, parameters, self._search_timeout)

    def _listing(self, response: httpx.Response) -> list[Any]:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MOST_LISTING_BYTES:
                raise PacsError(
                    f"{self._web}: a list of results is longer than {MOST_LISTING_BYTES >> 20} MB; "
                    "ask for fewer studies at a time (--from-date, --to-date)"
                )
        if not body.strip():
            return []
        try:
            items = json.loads(body)
        except (ValueError, RecursionError):
            items = None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            html = "html" in response.headers.get("content-type", "") or body.lstrip()[:1] == b"<"
            what = "a web page" if html else "something"
            raise PacsError(
                f"{self._web}: answers {what} in place of DICOMweb's JSON; give the address of the "
                "DICOMweb service, often …/dicom-web, …/rs or …/aets/AETITLE/rs"
            )
        return items

    def _fetch(self, study: str, series: str, sop: str, store: Store) -> None:
        """Fetch one instance.

        Raises:
            LostInstanceError: It did not come whole.
        """
        path = f"/studies/{quote(study)}/series/{quote(series)}/instances/{quote(sop)}"

        def write(response: httpx.Response) -> bool:
            if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                raise LostInstanceError(words.GONE, again=False)
            if response.status_code in (httpx.codes.NOT_ACCEPTABLE, httpx.codes.BAD_REQUEST):
                if self._accept == AS_STORED:
                    self._accept = ANY_SYNTAX
                    return False
                raise LostInstanceError(words.FAILED)
            if response.status_code == httpx.codes.FORBIDDEN:
                raise LostInstanceError(words.FORBIDDEN, again=False)
            if response.is_server_error:
                raise LostInstanceError(words.FAILED)
            self._check(response)
            with store.part() as part:
                with part.open("wb") as file:
                    receive(response, file.write, store.max_instance_bytes)
                store.keep(part, sop, study)
            return True

        if not self._ask(path, self._accept, write):
            self._ask(path, self._accept, write)

    def _ask(
        self,
        path: str,
        accept: str,
        read: Callable[[httpx.Response], Answer],
        parameters: Sequence[tuple[str, str]] = (),
        timeout: httpx.Timeout | None = None,
    ) -> Answer:
        """What `read` makes of an answer, asked for again where that may help.

        Raises:
            PacsError: There was none.
        """
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                self._pause(2.0**attempt)
            try:
                with self._client.stream(
                    "GET",
                    f"{self._web.url}{path}",
                    params=tuple(parameters),
                    headers={"Accept": accept},
                    timeout=timeout or self._client.timeout,
                ) as response:
                    if response.status_code not in PASSING:
                        return read(response)
                    problem = (
                        f"is busy or restarts (HTTP status {response.status_code}); try again "
                        f"later: {AGAIN}"
                    )
            except httpx.RequestError as error:
                problem = words.of_error(error)
        raise PacsError(f"{self._web}: {problem}")

    def _check(self, response: httpx.Response) -> None:
        """Raise `PacsError` for any status but success."""
        if response.is_success:
            return
        status = response.status_code
        raise PacsError(
            f"{self._web}: {words.of_status(status, signed=self._signed)} (HTTP status {status})"
        )
