"""Groups: images that belong together and stay on one side of every split."""

from collections.abc import Sequence


def group_names(
    names: Sequence[str],
    patients: Sequence[str | None],
    duplicates: Sequence[str | None],
) -> list[str]:
    """Name the group of each image: the images linked by a patient or by a duplicate mark.

    A link passes on: two patients who share a near-duplicate are one group, since an image of one
    in training gives away an image of the other in the test. The name is for each image the least
    duplicate mark (`dup_group`) of its group, else `patient:ID`, else the image's own.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(mark: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(mark, mark) != mark:
            parent[mark] = parent[parent[mark]]  # halve the path
            mark = parent[mark]
        return mark

    marks = []
    for name, patient, duplicate in zip(names, patients, duplicates, strict=True):
        own = []
        if duplicate:
            own.append(("", duplicate))
        if patient:
            own.append(("patient:", patient))
        marks.append(own or [("image", name)])
        for mark in own[1:]:
            # The lesser mark becomes the root, so names do not depend on the order of rows.
            low, high = sorted((root(own[0]), root(mark)))
            parent[high] = low
    return [
        name if own[0][0] == "image" else "".join(root(own[0]))
        for name, own in zip(names, marks, strict=True)
    ]
