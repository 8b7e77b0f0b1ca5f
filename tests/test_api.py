"""`fit`, `evaluate` and `compare` as functions, in a process that has imported nothing else of the project."""

import json
import subprocess
import sys

from tests.support import ROOT

SCRIPT = """
import json
from src import compare, evaluate, fit
small = {"trainer.max_epochs": 1, "runs_dir": "RUNS", "model.optimizer.lr": 0.01}
runs = [fit("digits_perceiver", options=small | {"seed_everything": seed}) for seed in (0, 1)]
again = evaluate(runs[0])
best = evaluate(str(runs[0].folder), split="val", checkpoint="best")
comparison = compare(runs)
[variant] = comparison.variants
print(json.dumps([runs[0].results().metrics, again, best, sorted(variant.values["top1"]), len(comparison.excluded)]))
from src import fit as same
assert same is fit
"""


def test_two_runs_are_trained_measured_again_and_compared_in_python(tmp_path):
    script = SCRIPT.replace("RUNS", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics, again, best, seeds, excluded = json.loads(done.stdout.splitlines()[-1])
    assert again == metrics["test"]
    assert best["top1"] == metrics["val"]["top1"]  # one epoch: the last checkpoint is the best
    assert len(seeds) == 2
    assert excluded == 0
