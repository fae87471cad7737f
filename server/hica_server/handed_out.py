"""handed_out: the start kits say what the server does, or it does not start.

A hospital with a kit of another study refuses every request, and one with another address never
connects: the run would wait for them until its deadline without a word of why.
"""

import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

from hica.deployment.keys import public_key
from hica.deployment.kit import KIT, Kit
from hica.errors import ConfigurationError
from hica.study import Study, validated
from hica_server.enrolment import let_in
from hica_server.provision import kit_files, make_kit, signing_key
from hica_server.settings import Folder, ServerSettings

COMPARED = {
    "study_sha256": "study.toml",
    "address": "server.toml",
    "coordinator_key": "federation/signing.key",
    "keys_sha256": "federation/keys.json",
}
"""Key of a kit → the file that it has to go with."""


def check_kits(folder: Folder, study: Study, settings: ServerSettings) -> None:
    """Check the start kits of all sites that are let in; one that was moved away is passed over.

    Raises:
        ConfigurationError: Names the kits, what they say, what the server has, and the remedy.
    """
    files = kit_files(folder, list(let_in(folder)))
    stale, words = [], []
    for site, path in files.items():
        if not path.exists():
            continue
        found = _read(path, folder)
        meant = _meant(folder, settings, study, site)
        differ = [key for key in COMPARED if getattr(found, key) != getattr(meant, key)]
        words += [
            f"{path}: {key} is {_short(getattr(found, key))}, {COMPARED[key]} has "
            f"{_short(getattr(meant, key))}"
            for key in differ
        ]
        stale += [site] if differ else []
    if words:
        raise ConfigurationError(
            "\n".join(words) + "\nThese hospitals have been told another thing than this server "
            f"does. Undo the change; or run: hica-server provision {folder.root} "
            f"{shlex.join(stale)}, hand out the new kits, and let them approve anew"
        )


def _meant(folder: Folder, settings: ServerSettings, study: Study, site: str) -> Kit:
    """The kit that `provision` would make of what is there now."""
    keys = None
    if study.privacy.secure_aggregation and folder.roster.exists():
        keys = folder.roster.read_bytes()
    return make_kit(settings, study, site, public_key(signing_key(folder).public_key()), keys)


def _read(path: Path, folder: Folder) -> Kit:
    """`kit.json` of a start kit."""
    try:
        with zipfile.ZipFile(path) as archive:
            table: Any = json.loads(archive.read(KIT))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"{path}: no start kit can be read ({error}); make it anew with: "
            f"hica-server provision {folder.root} SITE"
        ) from None
    return validated(Kit, table, f"{path}: {KIT}")


def _short(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) < 64 else f"{value[:12]}…"
