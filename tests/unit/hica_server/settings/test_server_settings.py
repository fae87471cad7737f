from pathlib import Path

import pytest

from hica.errors import ConfigurationError
from hica_server.settings import ServerSettings, load_settings

EXAMPLE = Path(__file__).parents[4] / "server" / "example_server.toml"


def written(folder: Path, text: str) -> Path:
    (folder / "server.toml").write_text(text)
    return folder


def test_without_a_file_all_is_default(tmp_path):
    settings = load_settings(tmp_path)
    assert settings.server == ServerSettings().server
    assert settings.data.folder == tmp_path / "data"


def test_the_example_shows_the_defaults(tmp_path):
    example = load_settings(written(tmp_path, EXAMPLE.read_text()))
    (tmp_path / "server.toml").unlink()
    assert example == load_settings(tmp_path)


def test_every_setting_is_in_the_example(tmp_path):
    text = EXAMPLE.read_text()
    for section, table in ServerSettings().model_dump().items():
        assert f"[{section}]" in text
        for key in table:
            assert f"\n{key} = " in text


def test_the_data_folder_is_relative_to_the_file_and_absolute_ones_stay(tmp_path):
    assert load_settings(written(tmp_path, '[data]\nfolder = "x/y"')).data.folder == (
        tmp_path / "x" / "y"
    )
    assert load_settings(written(tmp_path, '[data]\nfolder = "/srv"')).data.folder == Path("/srv")


@pytest.mark.parametrize("name", ["hica.example.org", "h", "10.0.0.7", "::1", "xn--e1afmkfd.org"])
def test_names_and_addresses_can_be_connected_to(tmp_path, name):
    settings = load_settings(written(tmp_path, f'[server]\nname = "{name}"\nport = 443'))
    assert settings.public_address == ("[::1]:443" if name == "::1" else f"{name}:443")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[server]\nname = "https://hica.org"', "server.name: 'https://hica.org' is neither"),
        ('[server]\nname = "hica.org:8443"', "server.name"),
        ('[server]\nname = "-hica.org"', "server.name"),
        ('[server]\nname = ""', "server.name"),
        ('[server]\nlisten = "localhost"', "server.listen: 'localhost' is no IP address; give one"),
        ("[server]\nport = 0", "server.port: "),
        ("[server]\nport = 65536", "server.port: "),
        ("[ports]\nmetrics = -1", "ports.metrics: "),
        ("[limits]\nrequest_bytes = 5000000", "limits.request_bytes: "),
        ("[limits]\nunasked_bytes = 5000000", "limits.unasked_bytes: "),
        ("[limits]\naddress_connections = 0", "limits.address_connections: "),
        ("[server]\nnmae = 1", "server.nmae: unknown key; known keys: name, port, listen"),
        ("[severs]", "severs: unknown key"),
        ("[server", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, text, said):
    with pytest.raises(ConfigurationError) as error:
        load_settings(written(tmp_path, text))
    assert str(error.value).startswith(str(tmp_path / "server.toml"))
    assert said in str(error.value)
