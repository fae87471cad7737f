import pytest

from hica.errors import ConfigurationError
from hica_client.pacs.address import Node, Own, Web, parse_own, parse_source


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("https://pacs/dicom-web/", Web("https://pacs/dicom-web")),
        ("http://127.0.0.1:8042/rs", Web("http://127.0.0.1:8042/rs")),
        ("dicom://ORTHANC@pacs:4242", Node("ORTHANC", "pacs", 4242)),
        ("dicom://ORTHANC@pacs", Node("ORTHANC", "pacs", 104)),
        ("dicoms://My%20Pacs@10.0.0.5", Node("My Pacs", "10.0.0.5", 2762, True)),
    ],
)
def test_addresses(text, meant):
    assert parse_source(text, "--from") == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacs.hospital", "write it as https://"),
        ("ftp://pacs", "write it as https://"),
        ("https://user:secret@pacs/rs", "set user and password_file"),
        ("https://pacs/rs?x=1", "not an address"),
        ("https://pacs:port/rs", "not an address"),
        ("https:///rs", "not an address"),
        ("dicom://pacs:104", "not an address"),
        ("dicom://A_TITLE_THAT_IS_TOO_LONG@pacs", "an AE title has 1 to 16 characters"),
        ("dicom://A%5CB@pacs", "an AE title has 1 to 16 characters"),
        ("", "not the address of a PACS"),
    ],
)
def test_what_is_no_address_is_refused_with_its_form(text, words):
    with pytest.raises(ConfigurationError, match="--from") as raised:
        parse_source(text, "--from")
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("HICA", Own("HICA")),
        ("HICA:11112", Own("HICA", "127.0.0.1", 11112)),
        ("HICA@10.0.0.5:11112", Own("HICA", "10.0.0.5", 11112)),
        ("HICA@[::1]:11112", Own("HICA", "::1", 11112)),
    ],
)
def test_own_titles(text, meant):
    assert parse_own(text, "--as") == meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write it as|an AE title"),
        ("HICA@10.0.0.5", "write it as"),
        ("HICA:no", "write it as"),
        ("HICA@0.0.0.0:11112", "would listen on every network"),
        ("HICA@[::]:11112", "would listen on every network"),
        ("TITLE_OF_TOO_MANY_LETTERS", "an AE title has"),
    ],
)
def test_what_is_no_own_title_is_refused(text, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_own(text, "--as")
