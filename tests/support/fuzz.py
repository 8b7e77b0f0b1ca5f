"""Broken and hostile configs, suites and run folders for every command: `make fuzz`, `python -m tests.support.fuzz 300 fit`.

Each input is a good one with a few random changes, drawn by number: the same number makes the same input again. A command
must end by itself with exit status 0 or 2 (reproduce also with 1, where results differ), in the latter case with one line
that says what is wrong; and must run nothing that the input names.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json

import timm.optim  # noqa: F401  (imported once, before the forks)
import yaml

import src.compare
import src.evaluate
import src.fit
import src.reproduce
import src.suite
import src.visualize
from tests.support import DIGITS, ROOT
from tests.support.forked import Outcome, invoke

FEW = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]
SMALL = {"num_latents": 2, "latent_dim": 8, "self_attends_per_block": 1, "self_heads": 2, "cross_attends": 2}
LEFT = "left-by-an-attack"
EVIL = f"open({LEFT!r}, 'w')\nfrom src.backbones import Transformer\nclass Model(Transformer): pass\n"
TRAINING = "FLOPs an example"  # what fit says once the model is built
TOUCH = {"command": f"touch {LEFT}"}
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**64, -(10**30), 0.5, -0.5, 1e308, float("nan"), float("inf"),
    "", " ", "x", "[/nope]", "\x1b[31m", "a\nb", "../../x", "/abs", "=1+1", "é", "\x00", "null", "{}", "[", "&a [*a]", "*a",
    "!!python/name:os.system", "1e-3", "x" * 2000, "-", "--trust=[evil]", "file:///etc/passwd", "http://127.0.0.1:9/x",
    [], {}, [[]], [None], {"": 1}, {"a": {"b": []}}, [1, "a", {}], {"class_path": "evil.Model"}, {"class_path": 3},
    {"class_path": "torch.utils.collect_env.run", "init_args": TOUCH}, {"class_path": "os.system", "init_args": TOUCH},
    {"class_path": "src.runs.folder.os.system", "init_args": TOUCH}, {"class_path": "src.tasks"}, {"init_args": {}},
    {"class_path": "torch.load", "init_args": {"f": "x"}}, {"class_path": "builtins.exec", "dict_kwargs": {"x": 1}},
    "evil.Model", "torch.optim.SGD", "src.backbones.Transformer", "datamodules.Diabetes", "src.fit.main", "a.b.c", ".", "..a",
]  # fmt: skip
BYTES = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"{",
    b"]",
    b"&a [*a]",
    b"PK\x03\x04",
    b"\n- ",
    b": ",
    b"\x80\x02}q\x00.",
    b"%",
    b"\t",
)


def good_run(folder: Path) -> Path:
    """A run of two steps, kept in a folder."""
    options = {f"model.backbone.{name}": value for name, value in SMALL.items()}
    words = [f"--{name}={value}" for name, value in options.items()]
    return src.fit.main(["--config", DIGITS, "--runs_dir", str(folder), *FEW, *words]).folder


def changed(content: Any, draw: random.Random) -> Any:
    """A document with one random change: a value replaced, left out, doubled, renamed or swapped."""
    places = list(places_in(content))
    if not places:
        return draw.choice(VALUES)
    holder, key = draw.choice(places)
    kind = draw.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[draw.choice(["", "x", f"{key}x", "class_path", "config", "trust", "__path__", 3, None])] = holder.pop(
            key
        )
    elif kind == 2:
        other, place = draw.choice(places)
        holder[key], other[place] = other[place], holder[key]
        json_safe(content)
    elif kind == 3 and isinstance(holder, list):
        holder *= draw.randrange(2, 5)
    elif kind == 4 and isinstance(holder[key], dict):
        holder[key][draw.choice(["x", "class_path", "init_args", "seed", "name", "command"])] = draw.choice(VALUES)
    elif kind == 5 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * draw.choice([-1, 0, 1000, 0.5, 10**12])
    else:
        holder[key] = draw.choice(VALUES)
    return content


def json_safe(content: Any) -> None:
    """Raises ValueError where a swap has put a mapping into itself."""
    json.dumps(content, default=str)


def places_in(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping with each of its keys, every list with each of its places."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys):
        yield content, key
        yield from places_in(content[key])


def spoil(path: Path, draw: random.Random) -> None:
    """Change a file at random: as a document, or byte by byte."""
    content = path.read_bytes()
    if path.suffix in (".json", ".yaml") and draw.random() < 0.8:
        read, write = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
        try:
            document = read(content)
            for _ in range(draw.choice([1, 1, 1, 2, 4])):
                document = changed(document, draw)
            path.write_text(write(document))
        except (TypeError, ValueError, RecursionError, yaml.YAMLError):
            path.write_text("[")  # what was made is no document: a key that is none, or a part inside itself
        return
    at = draw.randrange(len(content) + 1)
    kind = draw.randrange(5)
    if kind == 0:
        content = content[:at]
    elif kind == 1:
        content = content[:at] + draw.choice(BYTES) + content[at:]
    elif kind == 2:
        for _ in range(draw.choice([1, 3, 30])):
            at = draw.randrange(max(1, len(content)))
            content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
    elif kind == 3:
        content = draw.choice(BYTES)
    else:
        content = content[at:] + content[:at]
    path.write_bytes(content)


def spoil_run(folder: Path, draw: random.Random, names: tuple[str, ...]) -> None:
    """Spoil one or two files of a run folder; now and then one is missing, or is a folder."""
    for _ in range(draw.choice([1, 1, 2])):
        path = folder / draw.choice(names)
        if not path.is_file():
            continue
        if draw.random() < 0.05:
            path.unlink()
            if draw.random() < 0.5:
                path.mkdir()
        else:
            spoil(path, draw)


def fit_input(folder: Path, run: Path, draw: random.Random) -> list[str]:
    config = yaml.safe_load(Path(DIGITS).read_text())
    config["model"]["init_args"]["backbone"]["init_args"] |= SMALL
    name = draw.choice(["given.yaml", "given.txt", "given"])
    (folder / "start.yaml").write_text(yaml.safe_dump(config))
    spoil(folder / "start.yaml", draw)
    (folder / "start.yaml").rename(folder / name)
    return ["--config", name, "--runs_dir", "runs", *FEW]


def suite_input(folder: Path, run: Path, draw: random.Random) -> list[str]:
    (folder / "suites").mkdir()
    shutil.copy(DIGITS, folder / "digits_perceiver.yaml")
    name = draw.choice(["digits_ablations", "composed_lambda", "probe", "permuted_fashion_mnist", "perceiver_table2"])
    shutil.copy(ROOT / "configs" / "suites" / f"{name}.yaml", folder / "suites")
    for config in (ROOT / "configs").glob("*.yaml"):
        shutil.copy(config, folder)
    spoil(folder / "suites" / f"{name}.yaml", draw)
    return [f"suites/{name}.yaml", "--list"]


def run_input(words: list[str], names: tuple[str, ...]) -> Callable[[Path, Path, random.Random], list[str]]:
    def make(folder: Path, run: Path, draw: random.Random) -> list[str]:
        shutil.copytree(run, folder / "runs" / "run")
        spoil_run(folder / "runs" / "run", draw, names)
        return [*words, "runs/run"]

    return make


def compare_input(folder: Path, run: Path, draw: random.Random) -> list[str]:
    for name in ("a", "b", "c"):
        shutil.copytree(run, folder / "runs" / name, ignore=shutil.ignore_patterns("checkpoints"))
    names = ("config.yaml", "data.json", "environment.json", "results.json", "metrics.csv", "predictions.npz")
    spoil_run(folder / "runs" / "b", draw, names)
    forms = [["--csv", "x.csv"], ["--html", "x.html"], ["--markdown", "x.md"], ["--latex", "x.tex"], ["--any-budget"]]
    return ["runs", *draw.choice([*forms, ["--split", "val"], []])]


MEASURED = ("config.yaml", "config.yaml", "data.json", "checkpoints/last.ckpt")
REPEATED = ("config.yaml", "config.yaml", "environment.json", "data.json", "results.json", "metrics.csv")
COMMANDS: dict[str, tuple[Callable[[list[str]], object], Callable[[Path, Path, random.Random], list[str]]]] = {
    "fit": (src.fit.main, fit_input),
    "suite": (src.suite.main, suite_input),
    "compare": (src.compare.main, compare_input),
    "evaluate": (src.evaluate.main, run_input(["--run"], MEASURED)),
    "visualize": (src.visualize.main, run_input(["--samples", "2"], (*MEASURED, "metrics.csv"))),
    "reproduce": (src.reproduce.main, run_input(["--runs_dir", "again"], REPEATED)),
}


def attempt(command: str, number: int, run: Path) -> tuple[list[str], Outcome, str | None]:
    """Try one input on a command: the words, how it ended, and what is wrong with that."""
    main, make = COMMANDS[command]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        words = make(folder, run, random.Random(f"{command}{number}"))
        (folder / "evil.py").write_text(EVIL)
        outcome = invoke(main, words, folder)
        found = outcome.complaint((0, 1, 2) if command == "reproduce" else (0, 2))
        if outcome.status is None and TRAINING in outcome.printed:
            found = None  # of a large model, which takes its time
        if list(folder.rglob(LEFT)):
            found = "an attack ran"
    return words, outcome, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=300, help="inputs for each command")
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), help="which commands")
    parser.add_argument("--only", type=int, help="this input alone, with all that the command says")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = good_run(Path(place))
        for command in options.commands:
            began, ended, wrong = time.monotonic(), Counter(), 0
            for number in range(options.count) if options.only is None else [options.only]:
                words, outcome, complaint = attempt(command, number, run)
                ended[outcome.status] += 1
                if complaint or options.only is not None:
                    wrong += complaint is not None
                    last = (outcome.errors.splitlines() or [""])[-1]
                    print(f"{command} {number}: {complaint}: {last[:300]}", flush=True)
                    if options.only is not None:
                        print(words, outcome.printed, outcome.errors, sep="\n")
            told = ", ".join(f"{count} with status {status}" for status, count in sorted(ended.items(), key=str))
            print(
                f"{command}: {sum(ended.values())} inputs, {wrong} wrong; ended {told}; {time.monotonic() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
