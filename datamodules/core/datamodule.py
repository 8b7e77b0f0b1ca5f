"""The base datamodule of all data sets: loaders, order, bad samples, and flattening on the device.

`Split.load` loads one compact sample -> `CompactBatches` stacks the samples of a step (in a worker) -> the batch is moved
to the device -> `datamodule.flatten` turns it into a Batch of byte arrays.
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
import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .byte_array import Batch, DataSpec
from .checks import check_counts, check_range
from .errors import BadSampleError, UserError
from .flatten import Flatten
from .order import OrderedBatches, SampleRef, sample_generator
from .signals import leave_interrupts_to_parent
from .windows import sample_of

log = logging.getLogger(__name__)
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class Split(ABC):
    """One split of a data set. `keys` are the names of its samples, in a fixed order."""

    keys: Sequence[str]

    def open(self) -> None:  # noqa: B027, most splits need nothing
        """Prepares for loading. Called before loaders are built."""

    @abstractmethod
    def load(self, index: int, generator: torch.Generator) -> dict[str, Any]:
        """Loads one compact sample: a tensor for every modality, and `target` (a dict of tensors for detection).

        It may have a text `damage`, too: which parts could not be decoded, where the others are worth keeping.

        Args:
            index: position of the sample in `keys`.
            generator: source of all randomness of the sample.

        Raises:
            BadSampleError: if the sample cannot be decoded.
        """


@dataclass
class TensorSplit(Split):
    """A split in memory: every tensor has one row per key.

    Args:
        keys: names of the samples.
        tensors: one tensor (samples, ...) for every modality, and `target`.
    """

    keys: Sequence[str]
    tensors: dict[str, Tensor]

    def load(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


class CompactBatches(Dataset):
    """Compact batches, indexed by the list of SampleRef of one step.

    A compact batch has stacked tensors, `key`, `weight`, `bad`, why samples could not be decoded, by their keys, and
    `damaged`, what was skipped of others. Bad samples have weight 0 and the tensors of a good sample. A sample whose tensors
    differ in name, shape or type from those of most others in the batch is bad too.
    """

    def __init__(self, split: Split, seed: int, on_bad_sample: Literal["raise", "skip"]) -> None:
        self.split, self.seed, self.on_bad_sample = split, seed, on_bad_sample

    def __len__(self) -> int:
        return len(self.split.keys)

    def __getitem__(self, refs: list[SampleRef]) -> dict:
        keys = [self.split.keys[ref.index] for ref in refs]
        stacks: dict[tuple, Stack] = {}  # by the form of their samples
        bad: dict[str, str] = {}
        damaged: dict[str, str] = {}
        for row, (ref, key) in enumerate(zip(refs, keys, strict=True)):
            if not ref.real and stacks:  # padding: any sample has the right shape
                continue
            try:
                sample = self.split.load(ref.index, sample_generator(self.seed, ref.epoch, key))
            except BadSampleError as error:
                if self.on_bad_sample == "raise":
                    raise
                bad[key] = str(error)
                continue
            if "damage" in sample:
                damaged[key] = sample.pop("damage")
            shape = form(sample)
            if shape not in stacks:
                stacks[shape] = Stack(len(refs))
            stacks[shape].put(row, sample)
        if not stacks:
            raise UserError(
                "no sample of a batch could be decoded; the first error: {}: {}".format(*next(iter(bad.items())))
            )
        usual = max(stacks, key=lambda shape: len(stacks[shape].rows))
        for row, shape in sorted((row, shape) for shape, stack in stacks.items() for row in stack.rows):
            if shape != usual:
                bad[keys[row]] = f"has {described(shape)}, other samples {described(usual)}"
                if self.on_bad_sample == "raise":
                    raise BadSampleError(f"{keys[row]} {bad[keys[row]]}")
        weight = torch.tensor([float(ref.real and key not in bad) for ref, key in zip(refs, keys, strict=True)])
        return {**stacks[usual].whole(), "key": keys, "weight": weight, "bad": bad, "damaged": damaged}


class Stack:
    """Samples of one form on their way into a batch: tensors go into one tensor (B, ...); anything else, such as targets of
    detection, into a list. Each is copied as it comes: what it was cut from is free for the next, which is faster than memory
    that was never used.

    Args:
        size: B, rows of the batch.
    """

    def __init__(self, size: int) -> None:
        self.size, self.rows, self.batch = size, list[int](), dict[str, Any]()

    def put(self, row: int, sample: dict[str, Any]) -> None:
        for name, value in sample.items():
            if name not in self.batch:
                tensor = isinstance(value, Tensor)
                self.batch[name] = value.new_empty(self.size, *value.shape) if tensor else [None] * self.size
            self.batch[name][row] = value
        self.rows.append(row)

    def whole(self) -> dict[str, Any]:
        """The batch; rows without a sample repeat the last one."""
        missing = set(range(self.size)) - set(self.rows)
        for values in self.batch.values():
            for row in missing:
                values[row] = values[self.rows[-1]]
        return self.batch


def form(sample: dict[str, Any]) -> tuple:
    """What all samples of a batch must share: the names, and the shape and type of tensors."""
    return tuple(
        (name, str(value.dtype), tuple(value.shape)) if isinstance(value, Tensor) else (name, type(value).__name__, ())
        for name, value in sorted(sample.items())
    )


def described(shape: tuple) -> dict[str, str]:
    """A form in words, by name."""
    return {name: f"{kind} {size}" if kind.startswith("torch.") else kind for name, kind, size in shape}


class ByteArrayDataModule(L.LightningDataModule, ABC):
    """Base class of all data sets.

    A subclass sets `spec` and `flatten` in its constructor, without reading data, and implements `make_split` and
    `fingerprint`. It overrides `prepare_data` if it writes or checks files. Its constructor forwards `**kwargs` to this
    one, so that every data set has these options.

    Args:
        batch_size: samples per step, over all ranks.
        num_workers: worker processes per rank; 0 loads in the training process, which is best for data in memory.
        seed: seed of the sample order and of the randomness inside samples; in a run, --seed_everything.
        on_bad_sample: what to do with a sample that cannot be decoded: `raise` an error, or `skip` it with a warning.
        max_bad_share: share of skipped samples, 0 to 1, above which to stop with an error.
    """

    spec: DataSpec
    flatten: Flatten
    licence: str | None = None  # of all samples, by its SPDX name, several joined by AND; None where it is not known
    credit: str = ""  # whom the samples are from

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        on_bad_sample: Literal["raise", "skip"] = "raise",
        max_bad_share: float = 0.01,
    ) -> None:
        super().__init__()
        check_counts(batch_size=batch_size)
        check_range(0, 1000, num_workers=num_workers)
        check_range(0, seed=seed)
        check_range(0, 1, max_bad_share=max_bad_share)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.on_bad_sample, self.max_bad_share = on_bad_sample, max_bad_share
        self.bad_samples: dict[str, str] = {}  # why samples could not be decoded, by their keys
        self.damaged_samples: dict[str, str] = {}  # what was skipped of samples that could be decoded
        self.samples_seen = self.samples_skipped = 0  # in all epochs
        self.test_split: SplitName = "test"  # the split of `test_dataloader`
        self._splits: dict[str, Split] = {}
        self.steps_done = 0  # training steps taken by the trainer; the order continues from there

    @abstractmethod
    def make_split(self, name: SplitName) -> Split:
        """Opens one split. If data are missing, raises UserError with the folder and the command that fills it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the bytes of all splits. Equal data have equal fingerprints."""

    def split(self, name: SplitName) -> Split:
        """Returns one split, opened on first use."""
        if name not in self._splits:
            self._splits[name] = self.make_split(name)
        return self._splits[name]

    def for_training(self, split: Split) -> Split:
        """The split to train on; evaluation uses the split itself."""
        return split

    def cluster(self, key: str) -> str:
        """The cluster of a sample: samples that another test set would have all or none of, such as one prompt in five
        languages. Intervals take clusters whole. By default every sample is one."""
        return key

    def licence_of(self, key: str) -> str | None:
        """The licence of a sample. Pages show samples of open licences, see `datamodules.licences`."""
        return self.licence

    def describe(self) -> dict:
        """The record that a run keeps of its data: fingerprint, and size and hashed keys of every split."""
        splits = {}
        for name in SPLITS:
            keys = self.split(name).keys
            digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()
            splits[name] = {"samples": len({sample_of(key) for key in keys}), "keys_sha256": digest}
        return {"dataset": type(self).__name__, "fingerprint": self.fingerprint(), "splits": splits}

    def loader(
        self, name: SplitName, training: bool = False, steps_done: Callable[[], int] | None = None
    ) -> DataLoader:
        """A loader of compact batches of one split; pass each batch to `flatten`.

        Args:
            name: the split.
            training: whether to shuffle, see OrderedBatches.
            steps_done: returns the number of training steps to continue from; by default training starts at step 0.
        """
        split = self.for_training(self.split(name)) if training else self.split(name)
        split.open()
        order = OrderedBatches(len(split.keys), self.batch_size, self.seed, training, steps_done)
        return DataLoader(
            CompactBatches(split, self.seed, self.on_bad_sample),
            batch_size=None,
            sampler=order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=leave_interrupts_to_parent,
            pin_memory=torch.cuda.is_available(),
        )

    def setup(self, stage: str | None = None) -> None:
        """Opens the splits that the stage needs, so that missing data are found before training starts."""
        needed: dict[str | None, tuple[SplitName, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": (self.test_split,),
        }
        if stage == "fit":
            self.steps_done = 0  # a checkpoint, if any, is loaded later
        for name in needed.get(stage, SPLITS):
            self.split(name)

    def train_dataloader(self) -> DataLoader:
        return self.loader("train", True, None if self.trainer is None else lambda: self.steps_done)

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader(self.test_split)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """Moves everything but the strings, which Lightning would visit one by one."""
        return {
            name: value if name in ("key", "bad", "damaged") else move_data_to_device(value, device)
            for name, value in batch.items()
        }

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> Batch:
        if self.trainer is not None and self.trainer.training:
            self.steps_done += 1
        self.count_bad(batch)
        flat = self.flatten(batch)
        if self.trainer is None:
            return flat
        # the precision plugin converts floats, but the compact batch had none: ask it for the dtype
        dtype = self.trainer.precision_plugin.convert_input(torch.empty(0)).dtype
        return replace(flat, inputs={name: byte_array.to(dtype) for name, byte_array in flat.inputs.items()})

    def count_bad(self, compact: dict) -> None:
        """Keep why samples of a batch could not be decoded. Raises UserError where these are too many."""
        self.samples_seen += len(compact["key"])
        self.samples_skipped += len(compact["bad"])
        for key, reason in compact["bad"].items():
            if sample_of(key) not in self.bad_samples:  # of a clip with several windows, the first that is bad
                log.warning("skipped %s: %s", key, reason)
                self.bad_samples[sample_of(key)] = reason
        for key, damage in compact.get("damaged", {}).items():
            if sample_of(key) not in self.damaged_samples:
                log.warning("%s: %s", key, damage)
                self.damaged_samples[sample_of(key)] = damage
        # the share is meaningless for less than about a hundred samples
        if self.samples_skipped > self.max_bad_share * max(self.samples_seen, 100):
            raise UserError(
                f"{self.samples_skipped} of {self.samples_seen} samples could not be decoded, more than "
                f"max_bad_share {self.max_bad_share}; the last error: {list(self.bad_samples.values())[-1]}"
            )

    def gather_bad_samples(self) -> dict[str, str]:
        """The bad samples of all ranks so far, sorted by key, and in `damaged_samples` the damaged ones. Every rank must call
        this at the same time."""
        found = [(self.bad_samples, self.damaged_samples)]
        if dist.is_available() and dist.is_initialized():
            found = [({}, {}) for _ in range(dist.get_world_size())]
            dist.all_gather_object(found, (self.bad_samples, self.damaged_samples))
        self.bad_samples, self.damaged_samples = (
            dict(sorted((key, said) for one in ranks for key, said in one.items()))
            for ranks in zip(*found, strict=True)
        )
        return self.bad_samples

    def state_dict(self) -> dict:
        """The state for checkpoints: the spec, steps taken, and the bad and damaged samples of this rank so far."""
        return {
            "spec": self.spec.to_dict(),
            "steps_done": self.steps_done,
            "bad_samples": dict(sorted(self.bad_samples.items())),
            "damaged_samples": dict(sorted(self.damaged_samples.items())),
        }

    def load_state_dict(self, state_dict: dict) -> None:
        self.steps_done = state_dict["steps_done"]
        self.bad_samples = {**state_dict.get("bad_samples", {}), **self.bad_samples}
        self.damaged_samples = {**state_dict.get("damaged_samples", {}), **self.damaged_samples}
