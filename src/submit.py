"""Add a run to a folder of runs: `python -m src.submit runs/digits/perceiver/seed0 --to leaderboard`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from datamodules import UserError

from .config.command import Parser, run_command
from .config.names import check_name
from .config.package import command_name
from .metrics.recomputed import recompute
from .report.records import Record
from .report.rules import split_runs
from .runs.files import PART, digest_of, json_text, put_in_place, write_file
from .runs.folder import Run, find_runs
from .runs.lock import owned
from .suites.protocol import FROZEN, read_frozen

DESCRIPTION = """Add a finished run to a folder of runs, such as that of a leaderboard. Its files must fit each other, its
metrics must follow from its predictions, it must have kept to the protocol of its suite, and it must be comparable with the
runs that are there. It is copied without checkpoints, whole or not at all; no result is overwritten. Exit code 2, with
one line that says what is wrong, if it is not added."""


def main(args: list[str] | None = None) -> Path:
    """Returns the folder that the run was copied to."""
    parser = Parser(command_name("submit"), description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a folder of runs")
    options = parser.parse_args(args)
    record = Record.of(Run(options.run))
    check_record(record)
    results = record.results
    experiment = options.to / check_name(f"{options.run}: experiment", results.experiment)
    target = experiment / check_name(f"{options.run}: cell", results.cell) / f"seed{results.seed}"
    with owned(experiment, "try again when it has ended"):
        if target.exists():
            if Run(target).results() == results:
                print(f"{target} has this run")
                return target
            raise UserError(f"{target} has another result: submit under another cell or seed")
        frozen = merged_protocol(record, experiment)
        check_comparable(record, experiment)
        copy_run(record.run, target)
        if frozen is not None:
            write_file(experiment / FROZEN, frozen)
    print(f"added: {target}")
    return target


def check_record(record: Record) -> None:
    """Raises UserError where the files of a run do not fit each other, or do not show its metrics."""
    where, results, config = record.folder, record.results, record.config
    for name, value in (("experiment", results.experiment), ("cell", results.cell), ("seed_everything", results.seed)):
        if config.get(name) != value:
            raise UserError(
                f"{where}: config.yaml has {name} {config.get(name)!r}, results.json {value!r}: train it again"
            )
    if results.identity is None or results.seal is None or results.predictions_sha256 is None:
        raise UserError(f"{where}: results.json has no identity, seal or digest of predictions: train it again")
    if record.of_another_identity:
        raise UserError(f"{where}: results.json was written with another config, data or code: train it again")
    if record.contradictions:
        raise UserError(f"{where}: {record.contradictions[0]}: train it again")
    tested, predictions = record.metrics("test"), record.predictions
    if results.main_metric not in tested:
        raise UserError(f"{where} was not measured on the test split: submit a run that was")
    if predictions is None or results.main_metric not in recompute(predictions, tested):
        raise UserError(f"{where} kept no predictions that {results.main_metric} follows from: it cannot be verified")


def merged_protocol(record: Record, experiment: Path) -> str | None:
    """The frozen.json that the folder has with this run; None where it stays as it is.

    Raises:
        UserError: the run did not keep to what its suite froze, or to what the folder's suite froze.
    """
    suite, where = record.results.suite, record.folder
    ours = experiment / FROZEN
    if suite is None:
        if ours.is_file():
            raise UserError(f"{where} belongs to no suite, {experiment} is one's: run it by `{command_name('suite')}`")
        return None
    path = record.run.folder.parent.parent / FROZEN
    if not path.is_file():
        raise UserError(f"{where}: {path} is missing, which has what its suite froze: submit the run where it was made")
    frozen, name = read_frozen(path), record.results.cell
    if name not in frozen["variants"]:
        raise UserError(f"{where}: {path} froze no variant {name}: run it by `{command_name('suite')}`")
    digest = digest_of([frozen["fixed"], frozen["variants"][name]["choices"]])
    if not digest == suite.frozen == record.environment.get("frozen"):
        raise UserError(
            f"{where}: claims or choices are not those that were frozen before it was trained: train it again"
        )
    if record.results.seed not in (seeds := frozen["fixed"].get("seeds", [record.results.seed])):
        raise UserError(f"{where}: its suite has the seeds {seeds}, not {record.results.seed}")
    if not ours.is_file():
        return path.read_text(encoding="utf-8")
    known = read_frozen(ours)
    for key in frozen["fixed"].keys() | known["fixed"].keys():
        if digest_of(frozen["fixed"].get(key)) != digest_of(known["fixed"].get(key)):
            raise UserError(f"{where}: its suite froze other {key} than {ours}: run it by the suite of that folder")
    if name not in known["variants"]:
        return json_text({**known, "variants": known["variants"] | {name: frozen["variants"][name]}})
    if digest_of(known["variants"][name]["choices"]) != digest_of(frozen["variants"][name]["choices"]):
        raise UserError(f"{where}: {ours} has other choices for {name}: give the variant another name")
    return None


def check_comparable(record: Record, experiment: Path) -> None:
    """Raises UserError where the run cannot be compared with those that are there."""
    if not next(experiment.rglob("results.json"), None):
        return
    there = [Record.of(run) for run in find_runs([experiment])]
    reference = there[0].results.suite.reference if there[0].results.suite else None
    _, excluded = split_runs([*there, record], "test", reference=reference or there[0].variant[1])
    reasons = next((out.reasons for out in excluded if out.folder == record.folder), ())
    if reasons:
        raise UserError(f"{record.folder} cannot be compared with the runs in {experiment}: {'; '.join(reasons)}")


def copy_run(run: Run, target: Path) -> None:
    """Copies the files of a run, all or none; results.json comes last."""
    aside = target.with_name(f"{target.name}.{os.getpid()}{PART}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        for file in run.copied_files():
            write_file(aside / file.name, file.read_bytes())
        put_in_place(aside, target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


if __name__ == "__main__":
    run_command(main)
