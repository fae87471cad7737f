"""A site's roles in a study: drawn when the study first asks, and as they were drawn ever after."""

from pathlib import Path

from hica.cohort.draw import (
    DRAW,
    Draw,
    Reader,
    Settings,
    decoded_hash,
    draw_of,
    hash_of,
    hashed,
    load_draw,
    or_name,
    save_draw,
)
from hica.cohort.roles import Roles, assign_roles
from hica.cohort.settled import settled
from hica.errors import CheckpointError
from hica.images.cache import file_sha256
from hica.images.manifest import read_manifest
from hica.study import Study
from hica_client.audit import verify
from hica_client.decisions import standing
from hica_client.site import Site
from hica_client.withdrawal import draw_left, left_in, prune
from hica_client.withdrawals import withdrawn


def site_roles(site: Site, study: Study, keep: bool) -> Roles:
    """The roles of a site's rows in a study, of patients who have not withdrawn.

    `keep` is whether a draw that is made now is kept: not, where somebody only looks.

    Raises:
        CheckpointError: The study has begun here, and its draw is gone or damaged.
        ConfigurationError: The site's prevalence is not of the study's classes.
        DataError: The manifest or an image cannot be used; names row and remedy. Or there is no
            draw, and the audit log, which says whether the study has begun, was changed.
        StorageError: The draw cannot be kept.
    """
    reviewed = standing(site).reviewed
    data, folder = site.data, site.study_folder(study.sha256)
    read: Reader = hash_of
    look: Reader = decoded_hash if keep else hash_of
    if study.privacy.is_private:
        read, look = or_name(read), or_name(look)
    settings: Settings = {"test_fraction": data.test_fraction, "prevalence": data.prevalence}
    withdrawals = withdrawn(site)
    records, said = left_in(read_manifest(data.manifest), withdrawals)
    if keep:
        prune(folder, withdrawals, said)
    draw = load_draw(folder / DRAW)
    if draw is not None:
        draw = draw_left(draw, withdrawals, said)
        changed = _changed(draw, data.manifest, settings)
        roles, known = settled(draw, records, study, read, changed, reviewed)
        if keep and known != draw:
            save_draw(folder / DRAW, known)
        return roles
    if _has_begun(site, study):
        raise CheckpointError(
            f"{folder / DRAW}: missing, though this study has begun here: restore it from a "
            "backup. Without it nobody knows which images the study was trained on; then start "
            "the study anew, under another name or seed"
        )
    rejected = set[str]()
    if reviewed.labels or reviewed.rejected:
        images = hashed(records, or_name(hash_of))
        records = reviewed.drawn_from(records, images, study.class_names)
        rejected = {name for name, image in images.items() if image in reviewed.rejected}
    roles = assign_roles(
        site.site.name,
        records,
        str(data.manifest),
        study,
        data.test_fraction,
        data.prevalence,
        rejected,
    )
    draw = draw_of(roles, file_sha256(data.manifest), settings, look)
    if keep:
        save_draw(folder / DRAW, draw)
    hashes = {drawn.name: drawn.sha256 for drawn in draw.images.values()}
    return settled(draw, records, study, lambda row: hashes[row.name], (), reviewed)[0]


def _has_begun(site: Site, study: Study) -> bool:
    """Whether anything was learnt here in a study, also where its whole folder is gone."""
    if (site.study_folder(study.sha256) / "answers").exists():
        return True
    return any(
        entry["study"] == study.sha256
        and entry["decision"] == "sent"
        and entry["kind"].startswith("train.")
        for entry in verify(site.audit_log)
    )


def _changed(draw: Draw, manifest: Path, settings: Settings) -> list[str]:
    """What a draw depends on and is not as it was, in words."""
    changed = [
        f"data.{key} is {settings[key]} in place of {then}: used by new studies only"
        for key, then in draw.settings.items()
        if settings[key] != then
    ]
    if file_sha256(manifest) != draw.manifest:
        changed.append(
            "the manifest has changed: this study keeps the images that were drawn, and takes in "
            "no others"
        )
    return changed
