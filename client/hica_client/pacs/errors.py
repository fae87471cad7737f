"""What ends a pull, and what costs it one instance.

No sentence here, and none that is made elsewhere in this package, holds an identifier of a patient,
study or image: they are printed and logged.
"""

from hica.errors import DataError


class PacsError(DataError):
    """The PACS cannot be reached, refuses, or answers what cannot be used; the pull ends.

    What is in the folder by then is whole, and the same command goes on.
    """


class LostInstanceError(Exception):
    """One instance did not come; the pull goes on.

    `str(error)` is the reason with its remedy, the same for all instances lost in the same way.
    """

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again
        """Whether asking once more may help."""
