"""The datamodule that all data sets share: loaders, order, bad samples, and flattening on the device.

The data's way: `Split.load` makes one compact sample -> `CompactBatches` stacks the samples of a step (in a worker) ->
the batch is moved to the device -> `datamodule.flatten` turns it into a Batch of byte arrays.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .byte_array import Batch, DataSpec, sample_of
from .errors import BadSampleError, UserError
from .flatten import Flatten
from .order import OrderedBatches, SampleRef, sample_generator

log = logging.getLogger(__name__)
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class Split(ABC):
    """One split of a data set. `keys` names its samples, in a fixed order."""

    keys: Sequence[str]

    def open(self) -> None:  # noqa: B027, most splits need nothing
        """Make ready to load; called before loaders are built."""

    @abstractmethod
    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        """One compact sample: a tensor for every modality, and `target` (a dict of tensors for detection). All randomness
        comes from `generator`.

        Raises BadSampleError if the sample cannot be decoded.
        """


@dataclass
class TensorSplit(Split):
    """A split that lies in memory: every tensor has one row per key."""

    keys: Sequence[str]
    tensors: dict[str, Tensor]

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


class CompactBatches(Dataset):
    """Indexed by the list of SampleRef of one step, gives one compact batch: stacked tensors, `key`, `weight`, and `bad`,
    the reasons of samples that could not be decoded; those have weight 0 and repeat a good sample's tensors."""

    def __init__(self, split: Split, seed: int, on_bad_sample: Literal["raise", "skip"]) -> None:
        self.split, self.seed, self.on_bad_sample = split, seed, on_bad_sample

    def __len__(self) -> int:
        return len(self.split.keys)

    def __getitem__(self, refs: list[SampleRef]) -> dict:
        keys = [self.split.keys[ref.index] for ref in refs]
        weight = torch.tensor([float(ref.real) for ref in refs])
        batch: dict[str, Any] = {}
        bad: list[str] = []
        good, missing = 0, []  # places in the batch
        for place, (ref, key) in enumerate(zip(refs, keys, strict=True)):
            if not ref.real and batch:  # padding: any sample has the right shape
                missing.append(place)
                continue
            try:
                sample = self.split.load(ref.index, sample_generator(self.seed, ref.epoch, key))
            except BadSampleError as error:
                if self.on_bad_sample == "raise":
                    raise
                missing.append(place)
                weight[place] = 0
                bad.append(f"{key}: {error}")
                continue
            put(batch, sample, place, len(refs))
            good = place
        if not batch:
            raise UserError(f"no sample of a whole batch could be decoded; the first: {bad[0]}")
        for rows in batch.values():
            for place in missing:
                rows[place] = rows[good]
        return {**batch, "key": keys, "weight": weight, "bad": bad}


def put(batch: dict[str, Any], sample: dict[str, Any], place: int, size: int) -> None:
    """Write a sample into its place of a batch: tensors into one of (B, ...), made when the first sample is there; what
    differs in size from sample to sample, such as boxes, into a list."""
    for name, value in sample.items():
        if name not in batch:
            batch[name] = value.new_empty(size, *value.shape) if isinstance(value, Tensor) else [None] * size
        if isinstance(value, Tensor) and value.shape != batch[name].shape[1:]:
            raise ValueError(f"{name} is {tuple(value.shape)}, of other samples {tuple(batch[name].shape[1:])}")
        batch[name][place] = value


class ByteArrayDataModule(L.LightningDataModule, ABC):
    """Base of all data sets.

    A subclass sets `spec` and `flatten` in its constructor, reading no data, and gives `make_split`; `prepare_data`, where
    it writes or checks files.

    batch_size: samples of one step on all ranks together.
    num_workers: worker processes per rank; 0 is best for data that lie in memory.
    seed: of the order and of the randomness inside samples.
    on_bad_sample: `raise` stops at a sample that cannot be decoded; `skip` counts and logs it and goes on, until their
        share passes max_bad_share.
    """

    spec: DataSpec
    flatten: Flatten

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise UserError(f"batch_size {batch_size}, num_workers {num_workers}: give at least 1 and at least 0")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.on_bad_sample, self.max_bad_share = on_bad_sample, max_bad_share
        self.bad_samples: list[str] = []
        self.samples_seen = 0
        self.test_split: SplitName = "test"  # what `test_dataloader` gives
        self._splits: dict[str, Split] = {}
        self.steps_done = 0  # steps of training that a trainer has taken; the order goes on from there

    @abstractmethod
    def make_split(self, name: SplitName) -> Split:
        """Open one split. Raises UserError naming the folder and the command that fills it where data are missing."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the bytes of all splits; equal data have equal fingerprints."""

    def split(self, name: SplitName) -> Split:
        """One split, opened at first use."""
        if name not in self._splits:
            self._splits[name] = self.make_split(name)
        return self._splits[name]

    def for_training(self, split: Split) -> Split:
        """A split as training sees it; evaluation sees it as it is."""
        return split

    def describe(self) -> dict:
        """What a run records of its data: fingerprint, and size and membership of every split."""
        splits = {}
        for name in SPLITS:
            keys = self.split(name).keys
            digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()
            splits[name] = {"samples": len({sample_of(key) for key in keys}), "keys_sha256": digest}
        return {"dataset": type(self).__name__, "fingerprint": self.fingerprint(), "splits": splits}

    def loader(
        self, name: SplitName, training: bool = False, steps_done: Callable[[], int] | None = None
    ) -> DataLoader:
        """Compact batches of one split; pass each to `flatten`. With training=True shuffled, from the first epoch or from
        where `steps_done` tells, see OrderedBatches."""
        split = self.for_training(self.split(name)) if training else self.split(name)
        split.open()
        order = OrderedBatches(len(split.keys), self.batch_size, self.seed, training, steps_done)
        return DataLoader(
            CompactBatches(split, self.seed, self.on_bad_sample),
            batch_size=None,
            sampler=order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def setup(self, stage: str | None = None) -> None:
        """Open the splits that the stage needs, so that missing data show before a model is built or trained."""
        needed: dict[str | None, tuple[SplitName, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": (self.test_split,),
        }
        if stage == "fit":
            self.steps_done = 0  # a checkpoint, loaded later, says otherwise
        for name in needed.get(stage, SPLITS):
            self.split(name)

    def train_dataloader(self) -> DataLoader:
        return self.loader("train", True, None if self.trainer is None else lambda: self.steps_done)

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.test_split)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """All but the strings, of which Lightning would look at each."""
        return {
            name: value if name in ("key", "bad") else move_data_to_device(value, device)
            for name, value in batch.items()
        }

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> Batch:
        if self.trainer is not None and self.trainer.training:
            self.steps_done += 1
        self._count_bad(batch)
        flat = self.flatten(batch)
        if self.trainer is None:
            return flat
        # Lightning has converted the compact batch, which is of bytes; ask it for what
        dtype = self.trainer.precision_plugin.convert_input(torch.empty(0)).dtype
        return replace(flat, inputs={name: byte_array.to(dtype) for name, byte_array in flat.inputs.items()})

    def _count_bad(self, compact: dict) -> None:
        self.samples_seen += len(compact["key"])
        for reason in compact["bad"]:
            log.warning("skipped %s", reason)
            self.bad_samples.append(reason)
        # the share means something only once some hundred samples were seen
        if self.bad_samples and len(self.bad_samples) > self.max_bad_share * max(self.samples_seen, 100):
            raise UserError(
                f"{len(self.bad_samples)} of {self.samples_seen} samples could not be decoded, more than "
                f"max_bad_share {self.max_bad_share}; the last: {self.bad_samples[-1]}"
            )

    def state_dict(self) -> dict:
        """For checkpoints: what the data are, and how many steps were taken of them."""
        return {"spec": self.spec.to_dict(), "steps_done": self.steps_done}

    def load_state_dict(self, state_dict: dict) -> None:
        self.steps_done = state_dict["steps_done"]
