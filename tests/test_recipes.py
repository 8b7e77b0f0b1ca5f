"""Recipes: mixed pictures, averaged weights, stochastic depth, dropout, in training and out of it."""

import csv
import json
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F

import src.evaluate as evaluate
import src.fit as fit
from datamodules import Batch, Digits, UserError
from datamodules.images.mixing import Mixing
from src.backbones import LambdaResNet, Perceiver
from src.runs.folder import Run, load_checkpoint
from src.tasks import Classification

CONFIG = Path(__file__).parent.parent / "configs" / "digits_perceiver.yaml"
BATCH, STEPS = 256, 4  # of one epoch of Digits
MIXED = [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}]


def step_of(images: Tensor, classes: int = 5, seed: int = 3) -> dict:
    """A compact batch of a training step; the example in row n has label n modulo the classes."""
    rows = len(images)
    seeds = torch.arange(rows) + seed
    target = torch.arange(rows) % classes
    return {"image": images, "target": target, "mix_seed": seeds, "weight": torch.ones(rows), "key": ["x"] * rows}


def training_batches(epoch: int = 0, **options) -> list[Batch]:
    """One epoch as training sees it."""
    data = Digits(batch_size=BATCH, **options)
    loader = data.loader("train", training=True)
    loader.sampler.set_epoch(epoch)
    return [data.flatten(compact) for compact in loader]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.target, b.target) and torch.equal(a.inputs["image"].values, b.inputs["image"].values)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_mixup_adds_each_picture_and_the_one_before_by_the_shares_in_the_target(shape):
    images = torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    for seed in range(10):
        mixed = Mixing(0.8, 0.0, 5)(step_of(images, seed=seed))
        share = mixed["target"].diagonal()  # of the picture itself
        assert share.unique().numel() == 1
        assert torch.allclose(mixed["target"], torch.lerp(torch.eye(5).roll(1, 0), torch.eye(5), share[0]))
        before = images.roll(1, 0).float()
        wanted = torch.lerp(before, images.float(), share[0])
        assert torch.allclose(mixed["image"].reshape(5, *shape), wanted, atol=1e-3)


def test_cutmix_pastes_a_box_of_the_picture_before_by_its_area_in_the_target():
    rows = torch.arange(5)
    images = rows[:, None, None].expand(5, 6, 8).to(torch.uint8)  # each pixel tells whose it is
    areas = set()
    for seed in range(20):
        mixed = Mixing(0.0, 1.0, 5)(step_of(images, seed=seed))
        own = mixed["image"][..., 0] == rows[:, None, None]
        assert ((mixed["image"][..., 0] == (rows[:, None, None] - 1) % 5) | own).all()
        assert torch.allclose(own.float().mean(dim=(1, 2)), mixed["target"].diagonal())
        areas.add(own[0].sum().item())
    assert len(areas) > 5


@pytest.mark.parametrize("options", MIXED)
def test_mixed_targets_are_scores_that_add_up_to_one(options):
    batches = training_batches(**options)
    for batch in batches:
        assert batch.target.shape == (BATCH, 10)
        assert torch.allclose(batch.target.sum(dim=1), torch.ones(BATCH))
        assert (batch.target >= 0).all()
    assert not same(batches, training_batches(epoch=1, **options))


def test_with_both_some_steps_use_one_and_some_the_other():
    images = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 6, 8).contiguous()
    pasted = [Mixing(1.0, 1.0, 5)(step_of(images, seed=seed))["image"] for seed in range(20)]
    assert 0 < sum(torch.equal(image, image.round()) for image in pasted) < 20


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("options", MIXED)
def test_mixing_is_the_same_for_any_number_of_workers(options):
    plain = training_batches(**options)
    for workers in (1, 3):
        torch.manual_seed(workers)  # of the global generator nothing is drawn
        assert same(training_batches(num_workers=workers, **options), plain)


def test_mixing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Mixing(0.8, 1.0, 5)(step_of(torch.zeros(5, 6, 8, dtype=torch.uint8)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("permutation", ["fixed", "per_example"])
def test_a_mixed_picture_carries_its_positions_along_when_it_is_permuted(permutation):
    data = Digits(batch_size=8, cutmix=1.0, permutation=permutation)
    compact = next(iter(data.loader("train", training=True)))
    plain = data.flatten.modalities["image"](data.flatten.mixing(compact)["image"])
    batch = data.flatten(compact)
    array = batch.inputs["image"]
    assert torch.equal(batch.target, data.flatten.mixing(compact)["target"])
    for values, positions, wanted in zip(array.values, array.positions.expand(8, -1, -1), plain.values, strict=True):
        place = (positions[:, None] == plain.positions).all(dim=-1).int().argmax(dim=0)  # of each pixel of the raster
        assert sorted(place.tolist()) == list(range(64)) != place.tolist()
        assert torch.equal(values[place], wanted)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_evaluation_never_mixes(name):
    data, plain = Digits(batch_size=BATCH, mixup=0.8, cutmix=1.0), Digits(batch_size=BATCH)
    for compact, wanted in zip(data.loader(name), plain.loader(name), strict=True):
        batch = data.flatten(compact)
        assert torch.equal(batch.target, wanted["target"])
        assert torch.equal(batch.inputs["image"].values, plain.flatten(wanted).inputs["image"].values)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_an_alpha_below_zero_is_refused(option):
    with pytest.raises(UserError, match=f"{option} -0.5 is not a valid alpha"):
        Digits(**{option: -0.5})


def mix_on_a_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    mixed = [(b.keys, b.target, b.inputs["image"].values) for b in training_batches(mixup=0.8, cutmix=1.0)]
    torch.save(mixed, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_mix_a_step_as_one_does(tmp_path):
    # forked, since importing everything anew takes longer than all else; on one thread, which survives a fork
    mp.start_processes(mix_on_a_rank, args=(2, tmp_path), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for step, batch in enumerate(training_batches(mixup=0.8, cutmix=1.0)):
        for rank in range(2):
            keys, target, values = ranks[rank][step]
            assert keys == batch.keys[rank::2]
            assert torch.equal(target, batch.target[rank::2])
            assert torch.equal(values, batch.inputs["image"].values[rank::2])


class Recorder(Classification):
    """Notes the targets of every training step."""

    def __init__(self, data: Digits) -> None:
        small = partial(Perceiver, num_latents=2, latent_dim=8, cross_attends=1, self_attends_per_block=1)
        super().__init__(data.spec, small)
        self.steps: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.steps.append(batch.target)
        return super().training_step(batch, batch_idx)


def train_recorded(ckpt_path: str | None = None, **options) -> Recorder:
    data = Digits(batch_size=BATCH, mixup=0.8, cutmix=1.0)
    torch.manual_seed(0)
    model = Recorder(data)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = L.Trainer(accelerator="cpu", max_epochs=2, **quiet, **{"enable_checkpointing": False, **options})
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=False)
    return model


def test_a_resumed_training_is_mixed_and_ends_as_the_whole_one(tmp_path):
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1, save_on_train_epoch_end=False)
    whole = train_recorded(enable_checkpointing=True, callbacks=[saver])
    resumed = train_recorded(str(tmp_path / "step=3.ckpt"))
    assert len(resumed.steps) == 2 * STEPS - 3
    assert all(torch.equal(a, b) for a, b in zip(resumed.steps, whole.steps[3:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_targets_is_the_shares_mean_of_the_losses_of_labels(smoothing):
    data = Digits()
    model = Classification(data.spec, partial(Perceiver, num_latents=2, latent_dim=8), label_smoothing=smoothing)
    scores = torch.randn(6, 10)
    first, second = torch.randint(10, (6,)), torch.randint(10, (6,))
    mixed = 0.3 * F.one_hot(first, 10) + 0.7 * F.one_hot(second, 10)
    wanted = 0.3 * model.loss(scores, first) + 0.7 * model.loss(scores, second)
    assert torch.allclose(model.loss(scores, mixed), wanted, atol=1e-5)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Path:
    """A run with everything: mixed pictures, dropout, averaged weights, clipped gradients."""
    folder = tmp_path_factory.mktemp("averaged")
    config = yaml.safe_load(CONFIG.read_text())
    config["data"]["init_args"] |= {"mixup": 0.2, "cutmix": 1.0}
    config["model"]["init_args"] |= {"label_smoothing": 0.1, "dropout": 0.1}
    ema = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    config["trainer"] |= {"max_epochs": 8, "callbacks": [ema]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    fit.main(["--config", str(folder / "config.yaml"), "--runs_dir", str(folder / "runs")])
    return folder / "runs" / "digits" / "perceiver" / "seed0"


@pytest.mark.parametrize("split", ["val", "test"])
def test_results_of_averaged_weights_are_those_of_the_last_checkpoint(averaged, split):
    wanted = json.loads((averaged / "results.json").read_text())["metrics"][split]
    assert wanted["top1"] > 0.5
    assert evaluate.main(["--run", str(averaged), "--split", split]) == wanted


def test_the_best_checkpoint_holds_averaged_weights_too(averaged):
    best = evaluate.main(["--run", str(averaged), "--split", "val", "--checkpoint", "best"])["top1"]
    with (averaged / "metrics.csv").open() as file:
        assert best == max(float(row["val/top1"]) for row in csv.DictReader(file) if row["val/top1"])


def test_the_last_checkpoint_holds_the_average_and_beside_it_what_training_goes_on_from(averaged):
    checkpoint = load_checkpoint(averaged / "checkpoints" / "last.ckpt")
    current, average = checkpoint["current_model_state"], Run(averaged).weights()
    assert current.keys() == average.keys()
    assert not any(torch.equal(current[name], average[name]) for name in ("head.weight", "backbone.latents"))
    assert checkpoint["averaging_state"]["n_averaged"] == 8 * (1197 // 64)


def test_stochastic_depth_rises_in_a_line_and_is_off_in_evaluation(image_spec):
    plain = LambdaResNet(image_spec, depth=26, stages="CCCC").eval()
    dropping = LambdaResNet(image_spec, depth=26, stages="CCCC", stochastic_depth=0.7).eval()
    dropping.load_state_dict(plain.state_dict())
    inputs = image_spec.example_inputs(4)
    assert torch.equal(dropping(inputs), plain(inputs))
    rates = [getattr(block.drop, "drop_prob", 0.0) for stage in dropping.stages for block in stage]
    assert rates == pytest.approx([0.1 * number for number in range(8)])


def test_stochastic_depth_skips_a_block_for_its_share_of_examples_and_keeps_the_expectation(image_spec):
    network = LambdaResNet(image_spec, depth=26, stages="CCCC", stochastic_depth=0.5).train()
    branch = network.stages[-1][-1].drop(torch.ones(4000, 1, 1, 1)).flatten()
    assert set(branch.tolist()) == {0.0, 2.0}
    assert branch.mean().item() == pytest.approx(1, abs=0.1)


def test_dropout_is_off_in_evaluation_and_keeps_the_expected_scores(image_spec):
    model = Classification(image_spec, partial(LambdaResNet, depth=26, stages="CCCC"), dropout=0.5)
    model.backbone.eval()
    inputs = image_spec.example_inputs(1)
    with torch.no_grad():
        model.dropout.eval()
        wanted = model(inputs)
        assert torch.equal(model(inputs), wanted)
        features = model.backbone(inputs).mean(dim=1)
        model.dropout.train()
        scores = model.head(model.dropout(features.expand(4000, -1)))
    assert (scores != wanted).any()
    assert torch.allclose(scores.mean(dim=0), wanted[0], atol=0.1 * scores.std().item())
