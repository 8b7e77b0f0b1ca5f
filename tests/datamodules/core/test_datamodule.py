"""What all datamodules share: bad samples, resuming in mid-epoch, flattening with and without Lightning."""

import logging

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import (
    BadSampleError,
    Batch,
    ByteArrayDataModule,
    DataSpec,
    Digits,
    Flatten,
    GridModality,
    Split,
    UserError,
)
from tests.support import QUIET

BATCH, STEPS = 256, 4  # of one epoch of Digits


class SomeBroken(Split):
    """Sample number n holds n in all places; those named in `broken` cannot be decoded."""

    def __init__(self, size: int, broken: set[int]) -> None:
        self.keys, self.broken = [f"s{number}" for number in range(size)], broken

    def load(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if index in self.broken:
            raise BadSampleError("is broken")
        return {"signal": torch.full((4,), float(index)), "target": torch.tensor(index)}


class SomeBrokenData(ByteArrayDataModule):
    def __init__(self, size: int, broken: set[int], **kwargs) -> None:
        super().__init__(**kwargs)
        self.size, self.broken = size, broken
        signal = GridModality((4,), 1, bands=2)
        self.flatten = Flatten({"signal": signal})
        self.spec = DataSpec({"signal": signal.spec}, "single_label", ("a", "b"))

    def make_split(self, name: str) -> Split:
        return SomeBroken(self.size, self.broken)

    def fingerprint(self) -> str:
        return "none"


class Recorder(L.LightningModule):
    """One linear layer that notes the keys of every training step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.steps: list[tuple[str, ...]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.steps.append(tuple(batch.keys))
        return torch.nn.functional.cross_entropy(self.layer(batch.inputs["image"].values[..., 0]), batch.target)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert batch.weight.sum() > 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(num_workers: int = 0, ckpt_path: str | None = None, **options) -> tuple[Recorder, L.Trainer]:
    model = Recorder()
    trainer = L.Trainer(accelerator="cpu", **(QUIET | {"num_sanity_val_steps": 0} | options))
    trainer.fit(model, Digits(batch_size=BATCH, num_workers=num_workers), ckpt_path=ckpt_path, weights_only=False)
    return model, trainer


@pytest.fixture(scope="module")
def whole() -> list[tuple[str, ...]]:
    """The steps of three epochs in one go."""
    return train(max_epochs=3)[0].steps


@pytest.fixture(autouse=True)
def quiet_lightning(caplog):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def test_raise_stops_at_a_sample_that_cannot_be_decoded():
    with pytest.raises(BadSampleError, match="is broken"):
        list(SomeBrokenData(8, {5}, batch_size=4).loader("val"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skip_gives_weight_0_keeps_the_shape_counts_and_logs(num_workers, caplog):
    data = SomeBrokenData(8, {0, 5}, batch_size=4, num_workers=num_workers, on_bad_sample="skip", max_bad_share=0.02)
    with caplog.at_level(logging.WARNING):
        batches = [data.on_after_batch_transfer(compact, 0) for compact in data.loader("val")]
    assert [batch.weight.tolist() for batch in batches] == [[0, 1, 1, 1], [1, 0, 1, 1]]
    assert [key for batch in batches for key in batch.keys] == [f"s{number}" for number in range(8)]
    for batch in batches:
        values = batch.inputs["signal"].values
        assert values.shape == (4, 4, 1)
        assert torch.equal(values[batch.weight == 1, 0, 0].long(), batch.target[batch.weight == 1])
    assert data.bad_samples == {"s0": "s0: is broken", "s5": "s5: is broken"}
    assert "skipped s5: is broken" in caplog.text


def test_skip_gives_up_past_max_bad_share():
    data = SomeBrokenData(300, {250, 251, 252, 253}, batch_size=50, on_bad_sample="skip", max_bad_share=0.01)
    loader = iter(data.loader("val"))
    for _ in range(5):
        data.on_after_batch_transfer(next(loader), 0)
    with pytest.raises(
        UserError, match=r"4 of 300 samples could not be decoded, more than max_bad_share 0\.01; the last"
    ):
        data.on_after_batch_transfer(next(loader), 0)


def test_skip_gives_up_on_a_batch_without_one_good_sample():
    data = SomeBrokenData(4, {0, 1, 2, 3}, batch_size=4, on_bad_sample="skip", max_bad_share=1.0)
    with pytest.raises(UserError, match="no sample of a batch could be decoded; the first error: s0: is broken"):
        list(data.loader("val"))


def test_flattening_works_in_a_plain_loop_without_lightning():
    data = Digits(batch_size=BATCH)
    keys = []
    for compact in data.loader("train"):
        assert compact["image"].dtype == torch.uint8
        batch = data.flatten(compact)
        spec = data.spec.modalities["image"]
        assert batch.inputs["image"].values.shape == (BATCH, spec.elements, spec.channels)
        assert batch.inputs["image"].positions.shape == (spec.elements, spec.position_channels)
        keys += [key for key, weight in zip(batch.keys, batch.weight.tolist(), strict=True) if weight]
    assert keys == data.split("train").keys


def test_a_plain_training_loop_sees_what_lightning_sees(whole):
    loader = Digits(batch_size=BATCH).loader("train", training=True)
    steps = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        steps += [tuple(compact["key"]) for compact in loader]
    assert steps == whole


@pytest.mark.parametrize(("stop", "num_workers"), [(3, 0), (4, 0), (6, 0), (6, 2), (8, 0)])
def test_resuming_from_a_checkpoint_of_a_step_goes_on_with_the_samples_that_were_left(
    stop, num_workers, whole, tmp_path
):
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=stop, save_top_k=-1, save_on_train_epoch_end=False)
    train(max_epochs=3, enable_checkpointing=True, callbacks=[saver])
    resumed, trainer = train(num_workers, str(tmp_path / f"step={stop}.ckpt"), max_epochs=3)
    assert resumed.steps == whole[stop:]
    assert (trainer.current_epoch, trainer.global_step) == (3, 3 * STEPS)


@pytest.mark.parametrize(("stop", "num_workers"), [(3, 0), (4, 0), (6, 2), (8, 2)])
def test_a_run_that_max_steps_ended_goes_on_with_the_samples_that_were_left(stop, num_workers, whole, tmp_path):
    """Lightning counts the rest of the epoch as a new one; the order must not."""
    path = str(tmp_path / "stopped.ckpt")
    _, trainer = train(num_workers, max_steps=stop)
    trainer.save_checkpoint(path)
    second, trainer = train(num_workers, path, max_steps=stop + 2)
    assert second.steps == whole[stop : stop + 2]
    trainer.save_checkpoint(path)
    third, _ = train(num_workers, path, max_steps=3 * STEPS)
    assert third.steps == whole[stop + 2 :]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_ended_with_an_epoch_goes_on_with_the_next(num_workers, whole, tmp_path):
    path = str(tmp_path / "ended.ckpt")
    _, trainer = train(num_workers, max_epochs=2)
    trainer.save_checkpoint(path)
    assert train(num_workers, path, max_epochs=3)[0].steps == whole[2 * STEPS :]


def test_describe_names_data_and_membership_of_splits():
    described = Digits().describe()
    assert described == Digits(batch_size=8, seed=3).describe()
    assert len({split["keys_sha256"] for split in described["splits"].values()}) == 3
