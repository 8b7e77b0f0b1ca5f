"""Submissions: a sound run is added whole; whatever is wrong is told in one line and changes nothing."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml

from datamodules import UserError
from src import submit
from src.api import fit
from src.compare import main as compare
from src.runs.folder import Run
from src.runs.results import Results
from src.suites.definition import Suite, load_suite
from src.suites.protocol import FROZEN, freeze, frozen_entry
from tests.support import ROOT
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


SMALL = {"name": "small", "config": "digits_perceiver"}
WIDE = {"name": "wide", "config": "digits_perceiver", "overrides": {"model.backbone.latent_dim": 128}}
SUITE = {"source": "none", "seeds": [0, 1], "claims": ["wide > small"], "variants": [SMALL, WIDE]}


def write_suite(folder: Path, **changes) -> Path:
    """A suite file beside the config that it names."""
    (folder / "configs" / "suites").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "configs" / "digits_perceiver.yaml", folder / "configs")
    path = folder / "configs" / "suites" / "tiny.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes))
    return path


def frozen_run(root: Path, suite: Suite, cell: str, quality: float = 0.8, seed: int = 0) -> Path:
    """A run of a suite that froze its claims and choices before."""
    freeze(suite, root / suite.name)
    entry = frozen_entry(root / suite.name, cell)
    assert entry is not None
    known = {"results": {"suite": asdict(entry)}, "environment": {"frozen": entry.frozen}}
    return sealed_run(root, cell, seed, quality=quality, experiment=suite.name, **known)


def edit_frozen(run: Path, change) -> None:
    path = run.parent.parent / FROZEN
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_run_that_a_suite_trained_is_added_with_what_was_frozen(tmp_path):
    suite = write_suite(tmp_path)
    options = {"suite": str(suite), "experiment": "tiny", "cell": "small", "runs_dir": str(tmp_path / "runs")}
    run = fit("digits_perceiver", options=options | {"trainer.max_epochs": 1})
    target = submit.main([str(run.folder), "--to", str(tmp_path / "board")])
    assert target == tmp_path / "board" / "tiny" / "small" / "seed0"
    assert (tmp_path / "board" / "tiny" / FROZEN).read_text() == (tmp_path / "runs" / "tiny" / FROZEN).read_text()
    (record,) = compare([str(tmp_path / "board")]).records
    assert record.verified
    assert record.results.suite is not None
    assert record.results.suite.frozen == record.environment["frozen"]


EDITS = {
    "its claims": lambda run: edit_frozen(run, lambda c: c["fixed"].update(claims=["small > wide"])),
    "its choices": lambda run: edit_frozen(run, lambda c: c["variants"]["small"]["choices"].update(overrides={"x": 1})),
    "the hash in its environment": lambda run: edit(run, "environment.json", frozen="0" * 64),
    "the hash in its results": lambda run: edit(
        run, "results.json", suite=json.loads((run / "results.json").read_text())["suite"] | {"frozen": "0" * 64}
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_run_whose_freeze_was_edited_is_refused_in_one_line(what, tmp_path):
    run = frozen_run(tmp_path / "runs", load_suite(write_suite(tmp_path)), "small")
    EDITS[what](run)
    with pytest.raises(UserError, match="not those that were frozen before it was trained") as error:
        submit.main([str(run), "--to", str(tmp_path / "board")])
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "board").rglob("*.json"))


def test_a_variant_that_a_suite_got_later_is_added_to_its_folder_and_the_site_shows_it(tmp_path):
    board, site = tmp_path / "board", tmp_path / "site"
    first = load_suite(write_suite(tmp_path, variants=[SMALL, WIDE]))
    for cell, quality in (("small", 0.6), ("wide", 0.9)):
        submit.main([str(frozen_run(tmp_path / "runs", first, cell, quality)), "--to", str(board)])
    compare([str(board), "--site", str(site)])
    assert not (site / "tiny" / "third.html").exists()
    later = load_suite(write_suite(tmp_path, variants=[SMALL, WIDE, SMALL | {"name": "third"}]))
    submit.main([str(frozen_run(tmp_path / "elsewhere", later, "third", 0.8)), "--to", str(board)])
    frozen = json.loads((board / "tiny" / FROZEN).read_text())
    assert list(frozen["variants"]) == ["small", "wide", "third"]
    (comparison,) = compare([str(board), "--site", str(site)])
    assert [variant.label for variant in comparison.variants] == ["small", "wide", "third"]
    assert comparison.excluded == []
    assert 'href="third.html">third</a>' in (site / "tiny" / "index.html").read_text()
    assert "verified" in (site / "tiny" / "third.html").read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"claims": ["small > wide"]}, "its suite froze other claims than"),
        ({"variants": [SMALL | {"overrides": {"model.dropout": 0.1}}, WIDE]}, "has other choices for small"),
    ],
)
def test_a_run_of_another_protocol_than_the_folder_is_refused(changes, said, tmp_path):
    board = tmp_path / "board"
    submit.main([str(frozen_run(tmp_path / "runs", load_suite(write_suite(tmp_path)), "small")), "--to", str(board)])
    before = files(board)
    other = frozen_run(tmp_path / "others", load_suite(write_suite(tmp_path, **changes)), "small", seed=1)
    with pytest.raises(UserError, match=said):
        submit.main([str(other), "--to", str(board)])
    assert files(board) == before
