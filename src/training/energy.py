"""Energy that a run's training took, as far as the hardware counts it: NVML for GPUs, RAPL for Intel's and AMD's CPUs.

All that the counted devices used in that time, whatever else ran on them. One machine's; None where nothing counts, or
Linux lets only root read it.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import lightning as L
import pynvml
import torch
from lightning.pytorch.callbacks import Callback

POWERCAP = Path("/sys/class/powercap")
READ_EVERY_SECONDS = 10.0  # RAPL's counters begin anew after some minutes at full load


class RaplZone:
    """One counter of Linux's powercap tree, in microjoules; it begins anew at its range."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "energy_uj"
        self.range = int((folder / "max_energy_range_uj").read_text())
        self.last = self.read()

    def read(self) -> int:
        return int(self.file.read_text())

    def used(self) -> float:
        """Joules since the last call; read it more often than the counter begins anew."""
        now = self.read()
        used, self.last = (now - self.last) % (self.range + 1), now
        return used / 1e6


class Gpu:
    """NVML's counter of a GPU, in millijoules since the driver was loaded (Volta and later)."""

    def __init__(self, device: int) -> None:
        pynvml.nvmlInit()
        # CUDA's numbers are not NVML's
        self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        self.last = self.read()

    def read(self) -> int:
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)

    def used(self) -> float:
        """Joules since the last call."""
        now = self.read()
        used, self.last = now - self.last, now
        return used / 1e3


def rapl_zones(folder: Path = POWERCAP) -> list[RaplZone]:
    """The CPU packages and their DRAM; cores and graphics are inside packages, `psys` is around them."""
    zones = []
    for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's too
        try:
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                zones.append(RaplZone(zone))
        except (OSError, ValueError):  # not for this user, or no counter
            continue
    return zones


def gpus(devices: list[int]) -> list[Gpu]:
    """Those of CUDA's devices that count their energy."""
    found = []
    for device in devices:
        try:
            found.append(Gpu(device))
        except pynvml.NVMLError:
            continue
    return found


class Energy(Callback):
    """Adds up what training takes, validation included, over all parts of a run. `joules`: by CPU and GPU, as far as they
    count."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.powercap = powercap
        self.counters: dict[str, list] = {}
        self.joules: dict[str, float] = {}
        self.goes_on = False
        self._read_at = 0.0

    @property
    def total(self) -> float | None:
        return sum(self.joules.values()) if self.joules else None

    def state_dict(self) -> dict:
        self.read()
        return {"joules": dict(self.joules)}

    def load_state_dict(self, state_dict: dict) -> None:
        self.joules, self.goes_on = dict(state_dict["joules"]), True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        devices = trainer.device_ids if trainer.strategy.root_device.type == "cuda" else []
        found = {"CPU": rapl_zones(self.powercap), "GPU": gpus(devices)} if trainer.num_nodes == 1 else {}
        # what some parts of a run did not count is not known of the whole
        counted = {name for name, counters in found.items() if counters and (name in self.joules or not self.goes_on)}
        self.counters = {name: found[name] for name in counted}
        self.joules = {name: self.joules.get(name, 0.0) for name in sorted(counted)}
        self._read_at = monotonic()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if monotonic() - self._read_at > READ_EVERY_SECONDS:
            self.read()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.read()
        self.counters = {}

    def read(self) -> None:
        """Add what was used since the last reading."""
        self._read_at = monotonic()
        for name, counters in self.counters.items():
            self.joules[name] = self.joules.get(name, 0.0) + sum(counter.used() for counter in counters)
