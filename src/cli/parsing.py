"""How options and configs are read: YAML without surprises, and numbers as they were written."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, get_args

import yaml
from jsonargparse import _loaders_dumpers, get_loader, set_loader, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from ..config.documents import Loader, refuse_pipes
from ..config.package import with_current_class_paths

# DataSpec is handed over whole, from the datamodule; its fields are no options
set_parsing_settings(subclasses_enabled=["is_pure_dataclass"])
setattr(_loaders_dumpers, "yaml_default_loader", Loader)  # noqa: B010  (the parser reads values with it, too)
plain_yaml = get_loader("yaml")


def load_yaml(text: str) -> Any:
    """What a config file, or an option's value, holds."""
    content = plain_yaml(text)
    refuse_pipes(content)
    return with_current_class_paths(content)


set_loader("yaml", load_yaml, (yaml.YAMLError,))


def integers_stay_integers(parser: LightningArgumentParser) -> None:
    """Makes `--trainer.limit_test_batches 1` one batch, and 1.0 all batches.

    Python keeps one object for Optional[Union[int, float]] and Optional[Union[float, int]]: the one that some library asked
    for first. jsonargparse tries the types of a union in order, and would make 1.0 of 1.
    """
    actions: list[Any] = parser._actions
    for action in actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            action._typehint = reduce(or_, (int, *(kind for kind in kinds if kind is not int)))
