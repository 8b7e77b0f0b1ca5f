"""What differs between the runs of a table, in three classes.

  studied         options of the model and of the data: what variants are made to compare
  costs fairness  what may move a result and is not what a table asks: precision, versions of PyTorch, commits, uncommitted
                  changes, compilation, label smoothing, batch size, skipped samples, limits on batches, callbacks,
                  hardware; and whatever is not known to be harmless
  harmless        what moves no result: where runs lie, workers, logging, checkpoints, other packages
Nothing that differs is left out of the list, whether between variants or between the runs of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..runs.identity import PLACES
from .records import Record

Kind = Literal["studied", "costs fairness", "harmless"]
KINDS: tuple[Kind, ...] = ("studied", "costs fairness", "harmless")
ABSENT = "(absent)"
Changes = dict[str, tuple[Any, Any]]  # name -> this run's value, the reference's

# Options that may differ between the runs of a variant: what they are of, where they ran, and what is kept of them
HARMLESS = PLACES | {"seed_everything", "data.init_args.fold", "resume", "trust"}
HARMLESS |= {f"trainer.{name}" for name in ("check_val_every_n_epoch", "val_check_interval", "num_sanity_val_steps")}
FAIRNESS = {"model.init_args.label_smoothing"}
FAIRNESS |= {f"data.init_args.{name}" for name in ("batch_size", "on_bad_sample", "max_bad_share")}
# Packages whose version may move a number
NUMERIC = re.compile(r"(torch|timm|lightning|pytorch|numpy|scipy|triton|nvidia|transformers|scikit|opencv|pillow|av$)")
LONGEST = 60


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Args:
        kind: its class.
        name: the option without `init_args`, or what was recorded of the run.
        values: each value, and what has it: a variant, or runs of one as `variant seed 3`.
    """

    kind: Kind
    name: str
    values: dict[str, list[str]]

    @property
    def line(self) -> str:
        """`trainer.precision: 32 (a, b), bf16-mixed (c)`."""
        return f"{self.name}: " + ", ".join(f"{value} ({shortened(who)})" for value, who in self.values.items())


def shortened(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def kind_of_option(name: str) -> Kind:
    if name in HARMLESS:
        return "harmless"
    return "studied" if name.startswith(("model.", "data.")) and name not in FAIRNESS else "costs fairness"


def recorded(record: Record) -> dict[tuple[Kind, str], Any]:
    """What was recorded of a run beside its config."""
    where, results = record.environment, record.results
    found: dict[tuple[Kind, str], Any] = {
        ("costs fairness", "commit"): (where["git"]["commit"] or ABSENT)[:12],
        ("costs fairness", "uncommitted changes"): bool(where["git"]["dirty"]),
        ("costs fairness", "hardware"): record.hardware,
        ("costs fairness", "CUDA"): (where["gpus"] and where["cuda"]) or ABSENT,
        ("costs fairness", "skipped samples"): results.bad_samples,
        ("costs fairness", "training steps"): results.steps,
        ("harmless", "python"): where["python"],
        ("harmless", "platform"): where["platform"],
    }
    for name, value in where["torch"].items():
        found["costs fairness", f"torch {name}"] = value
    for name, version in where["packages"].items():
        kind: Kind = "costs fairness" if NUMERIC.match(name.lower()) else "harmless"
        found[kind, f"package {name}"] = version
    return found


def differences(variants: Sequence[tuple[str, Sequence[Record]]]) -> list[Difference]:
    """All that differs between runs, in the order of `KINDS`.

    Args:
        variants: labels with their runs.
    """
    runs = [(label, record, recorded(record)) for label, records in variants for record in records]
    whole = {label: len(records) for label, records in variants}
    found = []
    options = changed(record.config for _, record, _ in runs)
    for name in options:
        if name not in ("seed_everything", "cell", "data.init_args.fold"):  # say which run it is
            values = [seedless(name, record.config.get(name, ABSENT), record) for _, record, _ in runs]
            found.append((kind_of_option(name), name.replace("init_args.", ""), values))
    for key in changed(facts for _, _, facts in runs):
        found.append((*key, [facts.get(key, ABSENT) for _, _, facts in runs]))
    listed = []
    for kind, name, values in found:
        who: dict[str, list[tuple[str, int]]] = {}
        for value, (label, record, _) in zip(values, runs, strict=True):
            who.setdefault(shown(value), []).append((label, record.seed))
        if len(who) > 1:
            listed.append(Difference(kind, name, {value: named(pairs, whole) for value, pairs in who.items()}))
    return sorted(listed, key=lambda each: KINDS.index(each.kind))


def changed(mappings: Iterable[dict]) -> list:
    """Keys with more than one value, as they come; those of a class are left out where the class itself differs."""
    values: dict[Any, set[str]] = {}
    mappings = list(mappings)
    for mapping in mappings:
        for key, value in mapping.items():
            values.setdefault(key, set()).add(repr(value))
    missing = [key for key in values if any(key not in mapping for mapping in mappings)]
    for key in missing:
        values[key].add(ABSENT)
    return without_inner([key for key, found in values.items() if len(found) > 1])


def without_inner(names: list) -> list:
    """Options without those of classes that are themselves among them."""
    classes = tuple(
        f"{name.removesuffix('class_path')}init_args." for name in names if str(name).endswith("class_path")
    )
    return [name for name in names if not isinstance(name, str) or not name.startswith(classes)]


def shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def named(runs: Sequence[tuple[str, int]], whole: dict[str, int]) -> list[str]:
    """Variants that are there with all their runs by name, single runs with their seed."""
    labels = [label for label, _ in runs]
    return list(
        dict.fromkeys(label if labels.count(label) == whole[label] else f"{label} seed {seed}" for label, seed in runs)
    )


def config_changes(run: Record, reference: Record) -> Changes:
    """Options that differ between two runs, without harmless ones and values derived from the seed: values that are the
    seed in both, or contain `seed<k>`. Options of a class are not listed where the class itself differs."""
    changes = {}
    for name in sorted(run.config.keys() | reference.config.keys()):
        this, other = (record.config.get(name, ABSENT) for record in (run, reference))
        if this == other or name in HARMLESS or seedless(name, this, run) == seedless(name, other, reference):
            continue
        changes[name] = (this, other)
    return {name: changes[name] for name in without_inner(list(changes))}


def seedless(name: str, value: Any, record: Record) -> Any:
    """A value with the run's seed and runs_dir replaced by {seed} and {runs_dir}, as suites write them."""
    if name.endswith("seed") and value == record.seed:
        return "{seed}"
    if isinstance(value, str):
        home = str(record.config.get("runs_dir", "runs"))
        value = "{runs_dir}" + value.removeprefix(home) if value.startswith(f"{home}/") else value
        return value.replace(f"seed{record.seed}", "seed{seed}")
    return value
