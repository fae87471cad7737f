"""Written: texts of a certain form in the tables of a file; what is not so is said in words."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import core_schema


@dataclass(frozen=True)
class WrittenAs:
    """A text that a regular expression matches as a whole; `words` say to a person what that is."""

    pattern: str
    words: str

    def check(self, text: str) -> str:
        """The text, if it is written so."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"{text[:80]!r}: give {self.words}")
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "words": self.words}  # for docs/reference.md


Name = Annotated[
    str,
    WrittenAs(
        r"[A-Za-z0-9][A-Za-z0-9 _./+-]{0,63}",
        "up to 64 letters, digits and characters of ' _./+-', the first a letter or digit",
    ),
]
Sha256 = Annotated[
    str,
    StringConstraints(to_lower=True),  # some tools print hashes in capitals
    WrittenAs("[0-9a-f]{64}", "the 64 hexadecimal digits of a SHA-256"),
]
