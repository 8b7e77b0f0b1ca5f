"""Energy from counters as Linux shows them, in a folder of files: sums, wrap-around, missing rights, parts of a run."""

import json
from pathlib import Path

import pytest

import src.fit as fit
from src.training import energy
from src.training.energy import Energy, rapl_zones
from tests.support import DIGITS

RANGE = 262_143_328_850  # of a Xeon, in microjoules


@pytest.fixture
def powercap(tmp_path) -> Path:
    """Two packages, the first with cores and DRAM inside, and the platform around them."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
    }
    for zone, name in {**zones, "intel-rapl:2": "psys"}.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        count(tmp_path / zone, 1_000_000)
    (tmp_path / "intel-rapl").mkdir()  # the driver itself, which counts nothing
    return tmp_path


def count(zone: Path, microjoules: int) -> None:
    (zone / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_and_dram_are_counted_and_what_lies_inside_or_around_them_is_not(powercap):
    zones = rapl_zones(powercap)
    assert [zone.file.parent.name for zone in zones] == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]
    count(powercap / "intel-rapl:0", 3_500_000)
    assert [zone.used() for zone in zones] == [2.5, 0.0, 0.0]
    assert [zone.used() for zone in zones] == [0.0, 0.0, 0.0]


def test_a_counter_that_began_anew_is_counted_on(powercap):
    count(powercap / "intel-rapl:0", RANGE - 999_999)
    (zone, *_) = rapl_zones(powercap)
    count(powercap / "intel-rapl:0", 2_000_000)
    assert zone.used() == 3.0


def test_counters_that_cannot_be_read_give_none(powercap, tmp_path):
    for zone in powercap.glob("intel-rapl:*"):
        (zone / "energy_uj").unlink()
    assert rapl_zones(powercap) == []
    assert rapl_zones(tmp_path / "nowhere") == []
    assert Energy(tmp_path / "nowhere").total is None


class Trainer:
    """What the callback asks of a trainer on a CPU."""

    num_nodes = 1
    strategy = type("Strategy", (), {"root_device": type("Device", (), {"type": "cpu"})})


def test_parts_of_a_run_add_up_without_what_was_used_between_them(powercap):
    first = Energy(powercap)
    first.on_train_start(Trainer, None)
    count(powercap / "intel-rapl:1", 5_000_000)
    saved = json.loads(json.dumps(first.state_dict()))
    assert saved == {"joules": {"CPU": 4.0}}
    count(powercap / "intel-rapl:1", 9_000_000)
    second = Energy(powercap)
    second.load_state_dict(saved)
    second.on_train_start(Trainer, None)
    count(powercap / "intel-rapl:1", 10_000_000)
    second.on_train_end(Trainer, None)
    assert second.total == 5.0
    elsewhere = Energy(powercap / "nowhere")  # a part that nothing counted: the whole is not known
    elsewhere.load_state_dict(saved)
    elsewhere.on_train_start(Trainer, None)
    assert elsewhere.total is None


def test_a_real_run_writes_what_its_training_took(powercap, tmp_path, monkeypatch):
    readings = iter(range(10**6))

    def read(zone) -> int:
        return next(readings) * 1_000_000

    monkeypatch.setattr(energy.RaplZone, "read", read)
    monkeypatch.setattr(energy.Energy.__init__, "__defaults__", (powercap,))
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--runs_dir", str(tmp_path / "runs")]
    results = fit.main(["--config", DIGITS, *options]).read("results.json")
    assert results["energy_joules"] > 0
    assert results["energy_of"] == ["CPU"]
    monkeypatch.setattr(energy.Energy.__init__, "__defaults__", (powercap / "nowhere",))
    results = fit.main(["--config", DIGITS, *options]).read("results.json")
    assert (results["energy_joules"], results["energy_of"]) == (None, [])
