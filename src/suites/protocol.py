"""What a suite fixes before the test split is read: its claims, what is held equal, and the choices for every variant.

RUNS_DIR/SUITE/frozen.json has them with the time. Every run of the suite has their hash in its environment.json, written
before it trains, and in its results. Once a run has read the test split, only further variants may be added to the file.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datamodules import UserError

from ..config.documents import read_json, read_yaml
from ..runs.files import digest_of, json_text, write_file
from ..runs.folder import find_finished
from ..runs.results import SuiteEntry
from ..runs.schema import check
from .definition import Suite, load_suite

FROZEN = "frozen.json"


def freeze(suite: Suite, experiment: Path) -> None:
    """Writes frozen.json, or checks that claims and choices are still those it has.

    Args:
        suite: with the choices of tuning, if there was any.
        experiment: the folder of its runs.

    Raises:
        UserError: they were changed after a run had read the test split.
    """
    path, wanted = experiment / FROZEN, described(suite)
    if path.is_file() and has_results(experiment):
        frozen = read_frozen(path)
        for key, value in frozen["fixed"].items():
            if digest_of(value) != digest_of(wanted["fixed"].get(key)):
                raise UserError(changed(path, key))
        for name, variant in frozen["variants"].items():
            now = wanted["variants"].get(name, variant)
            if digest_of(variant["choices"]) != digest_of(now["choices"]):
                raise UserError(changed(path, f"the choices for {name}"))
        added = {name: v for name, v in wanted["variants"].items() if name not in frozen["variants"]}
        if not added:
            return
        wanted = {**frozen, "variants": frozen["variants"] | added}
    elif path.is_file() and digest_of({**read_frozen(path), "at": None}) == digest_of({**wanted, "at": None}):
        return
    experiment.mkdir(parents=True, exist_ok=True)
    write_file(path, json_text(wanted))


def frozen_entry(experiment: Path, name: str) -> SuiteEntry | None:
    """Where a variant stands in its suite, with the hash of what was frozen; None where nothing was for this name."""
    path = experiment / FROZEN
    if not path.is_file():
        return None
    frozen = read_frozen(path)
    found = frozen["variants"].get(name)
    if found is None:
        return None
    check(found["entry"], SuiteEntry, path)
    digest = digest_of([frozen["fixed"], found["choices"]])
    return replace(SuiteEntry.from_dict(found["entry"]), frozen=digest)


def entry_of(config: Any, freezing: bool) -> SuiteEntry | None:
    """Where a run stands in its suite, as it was frozen; None where it belongs to none.

    Args:
        config: the options of src.fit. The suite's file is read where nothing is frozen for this variant: it is run alone.
        freezing: whether to freeze it then.
    """
    if not config["suite"]:
        return None
    experiment, name = Path(config["runs_dir"], config["experiment"]), config["cell"]
    if (found := frozen_entry(experiment, name)) is not None:
        return found
    suite = load_suite(Path(config["suite"]))
    entry = suite.entry(name)
    if freezing:
        freeze(suite, experiment)
    return frozen_entry(experiment, name) or entry


def described(suite: Suite) -> dict[str, Any]:
    """What frozen.json holds."""
    fixed = {
        "claims": list(suite.claims),
        "equal": suite.equal,
        "reference": suite.reference,
        "baseline": list(suite.baselines),
        "seeds": list(suite.seeds),
        "budget": suite.budget,
    }
    variants = {}
    for variant in suite.variants:
        choices = {"config": read_yaml(variant.config), "overrides": variant.overrides, "tuned": variant.tuned}
        variants[variant.name] = {"choices": choices, "entry": asdict(suite.entry(variant.name))}
    return {"at": datetime.now(UTC).isoformat(timespec="seconds"), "fixed": fixed, "variants": variants}


def has_results(experiment: Path) -> bool:
    """Whether a run in this folder has finished, and so has read the test split."""
    return bool(find_finished(experiment))


def read_frozen(path: Path) -> dict[str, Any]:
    content = read_json(path)
    shape = {"fixed": dict, "variants": dict}
    if not isinstance(content, dict) or any(not isinstance(content.get(k), kind) for k, kind in shape.items()):
        raise UserError(f"{path} does not hold what a suite has frozen: restore it, or move the folder away")
    if not all(isinstance(v, dict) and v.keys() >= {"choices", "entry"} for v in content["variants"].values()):
        raise UserError(f"{path} does not hold what a suite has frozen: restore it, or move the folder away")
    return content


def changed(path: Path, what: str) -> str:
    return (
        f"{what} changed after {path} froze it, and the test split has been read since: restore it, or give the suite's "
        "file another name"
    )
