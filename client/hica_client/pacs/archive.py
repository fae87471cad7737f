"""What a pull needs of a PACS, by whichever protocol."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from hica_client.pacs.errors import LostInstanceError
from hica_client.pacs.selection import Attributes, Query
from hica_client.pacs.store import Store


class Archive(Protocol):
    """A PACS. Every method may raise `PacsError`."""

    @property
    def unasked(self) -> int:
        """Instances that came without having been asked for."""

    def studies(self, query: Query) -> Iterator[Attributes]:
        """What matches, a page at a time; may hold more than was asked for, or the same twice."""

    def series(self, study: str) -> Iterator[Attributes]:
        """The series of a study; none where the study is gone."""

    def instances(self, study: str, series: str) -> Iterator[Attributes]:
        """The instances of a series; none where it is gone."""

    def retrieve(
        self, study: str, series: str, wanted: Mapping[str, str], store: Store, *, whole: bool
    ) -> dict[str, LostInstanceError]:
        """Fetch instances into the store; returns why those are missing that are.

        `wanted` are SOPInstanceUIDs, each with its SOP class ("" where the PACS did not tell); they
        are the `whole` series, or a few of it.
        """
