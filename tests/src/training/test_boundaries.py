"""A sample of the kills, torn writes and full disks at system calls: `make faults-all` tries them all."""

import shutil
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize(("scenario", "every"), [("run", 19), ("prepare", 11)])
def test_what_is_struck_at_a_system_call_goes_on_to_the_same_bits(scenario, every):
    command = [sys.executable, "-m", "tests.support.boundaries", scenario, "--every", str(every), "--first", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(": ")[2] for line in done.stdout.splitlines() if line.startswith(scenario)]
    assert len(lines) == 3
    assert all(int(line.split()[0]) >= 3 for line in lines)  # struck
