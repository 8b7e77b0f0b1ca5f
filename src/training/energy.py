"""Energy used in training, measured with NVML on GPUs and with RAPL on Intel and AMD CPUs.

Counts everything that the devices used in that time, including other processes. Single machine only. None if the hardware
has no counters, or if only root may read them.
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import lightning as L
import pynvml
import torch
from lightning.pytorch.callbacks import Callback

POWERCAP = Path("/sys/class/powercap")
READ_EVERY_SECONDS = 10.0  # RAPL counters wrap around after a few minutes at full load


class RaplZone:
    """A RAPL counter in Linux's powercap tree, in microjoules; it wraps around at its range.

    Args:
        folder: folder of the zone, such as /sys/class/powercap/intel-rapl:0.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "energy_uj"
        self.range = int((folder / "max_energy_range_uj").read_text())
        self.last = self.read()

    def read(self) -> int:
        return int(self.file.read_text())

    def used(self) -> float:
        """Joules since the last call, which must be less than one wrap-around ago."""
        now = self.read()
        used, self.last = (now - self.last) % (self.range + 1), now
        return used / 1e6


class Gpu:
    """The NVML energy counter of a GPU, in millijoules since the driver was loaded (Volta and later).

    Args:
        device: CUDA index of the GPU.
    """

    def __init__(self, device: int) -> None:
        pynvml.nvmlInit()
        # CUDA and NVML number the GPUs differently
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
    """The zones of CPU packages and their DRAM. Other zones overlap: cores and graphics are part of packages, `psys`
    includes them."""
    zones = []
    for zone in sorted(folder.glob("intel-rapl:*")):  # the name for AMD as well
        try:
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                zones.append(RaplZone(zone))
        except (OSError, ValueError):  # no permission, or no counter
            continue
    return zones


def gpus(devices: list[int]) -> list[Gpu]:
    """The counters of those CUDA devices that have one."""
    found = []
    for device in devices:
        try:
            found.append(Gpu(device))
        except pynvml.NVMLError:
            continue
    return found


class Energy(Callback):
    """Adds up the energy of training, including validation, over all parts of a resumed run.

    Args:
        powercap: root of Linux's powercap tree.

    Attributes:
        joules: energy of CPU and GPU, as far as they have counters.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.powercap = powercap
        self.counters: dict[str, list] = {}
        self.joules: dict[str, float] = {}
        self.resumed = False
        self._read_at = 0.0

    @property
    def total(self) -> float | None:
        return sum(self.joules.values()) if self.joules else None

    def state_dict(self) -> dict:
        self.read()
        return {"joules": dict(self.joules)}

    def load_state_dict(self, state_dict: dict) -> None:
        self.joules, self.resumed = dict(state_dict["joules"]), True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        devices = trainer.device_ids if trainer.strategy.root_device.type == "cuda" else []
        found = {"CPU": rapl_zones(self.powercap), "GPU": gpus(devices)} if trainer.num_nodes == 1 else {}
        # a total is only known if every part of the run was counted
        counted = {name for name, counters in found.items() if counters and (name in self.joules or not self.resumed)}
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
        """Adds the energy used since the last reading."""
        self._read_at = monotonic()
        for name, counters in self.counters.items():
            self.joules[name] = self.joules.get(name, 0.0) + sum(counter.used() for counter in counters)
