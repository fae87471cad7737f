"""Sites: how many, how unlike, how large, and one whose labels are wrong.

The same data is shared out over more sites, each with the same number of shots, so that there are
more shots in all. Skew and noise may leave a site without a class, or with fewer of its images than
shots: it learns from what it has.
"""

from collections.abc import Mapping

from hica.errors import ConfigurationError
from hica.study import NO_CHANGES, Changes, merged
from hica_simulations.experiments.tables.comparison import METRICS, Comparison, Variant
from hica_simulations.scenario import Scenario, SiteSource

OWN = "own sites"
COUNTS = (1, 2, 4, 8)
SKEWS = (1.0, 0.1)
MANY = 8
"""Sites of which one is bad: krum needs 5, a trimmed mean that cuts a fifth off, too."""
RULES: dict[str, Changes] = {
    "mean": {"federation": {"aggregation": "mean"}},
    "trimmed mean": {"federation": {"aggregation": "trimmed-mean", "trim": 0.2}},
    "median": {"federation": {"aggregation": "median"}},
    "krum": {"federation": {"aggregation": "krum", "malicious": 1}},
}


def variants(scenario: Scenario) -> Mapping[str, Variant]:
    """The study's own sites; other numbers of them; skew, sizes and noise.

    Raises:
        ConfigurationError: The sites are not the parts of one manifest.
    """
    shared, own = _shared(scenario), len(scenario.simulation.sites)
    quorum = scenario.study.federation.quorum
    found = {OWN: NO_CHANGES}
    for count in COUNTS:
        if count != own or count == MANY:  # what noise is compared with is always a line
            fewest = {"federation": {"quorum": min(quorum, count)}}
            found[_sites(count)] = merged(_shared_out(shared, count), fewest)
    for alpha in SKEWS:
        found[f"label skew: α = {alpha:g}"] = {"simulation": {"skew": alpha}}
    sizes = [2**place for place in reversed(range(own))]
    found["sites of unequal size"] = {"simulation": {"sizes": sizes}}
    for name, rule in RULES.items():
        found[_noisy(name)] = merged(_shared_out(shared, MANY, label_noise=1.0), rule)
    return {name: Variant(changes) for name, changes in found.items()}


def _sites(count: int) -> str:
    return f"{count} sites" if count > 1 else "1 site"


def _noisy(rule: str) -> str:
    return f"{_sites(MANY)}: one with wrong labels: {rule}"


def _shared(scenario: Scenario) -> SiteSource:
    """What all sites have in common; their parts must be all there are of one manifest."""
    sites = scenario.simulation.sites
    alike = [site.model_copy(update={"name": "", "part": None}) for site in sites]
    parts = {site.part for site in sites}
    every = {f"{which}/{len(sites)}" for which in range(1, len(sites) + 1)}
    if alike[0].manifest is None or parts != every or any(one != alike[0] for one in alike):
        raise ConfigurationError(
            f"{scenario.study.study.name}: table sites: shares out the data of one manifest, but "
            f"its {len(sites)} sites are not the parts of one: take a study whose sites have the "
            f'same manifest and part = "1/n" to "n/n", for example breast_lesions.toml or '
            "pneumonia.toml"
        )
    return sites[0]


def _shared_out(site: SiteSource, count: int, label_noise: float = 0.0) -> Changes:
    """The data in `count` equal parts, the first of which has noise in its labels."""
    table = site.model_dump(mode="json", exclude_defaults=True)
    every = range(1, count + 1)
    sites = [table | {"name": f"site-{which}", "part": f"{which}/{count}"} for which in every]
    sites[0]["label_noise"] = label_noise
    return {"simulation": {"sites": sites}}


TABLE = Comparison(
    title="How many sites, how unlike, and one that is wrong",
    reference=OWN,
    variants=variants,
    metrics={**METRICS, "worst_auroc": "worst site's AUROC"},
    against={_noisy(name): _sites(MANY) for name in RULES},
    remark=(
        "Sites share out the same data and hold out tests of their own: patients are compared "
        "only between lines with the same sites. Under skew a class may be missing at a site, "
        "which then has no AUROC. Wrong labels are all training labels of the first site, each "
        "of them another class; tests keep theirs."
    ),
)
cells, write = TABLE.cells, TABLE.write
