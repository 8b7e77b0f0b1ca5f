"""The identity of a run: what its result depends on, and what may differ without another result."""

from __future__ import annotations

from typing import Any

from .files import digest_of

# The version of what the code computes. It is raised by hand when a change makes equal configs and data give numbers that
# differ by more than rounding, which tests/test_first_house.py notices. Not the git commit, nor the package's version: most
# of their changes leave every number as it was, and finished suites would have to train again after each. Both are in
# environment.json all the same.
CODE = 1

# Options that say where a run lies, and where and how it is computed and shown: not what
PLACES = {
    f"trainer.{name}"
    for name in (
        "accelerator",
        "devices",
        "num_nodes",
        "strategy",
        "enable_progress_bar",
        "enable_model_summary",
        "log_every_n_steps",
        "logger",
        "default_root_dir",
        "profiler",
        "enable_checkpointing",
    )
}
PLACES |= {"runs_dir", "experiment", "cell", "suite", "config", "tags", "test"}
PLACES |= {f"data.init_args.{name}" for name in ("num_workers", "decode_workers", "in_memory", "data_dir")}
DERIVED = "model.init_args.data_spec"  # from the data, which data.json describes


def identity(config: dict, data: dict, code: int = CODE) -> str:
    """One hash of what a result depends on.

    Args:
        config: config.yaml, nested.
        data: data.json.
        code: the version of what the code computed.
    """
    described = {name: data.get(name) for name in ("dataset", "fingerprint", "splits")}
    return digest_of({"config": essential(config), "data": described, "code": code})


def essential(config: dict) -> dict[str, Any]:
    """The options, with dotted names, that are no places; paths of other runs without the folder that all runs lie in."""
    home = f"{config.get('runs_dir')}/"
    return {
        name: placeless(value, home)
        for name, value in flat(config).items()
        if name not in PLACES and not f"{name}.".startswith(f"{DERIVED}.")
    }


def placeless(value: Any, home: str) -> Any:
    if isinstance(value, dict):
        return {name: placeless(each, home) for name, each in value.items()}
    if isinstance(value, list):
        return [placeless(each, home) for each in value]
    if not isinstance(value, str):
        return value
    return value.replace(home, "{runs_dir}/", 1) if value.startswith(home) else value.replace("bytebench.", "src.", 1)


def changes(began: dict, now: dict) -> dict[str, tuple[Any, Any]]:
    """Options that are no places and differ between two configs: name to what it was and what it is."""
    before, after = essential(began), essential(now)
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def flat(config: dict, prefix: str = "") -> dict:
    """Nested mappings as one, with dotted keys."""
    found: dict = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found
