"""What the JSON files of a run folder must hold, written as types, and the check of what was read against them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from datamodules import UserError

LARGEST = 1e18  # of any count or cost
SHOWN = 60  # letters of a wrong value


@dataclass(frozen=True)
class Between:
    """Limits of a number; NaN is outside."""

    low: float
    high: float = LARGEST


Count = Annotated[int, Between(0)]
Cost = Annotated[float, Between(0)]
Seed = Annotated[int, Between(0, 2**32 - 1)]  # what NumPy takes


class Split(TypedDict):
    samples: Count
    keys_sha256: str


class Splits(TypedDict):
    train: Split
    val: Split
    test: Split


class Spec(TypedDict):
    modalities: dict[str, dict]
    task: str
    classes: list[str]


class Data(TypedDict):
    """data.json."""

    dataset: str
    fingerprint: str
    splits: Splits
    spec: Spec


class Git(TypedDict):
    commit: str | None
    dirty: bool | None


class Environment(TypedDict):
    """environment.json."""

    wandb_id: str
    git: Git
    python: str
    platform: str
    cpu: str
    cpu_cores: Count | None
    threads: Annotated[int, Between(1, 4096)]
    gpus: list[str]
    cuda: str | None
    torch: dict[str, Any]
    packages: dict[str, str]


# Of config.yaml, by dotted names: what comparisons compute with
Options = TypedDict(
    "Options",
    {
        "data.init_args.batch_size": Annotated[int, Between(1)],
        "data.init_args.fold": Count | None,
        "data.init_args.fold_seed": Count | None,
        "trainer.accumulate_grad_batches": Annotated[int, Between(1)] | None,
        "trainer.max_epochs": int | None,
        "trainer.max_steps": int | None,
    },
    total=False,
)

FILES = {"data.json": Data, "environment.json": Environment}


def check(content: Any, hint: Any, where: object) -> None:
    """Raises UserError where what a file holds is not of a type; `where` names the file."""
    if found := problem(content, hint):
        between = " " if found.startswith("has no") else ": "
        raise UserError(f"{where}{between}{found}: train the run again, or leave it out")


def problem(value: Any, hint: Any, name: str = "") -> str | None:
    """What is wrong with a value from JSON, in a few words; None where it is of a type.

    Args:
        value: the value.
        hint: its type. Of mappings with named keys and dataclasses, further keys are left alone: newer versions write more.
        name: what messages call it.
    """
    kind, inside = get_origin(hint), get_args(hint)
    shown = repr(value)
    wrong = f"{name or 'it'} is {shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'}"
    if hint is Any:
        return None
    if kind is Annotated:
        limits = hint.__metadata__[0]
        return problem(value, inside[0], name) or (None if limits.low <= value <= limits.high else wrong)
    if kind in (Union, UnionType):
        found = [problem(value, each, name) for each in inside]
        # of the type that is no None, which says more
        return None if None in found else found[0]
    if is_typeddict(hint) or is_dataclass(hint):
        return keys_problem(value, hint, name) if isinstance(value, dict) else wrong
    if kind is dict or hint is dict:
        if not isinstance(value, dict):
            return wrong
        found = (problem(each, inside[1], f"{name}.{key}".lstrip(".")) for key, each in value.items() if inside)
        return next(filter(None, found), None)
    if kind is list or hint is list:
        if not isinstance(value, list):
            return wrong
        return next(filter(None, (problem(each, inside[0], name) for each in value if inside)), None)
    fits = isinstance(value, int | float) if hint is float else isinstance(value, hint)
    return wrong if not fits or (isinstance(value, bool) and hint is not bool) else None


@cache
def hints_of(hint: Any) -> dict[str, Any]:
    """The types of a class's fields."""
    return get_type_hints(hint, include_extras=True)


def keys_problem(value: dict, hint: Any, name: str) -> str | None:
    """The first key that is missing, or whose value is wrong."""
    optional = set(getattr(hint, "__optional_keys__", ()))
    if is_dataclass(hint):
        optional = {f.name for f in fields(hint) if f.default is not MISSING or f.default_factory is not MISSING}
    for key, each in hints_of(hint).items():
        if key not in value:
            if key not in optional:
                return f"{name} has no {key!r}".lstrip()
        elif found := problem(value[key], each, f"{name}.{key}".lstrip(".")):
            return found
    return None
