"""one_study: a study given beside the start kit is the kit's, or it is refused."""

from pathlib import Path

from hica.deployment.kit import STUDY
from hica.errors import ConfigurationError
from hica.study import Study
from hica.study.differences import differences


def check_one_study(study: Study, study_file: Path, of_kit: Study, kit: Path) -> None:
    """Check that a study file is the study of the start kit, with which the client runs.

    Raises:
        ConfigurationError: It is another one; names the first keys with both values.
    """
    if words := differences(study, of_kit, str(kit / STUDY)):
        raise ConfigurationError(
            f"{study_file}: is another study than that of the start kit, with which the client "
            f"runs: {words}. Leave out --study; or unpack the start kit of the study you mean"
        )
