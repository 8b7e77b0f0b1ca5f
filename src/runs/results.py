"""results.json: what a finished run measured, and how it is read back, also from older runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypedDict

from datamodules import UserError

from ..metrics.registry import main_metric
from .files import digest_of
from .schema import Cost, Count, Seed, check

LONGEST_TEXT = 1000
SCHEMA = 3  # 1 had no `schema`, `main_metric` and `suite`; 2 no `identity`, `predictions_sha256` and `seal`
Published = dict[str, dict[str, float]]  # metric -> version of the paper -> value


class Tuned(TypedDict):
    """What tuning chose for a variant: after how many trials, and the options."""

    trials: Count
    options: dict[str, Any]


@dataclass(frozen=True)
class SuiteEntry:
    """Where a run stands in its suite, recorded when it was made.

    Attributes:
        name: the suite's.
        source: paper and table.
        position: of the variant, from 0.
        published: the published figures of the variant: metric to version (v1, v2) to value.
        equal: what its variants get the same of: samples, time, flops; or published, each the budget of its paper.
        reference: the variant that differences are taken from; None for the first.
        claims: comparisons that were written down before the test split was read.
        baselines: the variants that are trivial baselines.
        tuned: what tuning chose for the variant; None where it has the options of its config.
        frozen: hash of claims and choices, see src/suites/protocol.py.
    """

    name: str
    source: str
    position: Count
    published: Published
    equal: str = "samples"
    reference: str | None = None
    claims: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)
    tuned: Tuned | None = None
    frozen: str | None = None

    @classmethod
    def from_dict(cls, content: dict) -> SuiteEntry:
        """Of a checked mapping; newer versions write more keys."""
        return cls(**{each.name: content[each.name] for each in fields(cls) if each.name in content})


class Memory(TypedDict):
    bytes: Count
    of: str


@dataclass(frozen=True)
class Results:
    """A finished run's results.

    Attributes:
        experiment: runs of one question.
        cell: the variant that was trained.
        seed: of training.
        metrics: split (val, test) to metric to value; see src/metrics/registry.py.
        main_metric: what the run is ranked by.
        metric_definition: how the metrics are computed; runs with different definitions are not compared.
        parameters: their number.
        flops_per_example: of one forward pass, multiplications and additions counted apart.
        train_samples_per_second: on all ranks together; None where too few steps were timed.
        epochs, steps: completed.
        bad_samples: distinct samples that could not be decoded, on all ranks and in all parts of the run.
        damaged_samples: distinct samples of which parts were skipped, such as packets of a video.
        peak_memory: `bytes`, and what they are `of`.
        wall_time_seconds: of all parts of the run.
        energy_joules: of training; None where nothing measures it. energy_of: which devices were measured.
        suite: the suite that the run belongs to, if any.
        identity: hash of what the result depends on, see src/runs/identity.py; None in older runs.
        predictions_sha256: digest of the file of predictions, of a detection those of boxes and masks; None where there is
            none, and in older runs.
        seal: digest of the metrics and these two: an edit by hand shows. It is no signature.
        schema: version of this file's layout.
    """

    experiment: str
    cell: str
    seed: Seed
    metrics: dict[str, dict[str, float]]
    main_metric: str | None
    metric_definition: str | None
    parameters: Count
    flops_per_example: Count
    train_samples_per_second: Cost | None
    epochs: Count
    steps: Count
    peak_memory: Memory
    wall_time_seconds: Cost
    bad_samples: Count = 0
    damaged_samples: Count = 0
    energy_joules: Cost | None = None
    energy_of: list[str] = field(default_factory=list)
    suite: SuiteEntry | None = None
    identity: str | None = None
    predictions_sha256: str | None = None
    seal: str | None = None
    schema: int = SCHEMA

    def to_dict(self) -> dict:
        return asdict(self)

    def sealed(self) -> Results:
        """The same with its seal."""
        return replace(self, seal=self.wanted_seal)

    @property
    def wanted_seal(self) -> str:
        """The seal that results with these metrics have."""
        return digest_of([self.metrics, self.identity, self.predictions_sha256])

    @classmethod
    def from_dict(cls, content: Any, where: object) -> Results:
        """Read the content of a results.json, of this schema or an older one.

        Raises:
            UserError: a field is missing or of another type; `where` names the file.
        """
        if not isinstance(content, dict):
            raise UserError(f"{where} does not hold the results of a run: train the run again, or leave it out")
        schema = content.get("schema", 1)
        if isinstance(schema, int | float) and schema > SCHEMA:
            raise UserError(f"{where} was written by a newer version of ByteBench (schema {schema}): update")
        found: dict[str, Any] = {"main_metric": None, "metric_definition": None, **content}
        check(found, cls, where)
        for name in ("experiment", "cell"):  # only shown, as text: older versions allowed more than `check_name` does
            if not 0 < len(found[name]) <= LONGEST_TEXT:
                raise UserError(f"{where}: {name} has {len(found[name])} letters: train the run again, or leave it out")
        if found["main_metric"] is None:
            measured: Any = found["metrics"]
            found["main_metric"] = main_metric(name for split in measured.values() for name in split)
        known: dict[str, Any] = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        if known.get("suite") is not None:
            known["suite"] = SuiteEntry.from_dict(known["suite"])
        return cls(**known)
