"""What every command loads before it does anything, in every process that stays: not much."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "scipy",
    "sklearn",
    "matplotlib",
    "pydicom",
    "flwr",
)


@pytest.mark.parametrize("program", ["hica_client", "hica_server"])
def test_a_command_loads_no_large_library_before_it_needs_it(program):
    """Half a gigabyte and three seconds, for `--help` and for a process that looks after others."""
    code = f"import sys, {program}.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
