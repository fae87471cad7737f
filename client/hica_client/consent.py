"""Consent: a person reads what a study is and what will leave the site, and decides.

Approving is for those who may decide for the hospital. Everything they need is on one screen; what
was decided is recorded by `hica_client.approval`.
"""

import getpass
import os
import re
import sys
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from hica.deployment.keys import fingerprint
from hica.deployment.kit import KIT, STUDY, read_kit, read_roster, roster_sha256
from hica.errors import ConfigurationError
from hica.hub import PINNED
from hica.printable import printable
from hica.secure_sum.forms import threshold_of
from hica.steps.plan import kinds_asked, steps_of
from hica.study import Study, load_study
from hica.wire.messages import Kind
from hica_client.approval import Approval, approve, decisions, revoke
from hica_client.federation_checks import check_name
from hica_client.one_study import check_one_study
from hica_client.policy import conflicts
from hica_client.site import Site

BESIDE_STEPS: dict[str, str] = {
    Kind.CAPABILITIES: "how many images are learnt from with labels, without their labels, and "
    "held out; shots of each class; device, versions, hash of the weights",
    Kind.KEYS: "two public keys made for one sum, signed with the key of your site",
    Kind.SHARES: "shares of secret numbers made for one sum, sealed for the other sites; signed "
    "commitments to them",
    Kind.SURVIVORS: "your site's signature over who is in a sum",
    Kind.UNMASK: "your shares of other sites' secret numbers, with which the masks come off a sum "
    "over several sites, and off nothing else",
}
"""What the answers tell that are no step's, in words; a step says it itself (`Step.leaves`)."""

PRIVACY = (
    "The study has no privacy mechanism: no secure aggregation and no differential privacy. Sums, "
    "weights and metrics leave exactly as they are. They are encrypted on the way, but whoever "
    "runs the coordinator can read those of your site by itself, and sums or weights over few "
    "images can tell about single ones. Images, their names, patient identifiers and single "
    "predictions do not leave."
)

PRIVATE = (
    "Differential privacy: sums and weights leave with noise. Whatever is made of all of them "
    "together hardly depends on any one {unit}: ε = {epsilon:g} at δ = {delta:g} for the whole "
    "study, where a {unit} is added or taken away; each answer is charged to the ledger of your "
    "site first. Not protected are the numbers of images, and the metrics of evaluate."
)

DISTRIBUTED = (
    "The noise on sums is shared out between the sites: that of your site alone is too little, and "
    "the guarantee holds for the sum over several sites, which is all that can be read."
)

SECURE = (
    "Secure aggregation: the arrays of every request that begins with train. leave masked, as "
    "numbers that look random; loss and number of images are among them. Whoever runs the "
    "coordinator can read their sum over at least {fewest} sites, and that of none by itself. It "
    "does not hide what such a sum tells, nor the metrics of evaluate, which leave as they are. It "
    "rests on the keys of the sites below: compare their fingerprints with the other sites, not "
    "with the coordinator alone."
)

ACTIVE = (
    "Whoever runs the coordinator may also craft its requests. Within what your site accepts, the "
    "audit of HiCA came near the embeddings of 4 of 30 images in a study of two rounds without "
    "privacy, found 1 at most, and came near none in a sum over four sites. Fewer images, or "
    "another study, may tell of more; only differential privacy bounds it."
)
"""Of studies without it; the numbers are those of docs/leakage.md."""

OF_A_HUB = "from a hub, which this machine asks if data.hubs = true in the site file"


def decide(
    site: Site, prefix: str, study_file: Path | None, yes: bool, console: Console
) -> Approval:
    """Show a study, ask, and record the approval; one that holds already is left as it is.

    `prefix` are the first digits of the study's hash, as they were compared with the coordinator.
    `study_file` is the study (TOML), in place of the kit's. `yes` approves without asking.

    Raises:
        ConfigurationError: Another study than meant, one that the policy forbids, or a no.
        StorageError: The approval cannot be written.
    """
    study = _study(site, prefix, study_file)
    forbidden = conflicts(site.policy, study)
    if forbidden:
        raise ConfigurationError("\n".join(f"{site.file}: {words}" for words in forbidden))
    show(study, console)
    keys = _shown_keys(site, console) if study.privacy.secure_aggregation else None
    before = decisions(site).get(study.sha256)
    same = (True, keys, site.policy.model_dump(mode="json"))
    if before is not None and (before.approved, before.keys, before.policy) == same:
        words = f"approved already, by {before.user} on {before.time}; nothing was added"
        console.print(f"[green]{printable(words)}[/]", highlight=False, soft_wrap=True)
        return before
    if not yes and not confirmed(f"Take part in {study.study.name!r} as shown?", console.stderr):
        raise ConfigurationError("not approved; nothing is trained here for this study")
    approve(site, study, user_name(), datetime.now().astimezone(), keys)
    console.print(f"[green]approved[/] {study.sha256}", highlight=False, soft_wrap=True)
    return decisions(site)[study.sha256]


def confirmed(question: str, err: bool) -> bool:
    """Ask whoever is there; `err`: on standard error.

    Raises:
        ConfigurationError: Nobody is: standard input has ended.
    """
    try:
        return typer.confirm(question, err=err)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C, or Ctrl-D
            raise
        raise ConfigurationError(
            "standard input: has ended before an answer, so nothing was done. Answer at a "
            "terminal, or decide before and give --yes"
        ) from None


def take_back(site: Site, prefix: str, console: Console) -> list[Approval]:
    """Record that the approval of a study is taken back, at once also for a running client.

    Gives what is now decided.

    Raises:
        ConfigurationError: No approved study has this hash.
        StorageError: It cannot be written.
    """
    prefix = _checked(prefix)
    valid = [decision for decision in decisions(site).values() if decision.approved]
    meant = [decision for decision in valid if decision.study.startswith(prefix)]
    if not meant:
        listed = ", ".join(f"{each.study[:12]} ({each.name})" for each in valid) or "none"
        raise ConfigurationError(f"{prefix}: no approved study has this hash; approved: {listed}")
    for decision in meant:
        revoke(site, decision, user_name(), datetime.now().astimezone())
        console.print(f"approval taken back: {decision.study}", highlight=False, soft_wrap=True)
    return [decisions(site)[decision.study] for decision in meant]


def show(study: Study, console: Console) -> None:
    """The study's texts, training and privacy, and everything that will leave the site."""
    console.print(f"[bold]{printable(study.study.name)}[/]  {study.sha256}", soft_wrap=True)
    for heading, table in (
        ("Classes and their texts", _texts(study)),
        ("Training at this site", _training(study)),
        ("What will leave this site", _leaving(study)),
    ):
        console.print(f"\n[bold]{heading}[/]")
        console.print(table)
    console.print(f"\n[bold]Privacy[/]\n{privacy_words(study)}")
    fewest = study.federation.min_count
    console.print(
        f"Test results of fewer than {fewest} patients are hidden; the numbers beside the sums are "
        "not.\n"
    )


def privacy_words(study: Study) -> str:
    """What protects the site's patients in a study, and what it does not protect."""
    privacy = study.privacy
    words = []
    if privacy.is_private:
        budget = {"epsilon": privacy.epsilon, "delta": privacy.delta, "unit": privacy.unit}
        words.append(PRIVATE.format(**budget))
    if privacy.noise == "distributed":
        words.append(DISTRIBUTED)
    if privacy.secure_aggregation:
        words.append(SECURE.format(fewest=threshold_of(study).fewest))
    if not privacy.is_private:
        words = [*(words or [PRIVACY]), ACTIVE]
    return " ".join(words)


def _study(site: Site, prefix: str, study_file: Path | None) -> Study:
    """The study that is meant, its hash compared."""
    prefix = _checked(prefix)
    if study_file is None:
        kit, study = read_kit(site.federation.kit)
        check_name(site, kit)
        source = site.federation.kit / STUDY
    else:
        study, source = load_study(study_file), study_file
        if (site.federation.kit / KIT).exists():
            kit, of_kit = read_kit(site.federation.kit)
            check_name(site, kit)
            check_one_study(study, study_file, of_kit, site.federation.kit)
    if not study.sha256.startswith(prefix):
        raise ConfigurationError(
            f"{prefix}: is not the hash of {source}, which is {study.sha256}: the study was "
            "changed, or another one is meant; compare the hash with the coordinator"
        )
    return study


def _shown_keys(site: Site, console: Console) -> str:
    """Show by which keys the sites know each other; returns the hash of the list."""
    roster = read_roster(site.federation.kit)
    table = Table("site", "fingerprint of its key")
    for name, key in roster.items():
        table.add_row(printable(name), fingerprint(key))
    console.print("[bold]Sites whose answers are summed[/]")
    console.print(table)
    digest = roster_sha256(site.federation.kit)
    console.print(f"list of keys {digest}\n", highlight=False, soft_wrap=True)
    return digest


def _checked(prefix: str) -> str:
    """Enough digits that no other study has them by chance or design; capitals mean the same."""
    if not re.fullmatch("[0-9A-Fa-f]{12,64}", prefix):
        raise ConfigurationError(
            f"{prefix}: give at least the first 12 of the hash's 64 hexadecimal digits"
        )
    return prefix.lower()


def _texts(study: Study) -> Table:
    table = Table("class", "prompts", "findings", show_lines=True)
    for each in study.classes:
        texts = (each.name, "\n".join(each.prompts), "\n".join(each.findings))
        table.add_row(*map(printable, texts))
    return table


def _training(study: Study) -> Table:
    model, first, second = study.model, study.pretraining, study.alignment
    table = Table(show_header=False, box=None)
    rows = {
        "image tower": tower_words(study),
        "trained part": model.train,
        "preprocessing": model.preprocess_words,
        "stage 1": f"{first.rounds} rounds on up to {first.max_images} images, labels not used",
        "stage 2": f"{second.rounds} rounds on up to {second.shots} labelled images of each class",
        "regions": region_words(study),
        "text corpus": study.text.corpus or "none",
    }
    for name, value in rows.items():
        table.add_row(name, printable(value))
    return table


def tower_words(study: Study) -> str:
    """Which image tower is taken, and whether this machine may fetch its weights."""
    model = study.model
    if model.checkpoint is not None:
        return f"{model.image}, weights {model.checkpoint}"
    scheme, _, place = model.image.partition(":")
    if scheme in ("local-dir", "hf") and not PINNED.fullmatch(place):
        return f"{model.image}, weights of that folder"
    if model.pretrained is None and scheme not in ("hf", "hf-hub"):
        return f"{model.image}, weights as built in"
    return f"{model.image}, weights {model.pretrained or 'of that name'}: {OF_A_HUB}"


def region_words(study: Study) -> str:
    """Where regions come from, and whether this machine may fetch weights for them."""
    regions = study.regions
    if regions.checkpoint is None:
        return regions.method
    words = f"{regions.method}, weights {regions.checkpoint}"
    if regions.method != "hf-sam":
        return words
    return f"{words}: a folder of this name, else {OF_A_HUB}"


def _leaving(study: Study) -> Table:
    table = Table("request", "arrays", "what it tells", show_lines=True)
    for kind in kinds_asked(study):
        steps = [step for step in steps_of(study) if step.kind == kind]
        arrays = dict.fromkeys(array.name for step in steps for array in step.answers(study))
        words = steps[0].leaves if steps else BESIDE_STEPS[kind]
        table.add_row(kind, ", ".join(arrays) or "none", words)
    return table


def user_name() -> str:
    """Who is logged in, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may give a process a number without a name
        return f"uid {os.getuid()}"
