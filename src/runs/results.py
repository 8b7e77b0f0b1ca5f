"""results.json: what a finished run measured, and how it is read back, also from older runs."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from datamodules import UserError

from ..metrics.registry import main_metric
from .files import digest_of

SCHEMA = 3  # 1 had no `schema`, `main_metric` and `suite`; 2 no `identity`, `predictions_sha256` and `seal`
Published = dict[str, dict[str, float]]  # metric -> version of the paper -> value


@dataclass(frozen=True)
class SuiteEntry:
    """Where a run stands in its suite, recorded when it was made.

    Attributes:
        name: the suite's.
        source: paper and table.
        position: of the variant, from 0.
        published: the published figures of the variant: metric to version (v1, v2) to value.
    """

    name: str
    source: str
    position: int
    published: Published


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
        peak_memory: `bytes`, and what they are `of`.
        wall_time_seconds: of all parts of the run.
        energy_joules: of training; None where nothing measures it. energy_of: which devices were measured.
        suite: the suite that the run belongs to, if any.
        identity: hash of what the result depends on, see src/runs/identity.py; None in older runs.
        predictions_sha256: digest of the file of predictions; None where there is none, and in older runs.
        seal: digest of the metrics and these two: an edit by hand shows. It is no signature.
        schema: version of this file's layout.
    """

    experiment: str
    cell: str
    seed: int
    metrics: dict
    main_metric: str | None
    metric_definition: str | None
    parameters: int
    flops_per_example: int
    train_samples_per_second: float | None
    epochs: int
    steps: int
    peak_memory: dict
    wall_time_seconds: float
    bad_samples: int = 0
    energy_joules: float | None = None
    energy_of: list = field(default_factory=list)
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
        if content.get("schema", 1) > SCHEMA:
            raise UserError(f"{where} was written by a newer version of ByteBench (schema {content['schema']}): update")
        content = {"main_metric": None, "metric_definition": None, **content}
        if content["main_metric"] is None and isinstance(content.get("metrics"), dict):
            content["main_metric"] = main_metric(name for split in content["metrics"].values() for name in split)
        if isinstance(content.get("suite"), dict):
            content["suite"] = SuiteEntry(**content["suite"])
        hints = get_type_hints(cls)
        for each in fields(cls):
            if each.name not in content and each.default is MISSING and each.default_factory is MISSING:
                raise UserError(f"{where} has no {each.name!r}: train the run again, or leave it out")
            if each.name in content and not matches(content[each.name], hints[each.name]):
                raise UserError(f"{where}: {each.name} is {content[each.name]!r}: train the run again, or leave it out")
        known: dict[str, Any] = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        return cls(**known)


def matches(value: object, hint: Any) -> bool:
    """Whether a value from JSON is of a type: whole numbers may stand for floats, booleans for neither."""
    kinds = getattr(hint, "__args__", (hint,))
    kinds = (*kinds, int) if float in kinds else kinds
    return isinstance(value, tuple(kinds)) and not isinstance(value, bool)
