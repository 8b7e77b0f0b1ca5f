"""Every config in configs/: it names its command, all its options exist, and it builds without reading data."""

from pathlib import Path

import pytest
import yaml

from datamodules import ByteArrayDataModule
from src.cli import ByteBenchCLI

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def build(path: Path, tmp_path: Path) -> ByteBenchCLI:
    """Model, data and trainer of a config, on one CPU. An option that does not exist raises an error."""
    options = ["--config", str(path), "--runs_dir", str(tmp_path / "runs")]
    return ByteBenchCLI([*options, "--trainer.accelerator", "cpu", "--trainer.devices", "1"], "test")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_first_line_is_the_command(path):
    command, said = path.read_text().splitlines()[:2]
    assert command == f"# python -m src.fit --config configs/{path.name}"
    assert said.startswith("# ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_builds_without_reading_data(path, tmp_path, monkeypatch):
    def read(self, *args):
        raise AssertionError("read data")

    monkeypatch.chdir(tmp_path)  # where no data lie
    for method in ("split", "prepare_data", "fingerprint"):
        monkeypatch.setattr(ByteArrayDataModule, method, read)
    cli = build(path, tmp_path)
    assert cli.model.data_spec == cli.datamodule.spec
    assert cli.model.count_flops() > 0
    assert not list(tmp_path.iterdir())


def test_no_two_configs_write_into_one_run_folder():
    folders = [(c["experiment"], c["cell"]) for c in (yaml.safe_load(path.read_text()) for path in CONFIGS)]
    assert len(folders) == len(set(folders))
