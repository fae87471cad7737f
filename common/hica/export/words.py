"""What an export and its check say on the screen; the same for coordinator and hospital."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hica.export.manifest import Verified, verify

FORMS = ("open_clip", "hugging_face", "onnx", "monai_bundle")


def exported_lines(to: Path, card: Mapping[str, Any]) -> list[str]:
    """What was written, what is not there and why, and by which key it is signed."""
    missing: Mapping[str, str] = card["not_here"]
    there = ", ".join(name for name in FORMS if name not in missing) or "none"
    signer = verify(to, unsigned=True).signer
    lines = [f"{to}: exported; forms: {there}"]
    lines += [f"no {name}: {why}" for name, why in missing.items()]
    if signer is None:
        lines.append("signed   by nobody: the run is in no coordinator's folder, which has the key")
    else:
        lines.append(f"signed   {signer}")
        lines.append("Tell this fingerprint to whoever gets the folder, on another way.")
    return [*lines, *card["warnings"], f"Read {to / 'model_card.md'} before you hand it on."]


def verified_lines(folder: Path, found: Verified, is_asked: bool) -> list[str]:
    """What a folder was found to be, and what is left to a person."""
    said = found.manifest
    lines = [
        f"{folder}: {len(said.files)} files, all as they were exported",
        f"study    {said.study} ({said.study_sha256[:12]}), exported by {said.exported_by}, "
        f"{said.made}",
        f"signed   {found.signer or 'by nobody'}",
    ]
    if found.signer is not None and not is_asked:
        lines.append("Compare this fingerprint with whoever exported it, by telephone.")
    return lines
