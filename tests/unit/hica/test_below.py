import pytest

from hica.below import below
from hica.errors import ConfigurationError, WeightsError


def test_a_path_below_the_folder_is_given_as_it_was_named(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "weights").symlink_to(tmp_path / "real")
    for name in ("a.pt", "models/a.pt", "models/../a.pt", str(tmp_path / "real" / "a.pt")):
        assert below(tmp_path / "weights", name, "key") == tmp_path / "weights" / name


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "a/../../x", "link", "a\0b"])
def test_a_path_that_leads_out_names_key_and_remedy(tmp_path, name):
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(WeightsError, match=r"model\.checkpoint = .*put the file itself there"):
        below(tmp_path, name, "model.checkpoint")
    with pytest.raises(ConfigurationError, match=r"text\.corpus = "):
        below(tmp_path, name, "text.corpus", ConfigurationError)


def test_the_other_side_reads_the_same_words_for_every_file():
    one, two = WeightsError("a.pt: found sha256 12ab"), WeightsError("b.pt: no such file")
    assert one.outside == two.outside
    assert ConfigurationError("as it is").outside == "as it is"
