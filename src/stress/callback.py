"""A callback that damages training inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from datamodules import Batch, ByteArray, UserError
from datamodules.core.checks import check_range
from datamodules.core.order import hashed_seed

from .corruptions import Corruption, corruptions_of

Group = tuple[Corruption, int]  # with its level


class Corrupted(Callback):
    """Trains on damaged inputs: in every batch, a share of the samples goes through one of the corruptions of `--stress`.

    Which samples, which corruption and which level depend on the seed, the epoch and the name of the sample, and are drawn
    for each modality apart, so a resumed run draws what it would have drawn. Validation and test stay clean.

    Args:
        share: share of the samples that are damaged, 0 to 1.
        levels: the mildest and the hardest level, 1 to 5.
        only: names of corruptions by modality, such as {image: [noise, blur]}; other modalities stay clean. None: all that
            fit, in all modalities.
    """

    def __init__(
        self, share: float = 0.5, levels: tuple[int, int] = (1, 5), only: dict[str, list[str]] | None = None
    ) -> None:
        check_range(0, 1, share=share)
        if not 1 <= levels[0] <= levels[1] <= 5:
            raise UserError(f"Corrupted: levels {list(levels)}: give the mildest and the hardest, from 1 to 5")
        self.share, self.levels, self.only = share, levels, only
        self.handles: list[RemovableHandle] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            data: Any = trainer.datamodule  # pyrefly: ignore
            self.handles = Damage(data, trainer, self.share, self.levels, chosen(data, self.only)).attached()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []


def chosen(data: Any, only: Mapping[str, Sequence[str]] | None) -> dict[str, list[Corruption]]:
    """The corruptions of each modality.

    Raises:
        UserError: a modality, or a corruption of it, does not exist.
    """
    fitting = {
        name: {each.name: each for each in corruptions_of(spec, data.flatten.modalities[name])}
        for name, spec in data.spec.modalities.items()
    }
    if only is None:
        return {name: list(found.values()) for name, found in fitting.items()}
    for name, wanted in only.items():
        if name not in fitting:
            raise UserError(f"Corrupted: only names {name!r}, the data have {', '.join(fitting)}: name one of them")
        if unknown := sorted(set(wanted) - set(fitting[name])):
            raise UserError(f"Corrupted: {name} has no {unknown[0]!r}: choose from {', '.join(fitting[name])}")
    return {name: [fitting[name][each] for each in wanted] for name, wanted in only.items() if wanted}


class Damage:
    """Damages what a datamodule's `flatten` gets and gives, while the trainer trains.

    Args:
        data: the datamodule.
        trainer: says whether it trains, and the epoch.
        share: see Corrupted.
        levels: see Corrupted.
        corruptions: of each modality.
    """

    def __init__(
        self, data: Any, trainer: Any, share: float, levels: tuple[int, int], corruptions: dict[str, list[Corruption]]
    ) -> None:
        self.data, self.trainer = data, trainer
        self.share, self.levels, self.corruptions = share, levels, corruptions
        self.drawn: dict[str, dict[Group, tuple[Tensor, Tensor | None]]] = {}  # for the batch in `flatten`

    def attached(self) -> list[RemovableHandle]:
        """Begins; each handle's `remove` ends its part."""
        flatten = self.data.flatten
        return [flatten.register_forward_pre_hook(self.before), flatten.register_forward_hook(self.after)]

    def before(self, flatten: Any, args: tuple[dict]) -> tuple[dict]:
        """Damages the compact batch."""
        (compact,) = args
        self.drawn = {name: self.groups(name, compact) for name in self.corruptions if self.trainer.training}
        damaged = dict(compact)
        for name, groups in self.drawn.items():
            for (corruption, level), (rows, drawn) in groups.items():
                if corruption.damage is not None:
                    raw = damaged[name] = damaged[name].float().clone()
                    amount = corruption.amounts[level - 1]
                    raw[rows] = corruption.damage(compact[name][rows], drawn, amount, flatten.modalities[name]).to(raw)
        return (damaged,)

    def after(self, flatten: Any, args: tuple[dict], batch: Batch) -> Batch:
        """Masks elements of the byte arrays."""
        inputs = dict(batch.inputs)
        for name, groups in self.drawn.items():
            for (corruption, level), (rows, drawn) in groups.items():
                if corruption.mask is not None and drawn is not None:
                    part = corruption.mask(inputs[name].examples(rows), drawn, corruption.amounts[level - 1])
                    inputs[name] = with_part(inputs[name], rows, part)
        return replace(batch, inputs=inputs)

    def groups(self, name: str, compact: dict) -> dict[Group, tuple[Tensor, Tensor | None]]:
        """The rows of a batch that go through one corruption at one level, and what it draws for them."""
        found: dict[Group, list[tuple[int, Tensor | None]]] = defaultdict(list)
        for row, key in enumerate(compact["key"]):
            seed = hashed_seed("corrupted", self.data.seed, self.trainer.current_epoch, name, key)
            generator = torch.Generator().manual_seed(seed)
            if torch.rand((), generator=generator) >= self.share:
                continue
            fitting = self.corruptions[name]
            corruption = fitting[int(torch.randint(len(fitting), (), generator=generator))]
            level = int(torch.randint(self.levels[0], self.levels[1] + 1, (), generator=generator))
            drawn = None if corruption.draw is None else corruption.draw(compact[name][row], generator)
            found[corruption, level].append((row, drawn))
        device = compact["weight"].device
        parts = {}
        for group, members in found.items():
            drawn = [each for _, each in members if each is not None]
            rows = torch.tensor([row for row, _ in members], device=device)
            parts[group] = rows, torch.stack(drawn) if drawn else None
        return parts


def with_part(whole: ByteArray, rows: Tensor, part: ByteArray) -> ByteArray:
    """A byte array with the values and the mask of another in some of its rows."""
    assert part.mask is not None
    values = whole.values.clone()
    values[rows] = part.values
    mask = torch.ones_like(values[..., 0], dtype=torch.bool) if whole.mask is None else whole.mask.clone()
    mask[rows] = part.mask
    return replace(whole, values=values, mask=mask)
