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
The others are held against the reference: the first run of --reference, of the variant that their suite names, or else of the
first variant. Those that disagree with it are listed and left out of all statistics, however many they are; another
--reference compares them instead. Cross-validated variants (data.fold, data.fold_seed) are compared fold by fold, and must
have the folds of the reference for every seed. Each seed counts once.

Nothing else is left out. Runs of one variant whose options differ in more than the seed, places and other harmless ones
are rows of their own. Whatever differs between the runs is listed beside the table, see differences.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .differences import Changes, config_changes
from .records import Record

LAST = 10**9  # of variants of no suite


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


def split_runs(
    records: Sequence[Record], split: str, any_budget: bool = False, reference: str | None = None
) -> tuple[list[Record], list[Excluded]]:
    """The runs that can be compared with the reference, in order, and those that cannot.

    Args:
        records: sound runs.
        split: whose metrics are compared.
        any_budget: see above.
        reference: the variant whose first run the others are held against; the first one's if None.
    """
    anchors: dict[tuple, Record] = {}
    kept, excluded = [], []
    for record in sorted(records, key=lambda record: (record.variant[1] != reference, *place(record))):
        # another fold has other samples: only runs of one fold, or of one seed and fold, must share them
        groups = (("all",), ("fold", fold_of(record)), ("repeat", record.repeat))
        for group in groups:
            anchor = anchors.get(group, record)
            budget = [] if any_budget else budget_reasons(record, anchor)
            if reasons := data_reasons(record, anchor) + budget + metric_reasons(record, anchor, split):
                excluded.append(Excluded(record.folder, record.variant, record.seed, tuple(reasons), anchor.folder))
                break
        else:
            kept.append(record)
            for group in groups:
                anchors.setdefault(group, record)
    for drop in (drop_repeats, drop_odd_folds):
        kept, others = drop(kept)
        excluded += others
    return kept, [with_changes(out, records, kept) for out in excluded]


def place(record: Record) -> tuple:
    """Where a run stands in the table: by its suite, else by name; then by seed and fold."""
    suite = record.results.suite
    position = suite.position if suite else LAST
    return record.variant[0], position, natural(record.variant[1]), record.seed, record.fold or 0, record.folder


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts run_2 before run_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


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
    trainer.max_time with the hardware, or max_flops."""

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
        if (flops := config.get("max_flops")) is not None:
            return cls(samples, batch, results.epochs, f"{flops:.3g} FLOPs of training")
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
    if run.trivial or reference.trivial:  # takes no steps
        return []
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
    """The seeds that have the same folds as the reference, which comes first."""
    folds: dict[tuple, set] = defaultdict(set)
    for record in records:
        folds[record.variant, record.seed].add(record.fold)
    wanted = next(iter(folds.values()), set())
    kept, excluded = [], []
    for record in records:
        if (found := folds[record.variant, record.seed]) == wanted:
            kept.append(record)
        else:
            reason = f"folds: seed {record.seed} has {listed(found)}, not {listed(wanted)}"
            excluded.append(Excluded(record.folder, record.variant, record.seed, (reason,)))
    return kept, excluded


def listed(folds: set) -> str:
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


def published_budgets(records: Sequence[Record]) -> bool:
    """Whether all runs are of suites that train every variant as its paper did."""
    return bool(records) and all(r.results.suite is not None and r.results.suite.equal == "published" for r in records)
