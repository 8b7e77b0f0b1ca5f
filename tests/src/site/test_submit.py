"""Submissions: a sound run is added whole; whatever is wrong is told in one line and changes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from datamodules import UserError
from src import submit
from src.compare import main as compare
from src.runs.folder import Run
from src.runs.results import Results
from tests.support.run_folders import make_run


def sealed_run(root: Path, cell: str = "good", seed: int = 0, **options) -> Path:
    """A run with identity, digest and seal, as src.fit writes them."""
    folder = make_run(root, cell, seed, **options)
    run = Run(folder)
    content = json.loads((folder / "results.json").read_text())
    known = {"identity": run.identity(), "predictions_sha256": run.predictions_sha256(), "main_metric": "top1"}
    results = Results.from_dict(content | known, folder).sealed()
    (folder / "results.json").write_text(json.dumps(results.to_dict()))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_added_without_checkpoints_and_once(tmp_path, capsys):
    run, board = sealed_run(tmp_path / "runs"), tmp_path / "board"
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (run / "predictions_link.json").symlink_to("/etc/hostname")
    target = submit.main([str(run), "--to", str(board)])
    kept = ["config.yaml", "data.json", "environment.json", "metrics.csv", "predictions.npz", "results.json"]
    assert sorted(files(target)) == kept
    assert all((target / name).read_bytes() == (run / name).read_bytes() for name in kept)
    before = files(board)
    assert submit.main([str(run), "--to", str(board)]) == target
    assert "has this run" in capsys.readouterr().out
    other = sealed_run(tmp_path / "others", quality=0.7)
    with pytest.raises(UserError, match="has another result"):
        submit.main([str(other), "--to", str(board)])
    assert files(board) == before
    assert compare([str(board)]).records[0].verified


def edit(folder: Path, name: str, **changes) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edited_metric(run: Path) -> None:
    edit(run, "results.json", metrics={"test": {"top1": 0.99, "samples": 500}})


def other_predictions(run: Path) -> None:
    arrays = dict(np.load(run / "predictions.npz"))
    np.savez(run / "predictions.npz", **(arrays | {"predicted": arrays["target"]}))


DAMAGE = {
    "results.json says top1": edited_metric,
    "predictions.npz gives": other_predictions,
    "kept no predictions": lambda run: (run / "predictions.npz").unlink(),
    "another config, data or code": lambda run: edit(run, "data.json", fingerprint="b" * 64),
    "config.yaml has cell": lambda run: edit(run, "results.json", cell="better"),
    "no identity": lambda run: edit(run, "results.json", identity=None),
    "has no results.json": lambda run: (run / "results.json").unlink(),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_what_is_wrong_is_told_and_nothing_is_added(said, tmp_path):
    run = sealed_run(tmp_path / "runs")
    DAMAGE[said](run)
    with pytest.raises(UserError, match=said):
        submit.main([str(run), "--to", str(tmp_path / "board")])
    assert not list((tmp_path / "board").rglob("*.json"))


def test_a_run_must_be_comparable_with_those_that_are_there(tmp_path):
    submit.main([str(sealed_run(tmp_path / "runs")), "--to", str(tmp_path / "board")])
    other = sealed_run(tmp_path / "runs", "longer", steps=240)
    with pytest.raises(UserError, match=r"cannot be compared .* budget"):
        submit.main([str(other), "--to", str(tmp_path / "board")])


def test_a_run_of_a_suite_needs_what_was_frozen(tmp_path):
    suite = {"name": "s", "source": "made up", "position": 0, "published": {}, "frozen": "f" * 64}
    run = sealed_run(tmp_path / "runs", results={"suite": suite})
    with pytest.raises(UserError, match="json is missing"):
        submit.main([str(run), "--to", str(tmp_path / "board")])
    entry = {"choices": {"overrides": {}}, "entry": {}}
    frozen = {"fixed": {"seeds": [0, 1]}, "variants": {"good": entry}}
    (run.parent.parent / "frozen.json").write_text(json.dumps(frozen))
    with pytest.raises(UserError, match="not those that were frozen"):
        submit.main([str(run), "--to", str(tmp_path / "board")])
