"""What a person says that the folders of an export are."""

from enum import StrEnum


class Folders(StrEnum):
    """`--folders`."""

    AUTO = "auto"
    CLASSES = "classes"
    PATIENTS = "patients"
    IGNORE = "ignore"
