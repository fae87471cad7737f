"""Whether the installed Flower is the one both sides must have.

Flower refuses peers whose major or minor version differs, in the middle of a connection and in
words of its own. Both sides therefore look at their own installation before they start.
"""

import importlib.metadata

from hica.errors import ConfigurationError

FLOWER = "1.41"
"""Major and minor version of `flwr`; any patch release of it will do."""


def require_flower() -> None:
    """Check that Flower is installed in the version that HiCA speaks.

    Raises:
        ConfigurationError: It is missing or of another major or minor version.
    """
    try:
        installed = importlib.metadata.version("flwr")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(f"Flower is not installed here. {_remedy()}") from None
    if installed.split(".")[:2] != FLOWER.split("."):
        raise ConfigurationError(
            f"Flower {installed} is installed here, HiCA needs {FLOWER}: coordinator and hospitals "
            f"can only talk to each other with the same version. {_remedy()}"
        )


def _remedy() -> str:
    return f'Run: pip install "flwr=={FLOWER}.*"'
