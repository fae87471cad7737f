"""Site: everything the hospital decides, as read from `site.toml`. It never leaves the site."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, PrivateAttr, model_validator

from hica.steps.plan import all_kinds
from hica.study import Fraction, Name, Section, read_toml, validated


class SiteSection(Section):
    """`[site]`: what the site is called in every report."""

    name: Name
    """What the site is called in the coordinator's report: the name in `kit.json`."""


class DataSection(Section):
    """`[data]`: where images, weights and the site's own files lie; relative to `site.toml`."""

    manifest: Path
    """CSV, one row an image; of its columns only `image` is required."""
    weights: Path = Path("weights")
    """Folder below which checkpoints named by the study are looked up."""
    hubs: bool = False
    """Whether weights that the study pins may be fetched from a hub where they are not there."""
    cache: Path = Path("cache")
    """Decoded images and features: everything in it can be deleted at any time."""
    state: Path = Path("state")
    """Approvals, audit log and privacy ledger; draw, centre and pseudo-labels of each study."""
    test_fraction: float = Field(default=0.3, gt=0.0, lt=1.0)
    """Share of the patients held out, where the manifest has no `split` column."""
    prevalence: dict[str, Fraction] = Field(default_factory=dict)
    """Share of each class among the site's images, as the hospital knows it; never leaves. With it
    the site's predictions are for such patients, and no longer for as many of every class."""

    @model_validator(mode="after")
    def _shares_are_of_a_whole(self) -> Self:
        whole = sum(self.prevalence.values())
        if self.prevalence and abs(whole - 1) > 0.01:
            raise ValueError(
                f"the shares of prevalence add up to {whole:g}; give one of each class, together 1"
            )
        return self


class DeviceSection(Section):
    """`[device]`: where the site computes."""

    use: str = "auto"
    """`auto` (a GPU where there is one), `cpu` or `cuda:N`."""


class FederationSection(Section):
    """`[federation]`: what joins the site to a coordinator; relative to `site.toml`."""

    kit: Path = Path("kit")
    """The start kit, unpacked."""
    key: Path = Path("keys/site")
    """The private key, made by `hica-client keygen`; the public one lies beside it (`.pub`)."""


class PacsSection(Section):
    """`[pacs]`: the picture archive that `hica-client pull` asks; paths relative to `site.toml`."""

    address: str | None = None
    """DICOMweb service (`https://…`) or DICOM node (`dicom://AET@host:port`; `dicoms:`: TLS)."""
    ae_title: str = "HICA"
    """This site's AE title at a DICOM node; as `HICA@10.0.0.5:11112` with the address and port that
    the PACS sends studies to (C-MOVE). Without a port they come by C-GET."""
    sender: str | None = None
    """AE title under which the PACS sends studies, where it is another than it is asked under."""
    user: str | None = None
    """Of a DICOMweb service. Without it, the password is sent as a bearer token."""
    password_file: Path | None = None
    """File with the password or token alone; the variable `HICA_PACS_PASSWORD` goes before it."""
    authority: Path | None = None
    """Certificate (PEM) of who signed the PACS's; without it those that the system trusts."""
    certificate: Path | None = None
    """This site's own certificate (PEM), where the PACS asks for one or sends over TLS."""
    key: Path | None = None
    """The private key of `certificate`."""
    timeout: Annotated[float, Field(gt=0.0, le=3600.0)] = 30.0
    """Seconds that a connection or an answer to a search may take."""
    patience: Annotated[float, Field(gt=0.0, le=86400.0)] = 600.0
    """Seconds of silence while the PACS fetches images from its archive."""
    max_instance_bytes: PositiveInt = 2_000_000_000
    """Largest single image that is taken."""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both or neither")
        return self


class PolicySection(Section):
    """`[policy]`: what may leave the site, whatever a study asks for."""

    kinds: tuple[str, ...] = Field(default_factory=lambda: tuple(all_kinds()))
    """Kinds of requests that are answered."""
    tensors: tuple[str, ...] = ("*",)
    """Patterns (`*`, `?`) of the arrays that may be in an answer."""
    max_reply_bytes: PositiveInt = 1_000_000_000
    """Largest answer."""
    min_count: PositiveInt = 5
    """A study that shows counts or metrics of fewer patients is not taken part in."""
    require_secure_aggregation: bool = False
    """Whether only studies are taken part in whose coordinator sees sums over sites alone."""
    max_epsilon: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """ε that all private studies together may spend on the site's patients; without it no
    private study is answered, for nobody has decided what it may cost."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-5
    """δ at which `max_epsilon` holds: well below one over the number of patients."""
    noise: Literal["secure", "seeded"] = "secure"
    """Where the noise of a private study is drawn from: the system's generator; `seeded` can be
    drawn again by anyone, and is for simulations only."""

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Self:
        unknown = sorted(set(self.kinds) - set(all_kinds()))
        if unknown:
            raise ValueError(
                f"kinds: {', '.join(unknown)}: no kind of request; known are "
                f"{', '.join(all_kinds())}"
            )
        return self


class Site(Section):
    """The whole of `site.toml`, paths made absolute."""

    site: SiteSection
    data: DataSection
    device: DeviceSection = DeviceSection()
    federation: FederationSection = FederationSection()
    pacs: PacsSection = PacsSection()
    policy: PolicySection = PolicySection()
    _file: Path = PrivateAttr(default=Path("site.toml"))

    @property
    def file(self) -> Path:
        """The site file as it was named, for messages."""
        return self._file

    @property
    def approvals(self) -> Path:
        """Which studies were approved, by whom and when (`hica_client.approval`)."""
        return self.data.state / "approvals.jsonl"

    @property
    def audit_log(self) -> Path:
        """What left the site and what was refused (`hica_client.audit`)."""
        return self.data.state / "audit.jsonl"

    @property
    def ledger(self) -> Path:
        """What private studies have spent on the site's patients (`hica_client.ledger`)."""
        return self.data.state / "ledger.jsonl"

    def study_folder(self, sha256: str) -> Path:
        """What the site keeps of a study, by the study's SHA-256."""
        return self.data.state / sha256[:16]

    @property
    def withdrawals(self) -> Path:
        """Whose images are not used any more (`hica_client.withdrawals`)."""
        return self.data.state / "withdrawals.jsonl"

    @property
    def decisions(self) -> Path:
        """What reviewers have said of images, clusters and regions (`hica_client.decisions`)."""
        return self.data.state / "decisions.jsonl"

    @property
    def contact_sheet(self) -> Path:
        """What `check` has drawn of the images (`hica_client.contact_sheet`)."""
        return self.data.state / "contact-sheet.png"

    @property
    def imports(self) -> Path:
        """What imports have read, under pseudonyms (`hica_client.intake.register`)."""
        return self.data.state / "import.sqlite"

    @property
    def pseudonyms(self) -> Path:
        """The secret that pseudonyms of patients are made with; it lies beside the site's key."""
        return self.federation.key.with_name("pseudonyms")

    @property
    def service(self) -> Path:
        """Lock, logs and secrets of the running client."""
        return self.data.state / "service"


def load_site(path: Path) -> Site:
    """Read and check a site file.

    Raises:
        ConfigurationError: Names the file, the key and what is allowed there.
    """
    site = validated(Site, read_toml(path), str(path))
    folder = path.resolve().parent
    data = site.data.model_copy(
        update={
            name: folder / getattr(site.data, name)
            for name in ("manifest", "weights", "cache", "state")
        }
    )
    federation = site.federation.model_copy(
        update={name: folder / getattr(site.federation, name) for name in ("kit", "key")}
    )
    named = {
        name: getattr(site.pacs, name)
        for name in ("password_file", "authority", "certificate", "key")
    }
    pacs = site.pacs.model_copy(
        update={name: folder / file for name, file in named.items() if file is not None}
    )
    loaded = site.model_copy(update={"data": data, "federation": federation, "pacs": pacs})
    loaded._file = path
    return loaded
