from hica.deployment.kit import read_roster
from hica_simulations.site_files import introduce


def test_sites_that_were_introduced_know_each_other_and_stay_the_same(tmp_path):
    files = [tmp_path / name / "site.toml" for name in ("north", "south")]
    introduce(files, ["north", "south"])
    before = [read_roster(file.parent / "kit") for file in files]
    introduce(files, ["north", "south"])
    assert before[0] == before[1] == read_roster(files[0].parent / "kit")
    assert list(before[0]) == ["north", "south"]
