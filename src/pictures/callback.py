"""A callback that draws pictures at the end of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from .attention import draw_attention
from .samples import draw_samples, load_samples


class Pictures(Callback):
    """Draws validation samples with predictions, and attention maps if the backbone has them, when training ends.

    The pictures are saved in the run folder and logged to W&B. Skipped for sharded models, since only one rank draws.

    Args:
        samples: number of samples to draw.
    """

    def __init__(self, samples: int = 12) -> None:
        self.samples = samples

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device_mesh is not None:
            return
        task: Any = pl_module
        data = trainer.datamodule  # pyrefly: ignore
        folder = Path(trainer.default_root_dir) / "pictures"
        title = f"{task.title} on {type(data).__name__}"
        samples = load_samples(task, data, "val", self.samples, task.device)
        written = [folder / "val_samples.png"]
        draw_samples(samples, written[0], f"{title}: val samples and predictions after training")
        if hasattr(task.backbone, "attention_maps"):
            written += draw_attention(task.backbone, samples, folder, title)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for path in written:
                    logger.log_image(f"pictures/{path.stem}", [str(path)])
