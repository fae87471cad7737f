from pathlib import Path

from hica_server.settings import Folder


def test_every_path_of_a_folder_is_its_own_and_below_it():
    folder = Folder(Path("/study"))
    values = [getattr(folder, name) for name in vars(Folder)]
    paths = [value for value in values if isinstance(value, Path)]
    assert len(set(paths)) == len(paths) > 15
    assert all(path.is_relative_to("/study") for path in paths)
