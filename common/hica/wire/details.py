"""Details: the numbers and words beside the arrays of a reply, one strict model for each form.

Nothing unknown is read, every number has a range, every text and list a length. What must also
fit the study and the site, the coordinator checks (`hica_server.replies`). Metrics have their own
model (`hica.method.site_metrics`), and so have the parts of a secure sum (`hica.secure_sum.wire`).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hica.errors import MessageError
from hica.printable import plain
from hica.study import Name

MOST_IMAGES = 10_000_000
"""That a site may hold out for the test; of all others the study says how many there are."""
LARGEST_LOSS = 1e6
"""Of a mean loss: a site whose loss is larger has diverged."""


def _line(text: str) -> str:
    """One line that a log, a report and a terminal can hold."""
    return plain(text).replace("\n", " ")


Images = Annotated[int, Field(ge=0, le=MOST_IMAGES)]
Loss = Annotated[float, Field(ge=-LARGEST_LOSS, le=LARGEST_LOSS, allow_inf_nan=False)]
Word = Annotated[str, Field(max_length=200), AfterValidator(_line)]
Words = Annotated[str, Field(max_length=2000), AfterValidator(_line)]


class Details(BaseModel):
    """What a reply tells beside its arrays: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def read(cls, table: dict[str, Any]) -> Self:
        """Read from a reply.

        Raises:
            MessageError: Names the field that is missing, unknown or out of range.
        """
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or "table"
            words = problem["msg"].removeprefix("Value error, ")
            raise MessageError(f"details: {field[:100]}: {words}") from None


class Nothing(Details):
    """No details: the arrays are all."""


class Trained(Details):
    """Of local training."""

    loss: Loss | None = None
    """Mean over the site's images; a private site tells none."""


class Ended(Details):
    """Of a site that was told the end of a study."""

    withdrawn: Images | Literal["some"] | None
    """Patients who have withdrawn since the study was drawn there; "some": few; None: not told."""


class Capabilities(Details):
    """What a site can take part in."""

    labelled: Images
    unlabelled: Images
    test: Images
    classes: Annotated[dict[Name, Images | None], Field(max_length=10_000)]
    """Shots of each class; all None where one is of few patients."""
    shortfall: Annotated[list[Name], Field(max_length=10_000)] = []
    """Classes with fewer images than the study asks for; empty where counts are hidden."""
    notes: Annotated[list[Words], Field(max_length=50)]
    tower: Word
    """Fingerprint of the image tower."""
    device: Word
    versions: Annotated[dict[Word, Word], Field(max_length=20)] = {}
