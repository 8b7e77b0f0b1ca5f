"""Sample order is f(seed, epoch, index): the same for any number of workers and ranks, exactly once in evaluation."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from datamodules import ByteArrayDataModule, DataSpec, Flatten, GridModality, Split, UserError
from datamodules.clips.base import load_into_memory
from datamodules.core.order import OrderedBatches, epoch_order, sample_generator

BATCH = 6  # divides by 1, 2 and 3 ranks
SIZES = {"train": 20, "val": 13, "test": 7}


class Draws(Split):
    """Each sample is a random number from its generator, so that randomness inside samples shows."""

    def __init__(self, name: str, size: int) -> None:
        self.keys = [f"{name}/{number:02d}" for number in range(size)]

    def load(self, index: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"signal": torch.rand(4, generator=generator), "target": torch.tensor(index)}


class DrawsData(ByteArrayDataModule):
    def __init__(self, batch_size: int = BATCH, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size, num_workers, seed)
        signal = GridModality((4,), 1, bands=2)
        self.flatten = Flatten({"signal": signal})
        self.spec = DataSpec({"signal": signal.spec}, "single_label", tuple(map(str, range(20))))

    def make_split(self, name: str) -> Split:
        return Draws(name, SIZES[name])

    def fingerprint(self) -> str:
        return "none"


def entries(batch: dict) -> list[tuple]:
    """(key, weight, target, first number drawn) of every example."""
    columns = (batch["key"], batch["weight"].tolist(), batch["target"].tolist(), batch["signal"][:, 0].tolist())
    return list(zip(*columns, strict=True))


def steps_of(data: ByteArrayDataModule, name: str, training: bool = False, epoch: int = 0) -> list[list[tuple]]:
    loader = data.loader(name, training)
    loader.sampler.set_epoch(epoch)
    return [entries(batch) for batch in loader]


def all_steps(num_workers: int = 0) -> dict[str, list[list[tuple]]]:
    """What one rank sees of two training epochs and of evaluation."""
    data = DrawsData(num_workers=num_workers)
    return {
        "train, epoch 0": steps_of(data, "train", training=True, epoch=0),
        "train, epoch 1": steps_of(data, "train", training=True, epoch=1),
        "val": steps_of(data, "val"),
        "test": steps_of(data, "test"),
    }


def be_one_rank(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)  # torch's thread pool does not survive a fork
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=300)
    )
    seen = all_steps(num_workers=rank % 2)
    in_memory, bad, damaged = load_into_memory(Draws("val", SIZES["val"]), "loading", workers=0)
    assert bad == damaged == {}
    try:
        next(iter(DrawsData(batch_size=7).loader("train", training=True)))
        refused = ""
    except UserError as error:
        refused = str(error)
    data = DrawsData()
    data.bad_samples = {f"s{world - rank}": f"rank {rank}", "shared": "is broken"}
    gathered = list(data.gather_bad_samples().items())
    found = {"steps": seen, "in_memory": in_memory.tensors, "refused": refused, "bad": gathered}
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def one_rank() -> dict[str, list[list[tuple]]]:
    return all_steps()


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request, tmp_path_factory) -> list[dict]:
    """What each rank of real processes saw."""
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    mp.start_processes(be_one_rank, (request.param, folder), nprocs=request.param, start_method="fork")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(request.param)]


def test_ranks_together_see_in_each_step_what_one_rank_sees(ranks, one_rank):
    """The whole entry is compared: key, weight, target and the randomness inside the sample."""
    for name, steps in one_rank.items():
        for step, whole in enumerate(steps):
            together = [entry for rank in ranks for entry in rank["steps"][name][step]]
            assert sorted(together) == sorted(whole), (name, step)


def test_ranks_have_the_same_steps_of_the_same_size(ranks, one_rank):
    for name, steps in one_rank.items():
        sizes = [[len(step) for step in rank["steps"][name]] for rank in ranks]
        assert sizes == [[BATCH // len(ranks)] * len(steps)] * len(ranks), name


def test_evaluation_on_many_ranks_covers_every_key_exactly_once(ranks):
    for name in ("val", "test"):
        real = [entry[0] for rank in ranks for step in rank["steps"][name] for entry in step if entry[1] == 1]
        assert sorted(real) == Draws(name, SIZES[name]).keys


def test_loading_into_memory_gives_every_rank_all_samples(ranks):
    for rank in ranks:
        assert rank["in_memory"]["target"].tolist() == list(range(SIZES["val"]))


def test_batch_size_that_does_not_divide_by_the_ranks_is_refused(ranks):
    for rank in ranks:
        assert f"batch_size 7 is not divisible by {len(ranks)} ranks" in rank["refused"]


def test_bad_samples_of_all_ranks_are_known_to_each(ranks):
    expected = [(f"s{len(ranks) - rank}", f"rank {rank}") for rank in reversed(range(len(ranks)))]
    assert [rank["bad"] for rank in ranks] == [[*expected, ("shared", "is broken")]] * len(ranks)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing(num_workers, one_rank):
    assert all_steps(num_workers) == one_rank


@pytest.mark.parametrize("size", [1, 5, 6, 7, 12, 13])
def test_evaluation_on_one_rank_covers_every_index_exactly_once_in_order(size):
    order = OrderedBatches(size, BATCH, seed=0, training=False)
    steps = list(order)
    assert len(steps) == len(order)
    assert [ref.index for step in steps for ref in step if ref.real] == list(range(size))
    assert all(len(step) == BATCH for step in steps)
    assert {ref.epoch for step in steps for ref in step} == {0}


def test_training_begins_with_epoch_0_and_may_take_all_samples_in_one_step():
    (step,) = OrderedBatches(BATCH, BATCH, seed=3, training=True)
    assert [ref.index for ref in step] == epoch_order(BATCH, seed=3, epoch=0)


def test_training_shuffles_anew_each_epoch_and_repeats_nothing_within_one(one_rank):
    first, second = ([e[0] for step in one_rank[f"train, epoch {n}"] for e in step] for n in (0, 1))
    assert len(set(first)) == len(first) == SIZES["train"] // BATCH * BATCH
    assert first != second
    assert first != sorted(first)
    assert all(entry[1] == 1 for step in one_rank["train, epoch 0"] for entry in step)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 3), (7, 3)])
def test_order_is_torchs_permutation_under_a_hash_of_seed_and_epoch(seed, epoch):
    digest = hashlib.blake2b(f"order/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") // 2)
    assert epoch_order(50, seed, epoch) == torch.randperm(50, generator=generator).tolist()


def test_randomness_inside_a_sample_depends_on_seed_epoch_and_key_alone():
    def draw(seed: int, epoch: int, key: str) -> float:
        return torch.rand((), generator=sample_generator(seed, epoch, key)).item()

    value = draw(0, 1, "a")
    torch.manual_seed(5)
    assert draw(0, 1, "a") == value
    assert len({value, draw(1, 1, "a"), draw(0, 2, "a"), draw(0, 1, "b")}) == 4


def test_randomness_inside_a_sample_changes_from_epoch_to_epoch_in_training_only(one_rank):
    first, second = ({e[0]: e[3] for step in one_rank[f"train, epoch {n}"] for e in step} for n in (0, 1))
    both = first.keys() & second.keys()
    assert both
    assert all(first[key] != second[key] for key in both)
    assert steps_of(DrawsData(), "val", epoch=7) == one_rank["val"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_order_goes_on_after_the_steps_done(num_workers, one_rank):
    loader = DrawsData(num_workers=num_workers).loader("train", training=True)
    loader.sampler.steps_done = lambda: 4  # an epoch of three and one more
    assert len(loader) == 3
    assert [entries(batch) for batch in loader] == one_rank["train, epoch 1"][1:]


def test_batch_larger_than_the_train_split_is_refused_but_may_be_used_for_evaluation():
    data = DrawsData(batch_size=32)
    with pytest.raises(
        UserError, match=r"batch_size 32 is larger than the number of training samples \(20\): lower --data\.batch_size"
    ):
        data.loader("train", training=True)
    [batch] = data.loader("val")
    assert batch["weight"].sum() == SIZES["val"]
    assert len(batch["key"]) == 32
