"""Which runs cannot be compared, and why.

Two runs can be compared when they agree in
  data        data set, fingerprint of its bytes, classes, and the members of train, val and test. Modalities and the order of
              elements may differ: that is what is compared
  budget      how many samples training took steps on: optimizer steps x data.batch_size (of all devices together) x
              trainer.accumulate_grad_batches. With equal batch sizes the numbers must be equal; with different ones they may
              differ by the incomplete last batches that training drops, less than one per epoch. Where trainer.max_time
              ended the runs, the budget is that time on that hardware instead. Earlier training of weights that a run loads,
              such as a probe's, does not count. With --any-budget variants may differ, and the table shows their budgets
  metric      its definition and the number of samples measured; older runs without a definition agree with all
A run whose files contradict each other is left out first; its metrics are computed again from its predictions.
Runs of one variant must also agree in their whole configs, apart from the seed, values derived from it, and where they ran;
each seed counts once. Cross-validated variants (data.fold, data.fold_seed) are compared fold by fold, and must have the same
folds for every seed.

Among runs that disagree, the largest set that agrees is kept (of equally large sets the one with the run named first); the
others are left out of all statistics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..runs.identity import PLACES
from .records import Record

# Options that may differ between the runs of a variant: where they ran, and what is kept of them
IGNORED_OPTIONS = PLACES | {"seed_everything", "data.init_args.fold"}
ABSENT = "(absent)"
Changes = dict[str, tuple[Any, Any]]  # name -> this run's value, the reference's


@dataclass(frozen=True)
class Excluded:
    """A run that is left out: why, and how its config differs from that of `reference`, a run folder that is kept.

    Attributes:
        contradicts: whether its metrics are not those of its predictions.
    """

    folder: str
    variant: tuple[str, str]
    seed: int | None
    reasons: tuple[str, ...]
    reference: str = ""
    changes: Changes | None = None
    contradicts: bool = False


def without_contradictions(records: Sequence[Record]) -> tuple[list[Record], list[Excluded]]:
    """The runs whose files agree with each other, and the others."""
    kept, excluded = [], []
    for record in records:
        reasons = list(record.contradictions)
        if record.of_another_identity:
            reasons.append("results.json was written with another config, data or code than this folder has")
        if reasons:
            wrong = bool(record.contradictions)
            excluded.append(Excluded(record.folder, record.variant, record.seed, tuple(reasons), contradicts=wrong))
        else:
            kept.append(record)
    return kept, excluded


def split_runs(records: Sequence[Record], split: str, any_budget: bool = False) -> tuple[list[Record], list[Excluded]]:
    """The runs that can be compared with each other, and those that cannot."""

    def reasons(run: Record, reference: Record) -> list[str]:
        """Why a run cannot be compared with another; empty if it can."""
        of_budget = [] if any_budget else budget_reasons(run, reference)
        return data_reasons(run, reference) + of_budget + metric_reasons(run, reference, split)

    kept, excluded = keep_largest(list(records), reasons)
    if kept and kept[0].fold is not None:
        for group_of in (fold_of, lambda record: record.repeat):
            kept, others = keep_in_groups(kept, group_of, reasons)
            excluded += others
    kept, others = keep_in_groups(kept, lambda record: record.variant, odd_configs)
    excluded += others
    for drop in (drop_repeats, drop_odd_folds):
        kept, others = drop(kept)
        excluded += others
    return kept, [with_changes(out, records, kept) for out in excluded]


def data_reasons(run: Record, reference: Record) -> list[str]:
    this, other = run.data, reference.data
    if this["dataset"] != other["dataset"]:
        return [f"data: {this['dataset']}, not {other['dataset']}"]
    reasons = []
    if this["fingerprint"] != other["fingerprint"]:
        reasons.append(f"data: bytes with fingerprint {this['fingerprint'][:8]}, not {other['fingerprint'][:8]}")
    if any(this["spec"].get(name) != other["spec"].get(name) for name in ("task", "classes")):
        reasons.append("data: other classes")
    if same_samples(run, reference):
        for name in sorted(this["splits"].keys() | other["splits"].keys(), reverse=True):
            a, b = this["splits"].get(name, {}), other["splits"].get(name, {})
            if a.get("keys_sha256") != b.get("keys_sha256"):
                reasons.append(f"{name} split: other members ({a.get('samples', 0):,}, not {b.get('samples', 0):,})")
    return reasons


def fold_of(record: Record) -> tuple:
    return record.fold, record.config.get("data.init_args.fold_seed")


def same_samples(run: Record, reference: Record) -> bool:
    """Whether both should have been tested on the same samples: in one fold, or where runs are paired."""
    return fold_of(run) == fold_of(reference) or run.repeat == reference.repeat


@dataclass(frozen=True)
class Budget:
    """How much a run was trained: samples that steps were taken on, samples of one step, and, if that ended the run,
    trainer.max_time with the hardware."""

    samples: int
    batch: int
    epochs: int
    time: str | None

    @classmethod
    def of(cls, record: Record) -> Budget:
        config, results = record.config, record.results
        batch = config.get("data.init_args.batch_size", 1) * (config.get("trainer.accumulate_grad_batches") or 1)
        # a linear probe takes no steps while it reads its one epoch
        samples = results.steps * batch or results.epochs * record.data["splits"]["train"]["samples"]
        limit = config.get("trainer.max_time")
        if limit is not None:
            ends = ((results.steps, "trainer.max_steps"), (results.epochs, "trainer.max_epochs"))
            if any(done >= (config.get(name) or -1) > 0 for done, name in ends):
                limit = None
        return cls(samples, batch, results.epochs, None if limit is None else f"{limit} on {record.hardware}")

    def __str__(self) -> str:
        return self.time or f"{self.samples:,} training samples"

    def equals(self, other: Budget, same_samples: bool) -> bool:
        """same_samples: they trained on the same ones; folds differ by some, so by a step in an epoch."""
        if self.time or other.time:
            return self.time == other.time
        if self.batch == other.batch and same_samples:
            return self.samples == other.samples
        left_out = max(self.epochs, other.epochs, 1) * max(self.batch, other.batch)
        return abs(self.samples - other.samples) < left_out + (not same_samples)


def budget_reasons(run: Record, reference: Record) -> list[str]:
    this, other = Budget.of(run), Budget.of(reference)
    return [] if this.equals(other, same_samples(run, reference)) else [f"budget: {this}, not {other}"]


def metric_reasons(run: Record, reference: Record, split: str) -> list[str]:
    reasons = []
    this, other = (record.results.metric_definition for record in (run, reference))
    if this and other and this != other:
        reasons.append(f"metric: {this}, not {other}")
    found, wanted = run.samples(split), reference.samples(split)
    if found != wanted and same_samples(run, reference):
        reasons.append(f"{split} samples measured: {found or 0:,}, not {wanted or 0:,}")
    return reasons


def config_changes(run: Record, reference: Record) -> Changes:
    """Options that differ between two runs, without IGNORED_OPTIONS and values derived from the seed: values that are the
    seed in both, or contain `seed<k>`. Options of a class are not listed where the class itself differs."""
    changes = {}
    for name in sorted(run.config.keys() | reference.config.keys()):
        this, other = (record.config.get(name, ABSENT) for record in (run, reference))
        if this == other or name in IGNORED_OPTIONS or seedless(name, this, run) == seedless(name, other, reference):
            continue
        changes[name] = (this, other)
    others = [name.removesuffix("class_path") for name in changes if name.endswith(".class_path")]
    return {name: c for name, c in changes.items() if not any(name.startswith(f"{o}init_args.") for o in others)}


def seedless(name: str, value: Any, record: Record) -> Any:
    """A value with the run's seed and runs_dir replaced by {seed} and {runs_dir}, as suites write them."""
    if name.endswith("seed") and value == record.seed:
        return "{seed}"
    if isinstance(value, str):
        home = str(record.config.get("runs_dir", "runs"))
        value = "{runs_dir}" + value.removeprefix(home) if value.startswith(f"{home}/") else value
        return value.replace(f"seed{record.seed}", "seed{seed}")
    return value


def odd_configs(run: Record, reference: Record) -> list[str]:
    changes = config_changes(run, reference)
    if not changes:
        return []
    name, (this, other) = next(iter(changes.items()))
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return [f"config: differs from the other seeds of its variant ({name} {this}, not {other}{more})"]


Reasons = Callable[[Record, Record], list[str]]


def keep_largest(records: list[Record], reasons: Reasons) -> tuple[list[Record], list[Excluded]]:
    """The largest set of runs that all agree, and the others with the reasons why they disagree with one of the set."""
    agreeing = [sum(not reasons(other, record) for other in records) for record in records]
    kept: list[Record] = []
    excluded = []
    # agreement is not transitive: older runs say less, and budgets may differ by a little
    for number in sorted(range(len(records)), key=lambda number: -agreeing[number]):
        record = records[number]
        found = next(((why, one) for one in kept if (why := reasons(record, one))), None)
        if found is None:
            kept.append(record)
        else:
            excluded.append(Excluded(record.folder, record.variant, record.seed, tuple(found[0]), found[1].folder))
    return [record for record in records if record in kept], excluded


def keep_in_groups(
    records: list[Record], group_of: Callable[[Record], tuple], reasons: Reasons
) -> tuple[list[Record], list[Excluded]]:
    """`keep_largest` in every group."""
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in records:
        groups[group_of(record)].append(record)
    found = [keep_largest(group, reasons) for group in groups.values()]
    kept = [record for group, _ in found for record in group]
    return [r for r in records if r in kept], [out for _, excluded in found for out in excluded]


def drop_repeats(records: list[Record]) -> tuple[list[Record], list[Excluded]]:
    """Each seed and fold of a variant once: the run whose folder has the plain name, `seed<k>`, else the first."""
    plain_first = sorted(records, key=lambda record: record.run.folder.name != f"seed{record.seed}")
    first: dict[tuple, Record] = {}
    for record in plain_first:
        first.setdefault((record.variant, record.repeat), record)
    excluded = []
    for record in records:
        chosen = first[record.variant, record.repeat]
        if chosen is not record:
            reason = f"seed {record.seed} again: {chosen.folder} counts"
            excluded.append(Excluded(record.folder, record.variant, record.seed, (reason,), chosen.folder))
    return [record for record in records if first[record.variant, record.repeat] is record], excluded


def drop_odd_folds(records: list[Record]) -> tuple[list[Record], list[Excluded]]:
    """The seeds that have the same folds, the folds that most seeds have."""
    folds: dict[tuple, set] = defaultdict(set)
    for record in records:
        folds[record.variant, record.seed].add(record.fold)
    sets = [frozenset(found) for found in folds.values()]
    wanted = max(sets, key=sets.count, default=frozenset())
    odd = {key: found for key, found in folds.items() if found != wanted}
    excluded = [
        Excluded(
            r.folder,
            r.variant,
            r.seed,
            (f"folds: seed {r.seed} has {listed(odd[r.variant, r.seed])}, not {listed(wanted)}",),
        )
        for r in records
        if (r.variant, r.seed) in odd
    ]
    return [record for record in records if (record.variant, record.seed) not in odd], excluded


def listed(folds: set | frozenset) -> str:
    return ", ".join(map(str, sorted(folds))) if folds - {None} else "none"


def with_changes(out: Excluded, records: Sequence[Record], kept: list[Record]) -> Excluded:
    """Adds how its config differs from a kept run of its variant or, apart from the model, from the run it disagrees with."""
    by_folder = {record.folder: record for record in records}
    run = by_folder[out.folder]
    same_variant = [record for record in kept if record.variant == run.variant]
    reference = same_variant[0] if same_variant else by_folder[out.reference or kept[0].folder]
    changes = config_changes(run, reference)
    if not same_variant:
        changes = {name: change for name, change in changes.items() if not name.startswith("model.")}
    return replace(out, reference=reference.folder, changes=changes)
