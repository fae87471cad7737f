"""What preflight found at a site: every check adds to it, and none ends the others."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from hica.errors import HicaError, gathering


@dataclass
class Preflight:
    """Facts, problems and notes of a site."""

    facts: dict[str, Any] = field(default_factory=dict)
    """What the site has, for the report; JSON."""
    problems: list[HicaError] = field(default_factory=list)
    """What must be mended before a run, in the order of the checks."""
    notes: list[str] = field(default_factory=list)
    """What is allowed but may not be meant."""

    def gathering(self) -> AbstractContextManager[None]:
        """Keep what a check raises, and go on."""
        return gathering(self.problems)

    @property
    def exit_code(self) -> int:
        """The exit code of the first problem, 0 where there is none."""
        return self.problems[0].exit_code if self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON, for `--json`."""
        problems = [
            {
                "kind": type(problem).__name__,
                "exit_code": problem.exit_code,
                "message": str(problem),
                "places": list(problem.places),
            }
            for problem in self.problems
        ]
        return {"ok": not problems, **self.facts, "problems": problems, "notes": self.notes}
