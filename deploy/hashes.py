"""Write the hash of every file that an install of HiCA takes, for this platform and Python.

    python3.11 deploy/hashes.py requirements-hashes.txt
    pip install --require-hashes --only-binary :all: -r requirements-hashes.txt
    pip install --no-deps --no-build-isolation --no-index .

pip resolves what pyproject.toml asks for under constraints.txt, as an install would, and reports
the files and their SHA-256; nothing is installed. With `--require-hashes` pip then takes these very
files and no others, whatever is served under their names. Only wheels are taken, as a source
package runs code of its own when it is built. Plain pip of version 22.2 or newer, nothing else.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write the file; ends with code 2 and words where that is not possible."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the requirements file to write")
    parser.add_argument("--project", type=Path, default=ROOT, help="folder of pyproject.toml")
    options = parser.parse_args()
    try:
        lines = requirements(report(options.project))
        options.out.write_text("".join(lines), encoding="utf-8")
    except (OSError, ValueError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{options.out}: {len(lines) - 1} packages with their hashes")


def report(project: Path) -> dict[str, Any]:
    """What pip would install for a project, and to build it.

    Raises:
        OSError: pyproject.toml cannot be read.
        ValueError: pip finds no such set of wheels; pip's own words stand above.
    """
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*table["project"]["dependencies"], *table["build-system"]["requires"]]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        pip = (
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
            *("--only-binary", ":all:", "--report", str(out)),
            *("--constraint", str(project / "constraints.txt"), *asked),
        )
        if subprocess.run(pip, check=False).returncode != 0:
            raise ValueError(
                "pip cannot resolve pyproject.toml under constraints.txt to wheels for this "
                "platform: see what it says above; it needs version 22.2 or newer and a way to its "
                "index"
            )
        found: dict[str, Any] = json.loads(out.read_bytes())
        return found


def requirements(found: dict[str, Any]) -> list[str]:
    """Lines of the requirements file, sorted by name: the same report gives the same file.

    Raises:
        ValueError: pip reports a file without a SHA-256.
    """
    hashes = {}
    for item in found["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        sha256 = _sha256(item["download_info"].get("archive_info", {}))
        if sha256 is None:
            raise ValueError(
                f"{name}: pip reports no SHA-256 of it; take it from an index that has wheels"
            )
        hashes[f"{name}=={version}"] = sha256
    python = ".".join(platform.python_version_tuple()[:2])
    header = f"# {platform.system()} {platform.machine()}, Python {python}: made by hashes.py\n"
    lines = [f"{name} --hash=sha256:{hashes[name]}\n" for name in sorted(hashes, key=str.lower)]
    return [header, *lines]


def _sha256(archive: dict[str, Any]) -> str | None:
    """The hash of a file in pip's report; older versions of pip have another form."""
    text = archive.get("hashes", {}).get("sha256") or archive.get("hash", "")
    found = re.fullmatch(r"(?:sha256=)?([0-9a-f]{64})", text)
    return found.group(1) if found else None


if __name__ == "__main__":
    main()
