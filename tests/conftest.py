"""What all tests share: no W&B, a fixed seed, and small specs of data."""

import os

os.environ["WANDB_MODE"] = "disabled"
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, as set_num_threads below

import pytest
import torch

from datamodules import DataSpec, ModalitySpec

torch.set_num_threads(1)  # for models this small more threads only wait for each other


def pytest_configure(config: pytest.Config) -> None:
    # what libraries say of each other
    for said in (
        "LightningCLI's args parameter",
        r"\s*By default only one Jsonarg",
        r"\s*.* deprecated in v4",
        ".*LeafSpec",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{said}")
    config.addinivalue_line("filterwarnings", "ignore::UserWarning:lightning")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Tiny files of every data set."""
    from tests.support.tiny import Tiny  # tests that need none are quicker without

    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def image_spec() -> DataSpec:
    return DataSpec({"image": ModalitySpec(3, 10, 8 * 6, (8, 6), 2)}, "single_label", ("a", "b", "c"))


@pytest.fixture
def clip_spec() -> DataSpec:
    audio, video = ModalitySpec(6, 5, 12, (12,), 1), ModalitySpec(4, 9, 2 * 4 * 3, (2, 4, 3), 3)
    return DataSpec({"audio": audio, "video": video}, "multi_label", ("a", "b"))


@pytest.fixture
def set_spec() -> DataSpec:
    return DataSpec({"points": ModalitySpec(3, 9, 20, None, 3)}, "single_label", ("a", "b", "c"))
