"""Fewer configs, the same experiments: every config that there was before suites had variants still runs by name.

tests/first_configs.yaml lists those 75: the arguments of src.fit that run each now, and a hash of its options then.
"""

import difflib
import hashlib
import inspect
import json
from importlib import import_module
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from src.cli import ByteBenchCLI
from src.suites.definition import expand_variant

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FIRST = yaml.safe_load((ROOT / "tests" / "first_configs.yaml").read_text())


class Parsed(ByteBenchCLI):
    """Parses its arguments and builds nothing."""

    def instantiate_classes(self) -> None:
        pass


def options_hash(args: list[str]) -> str:
    """The start of the SHA-256 of what a run's options say, as canonical JSON. Options at their defaults are left out, so
    that a new option changes no hash; so are the names of experiment and cell."""
    cli = Parsed(args, "test")
    options = yaml.safe_load(cli.parser.dump(cli.config, skip_default=True))
    options = without_defaults({name: options[name] for name in ("data", "model", "trainer")})
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def without_defaults(value):
    """Leave out, in nested options, the arguments of classes that have their default."""
    if isinstance(value, list):
        return [without_defaults(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: without_defaults(item) for name, item in value.items()}
    if "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        bases = inspect.getmro(getattr(import_module(module), name))[-2::-1]
        defaults = {p.name: p.default for base in bases for p in inspect.signature(base).parameters.values()}
        given = value.get("init_args", {}).items()
        # as JSON, in which tuples are lists
        changed = {n: v for n, v in given if json.dumps(v) != json.dumps(defaults.get(n, ...), default=str)}
        value["init_args"] = changed
    return value


@pytest.mark.parametrize("name", FIRST)
def test_every_first_config_runs_by_name_with_the_options_that_it_had(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = FIRST[name]["run"].split()
    if args[0] == "--config":
        assert args[1] == f"configs/{name}.yaml"
    assert options_hash(expand_variant(args)) == FIRST[name]["options"]


def test_the_first_configs_are_75_different_ones():
    assert len(FIRST) == 75
    assert len({config["options"] for config in FIRST.values()}) == 75


def lines(path: Path) -> list[str]:
    """The lines of a config without comments and blank lines."""
    kept = (line.partition(" #")[0].rstrip() for line in path.read_text().splitlines())
    return [line for line in kept if line and not line.lstrip().startswith("#")]


def test_no_two_configs_differ_by_fewer_than_seven_lines():
    """A hunk of the diff counts as the lines that it removes or adds, whichever is more. Smaller changes are variants."""
    contents = {path.stem: lines(path) for path in CONFIGS}
    close = []
    for first, second in combinations(contents, 2):
        diff = difflib.SequenceMatcher(None, contents[first], contents[second], autojunk=False).get_opcodes()
        changed = sum(max(i2 - i1, j2 - j1) for kind, i1, i2, j1, j2 in diff if kind != "equal")
        if changed < 7:
            close.append((first, second, changed))
    assert close == []
