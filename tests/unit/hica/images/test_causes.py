from hica.errors import DataError, StorageError
from hica.images.causes import by_cause, cause_of


def test_each_cause_is_said_once_with_places():
    problems = [
        ("a", "broken", DataError("a: broken")),
        ("b", "full", StorageError("b: disk full")),
        *((f"c{n}", "broken", DataError(f"c{n}: broken")) for n in range(6)),
    ]
    broken, full = by_cause(problems, "images")
    assert str(broken) == "a: broken (and so in 6 more images: c0, c1, c2, c3 and 2 more)"
    assert broken.places == ["a", "c0", "c1", "c2", "c3", "c4", "c5"]
    assert (str(full), full.exit_code, full.places) == ("b: disk full", 7, ["b"])


def test_what_differs_from_file_to_file_is_no_cause():
    one = cause_of("/x/1.png: the mask is 8×9 px, its image 'a' 10×9", "/x/1.png")
    assert one == cause_of("/x/b.png: the mask is 18×9 px, its image 'b' 1×9", "/x/b.png")
    assert cause_of("padding 12 left out") == cause_of("padding -2000.5 left out")
    assert one != cause_of("/x/b.png: cannot be decoded", "/x/b.png")
