"""A small hospital's folder, a study, and what tests do to them."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
STUDY = """
[study]
name = "masses"
[model]
train = "full"
[alignment]
shots = 2
views = 3
[federation]
min_count = 2
[[classes]]
name = "benign"
prompts = ["a smooth oval mass"]
findings = ["oval shape"]
[[classes]]
name = "malignant"
prompts = ["a spiculated mass"]
findings = ["spiculated margin"]
"""


def change(site: Path, old: str, new: str, name: str = "manifest.csv") -> None:
    path = site.parent / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def messages(found: dict) -> list[str]:
    return [problem["message"] for problem in found["problems"]]
