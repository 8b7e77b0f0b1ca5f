"""The contract of all tasks: a backbone, a head, a loss, metrics, an optimizer with its schedule, and counted operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any, Literal, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.flop_counter import FlopCounterMode

from datamodules import Batch, ByteArray, DataSpec, UserError
from datamodules.core.checks import check_range
from datamodules.core.order import hashed_seed

from ..backbones.base import Backbone
from ..metrics.registry import metric_named
from ..optim import Constant, Schedule
from ..training.batch_norm import synchronise_batch_norms
from ..training.fine_tuning import freeze, parameter_groups
from ..training.strategies import mean_over_ranks, shard
from ..training.weights import LoadedWeights, load_weights


class Task(L.LightningModule, ABC):
    """A LightningModule of a backbone, which is made with the data spec, a head, a loss and metrics.

    A subclass builds its head and calls `set_metrics` in its constructor, and has `forward`, `training_step` and `evaluate`.

    Args:
        data_spec: comes from the datamodule.
        backbone: the network, made with the data spec: of src.backbones, or a class of your own.
        optimizer: of torch or timm, made with the parameters; its `lr` is what the schedule scales.
        schedule: of src.optim, the factor of the learning rate over training; None keeps it constant.
        weights: what the backbone begins with: a run folder, a checkpoint or .safetensors file, `release:NAME` (in the folder
            $BYTEBENCH_WEIGHTS), or `timm:NAME` for a backbone that wraps timm. Heads stay fresh. None: random weights.
        freeze: names of modules that do not train, such as [backbone.stem, backbone.stages.0]; they stay in evaluation mode.
        lr_decay: factor of the learning rate from one of the backbone's blocks to the block before; heads learn at the full
            rate. 1 for one rate.
        decay: which parameters the optimizer's weight decay is for: `all`, or `weights`, not biases and not the parameters
            of norms, as in the Perceiver's released code.

    Attributes:
        loaded_weights: what became of each tensor of `weights`; None before.
        tasks: the kinds of data (`data_spec.task`) that it learns.
        monitor: the validation metric that the best checkpoint is chosen by; the registry of metrics knows its direction.
        val_metrics, test_metrics: their `definition` says how they are computed.
        whole_weights: whether `weights` that fit in part only are refused.
        predictions: of the last test, for the run folder: COCO's results of boxes and masks, or arrays; None before.
        resumes_inside_epochs: whether a run may resume from the middle of an epoch.
        drawn_as: how pictures of samples show predictions: as a caption, as bars, or as objects with boxes and masks.
        explained: what `score_to_explain` is called in pictures; None where it has no gradient.
    """

    tasks: tuple[str, ...]
    monitor: str
    val_metrics: Any
    test_metrics: Any
    loaded_weights: LoadedWeights | None = None
    whole_weights = False
    frozen: Sequence[nn.Module] = ()
    predictions: dict[str, list[dict]] | dict[str, np.ndarray] | None = None
    resumes_inside_epochs = True
    drawn_as: Literal["caption", "bars", "objects"] = "caption"
    explained: str | None = "features"

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        optimizer: Callable[[Iterable], Optimizer] = AdamW,
        schedule: Schedule | None = None,
        weights: str | None = None,
        freeze: Sequence[str] = (),
        lr_decay: float = 1.0,
        decay: Literal["all", "weights"] = "all",
    ) -> None:
        super().__init__()
        check_range(0, 1, lr_decay=lr_decay)
        if data_spec.task not in self.tasks:
            raise UserError(
                f"{type(self).__name__} needs {' or '.join(self.tasks)} data, these are {data_spec.task}: set model to a "
                "task for them, such as src.tasks.Classification, src.tasks.Regression or src.tasks.Detection"
            )
        self.data_spec = data_spec
        check_optimizer(optimizer)
        # a function, which copies of the model share: what a config makes of `optimizer` cannot be copied
        self.make_optimizer = lambda parameters: optimizer(parameters)
        self.schedule = schedule or Constant()
        self.backbone = backbone(data_spec)
        self.weights, self.freeze_names, self.lr_decay, self.decay = weights, tuple(freeze), lr_decay, decay

    def setup(self, stage: str) -> None:
        """Load the backbone's first weights, once, and freeze what does not train."""
        if stage == "fit" and self.weights is not None and self.loaded_weights is None:
            self.loaded_weights = load_weights(self.backbone, self.weights, self.whole_weights)
        if self.freeze_names:
            self.frozen = freeze(self, self.freeze_names)
            self.train(self.training)
            if not any(parameter.requires_grad for parameter in self.parameters()):
                raise UserError(f"freeze {list(self.freeze_names)} leaves nothing to train: name fewer modules")

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def set_metrics(self, metrics: Callable[[], Any], monitor: str) -> None:
        """Make the metrics of both splits: objects with update, compute, reset and `definition`.

        Raises:
            UserError: `monitor` is no registered metric.
        """
        self.monitor = metric_named(monitor).name
        self.val_metrics, self.test_metrics = metrics(), metrics()

    @property
    def title(self) -> str:
        """What pictures call the model."""
        return type(self.backbone).__name__

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The loss of a training batch."""

    @abstractmethod
    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        """Update the metrics of a split with a batch."""

    def configure_model(self) -> None:
        """Synchronise batch normalisation over ranks, and shard the model where the strategy says so."""
        synchronise_batch_norms(self)
        if self.device_mesh is not None:
            shard(self, self.device_mesh)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and the like by seed, epoch, step and rank, so that a resumed run draws what it would have drawn."""
        datamodule = getattr(self.trainer, "datamodule", None)
        seed = 0 if datamodule is None else datamodule.seed
        number = hashed_seed("step", seed, self.current_epoch, batch_idx, self.global_rank)
        # not torch.manual_seed: without a GPU it keeps a stack trace a step, for the day that one is found
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)

    def mean_loss(self, losses: Tensor, batch: Batch) -> Tensor:
        """The loss to minimise, from the losses (B,) of this rank's samples; logs it as train/loss."""
        loss, value = mean_over_ranks(losses, batch.weight)
        # Lightning takes 2 ms to log a value, whether or not it writes it: log only the steps that are written
        trainer: Any = self.trainer
        if (trainer.global_step + 1) % trainer.log_every_n_steps <= 1:
            self.log("train/loss", value, batch_size=len(batch.keys))
        return loss

    def log_mean(self, name: str, losses: Tensor, batch: Batch) -> None:
        """Log the mean over an evaluation's samples, from values (B,); samples of weight 0 do not count."""
        real = batch.weight.sum()
        mean = (losses * batch.weight).sum() / real.clamp(min=1)
        self.log(name, mean, batch_size=int(real), on_epoch=True, sync_dist=True)

    def predict(self, batch: Batch) -> Any:
        """Predictions for people to look at, one per example, on the CPU."""
        return self(batch.inputs).cpu()

    def caption(self, prediction: Any, target: Any, names: Sequence[str]) -> tuple[str, bool | None]:
        """One line with an example's prediction and target, and whether it is right, where that is a question.

        Args:
            prediction: of `predict`.
            target: as in the batch.
            names: of the classes.
        """
        predicted, wanted = ([f"{value:.2f}" for value in values.flatten().tolist()] for values in (prediction, target))
        return f"{', '.join(predicted)}, is {', '.join(wanted)}", None

    def score_to_explain(self, inputs: dict[str, ByteArray]) -> Tensor:
        """A score (B,) whose gradient shows what a prediction depends on: the squared norm of the mean features."""
        return self.backbone(inputs).mean(dim=1).square().sum(dim=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "test", self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self.report("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self.report("test", self.test_metrics)

    def report(self, split: str, metrics: Any) -> None:
        """Log the metrics of a split and start them anew."""
        for name, value in metrics.compute().items():
            self.log(f"{split}/{name}", value.float().to(self.device))
        metrics.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        plain = self.lr_decay == 1 and self.decay == "all"
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.make_optimizer(trained if plain else parameter_groups(self, self.lr_decay, self.decay))
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_scale", 1.0)
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_meta(self) -> Self:
        """A copy without memory, for evaluation: running it on example inputs gives shapes and operations."""
        return deepcopy(self).to("meta").eval().requires_grad_(False)

    def counted(self, inputs: dict[str, ByteArray]) -> object:
        """The operations that `flops_per_example` counts: one forward pass."""
        return self(inputs)

    @cached_property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @cached_property
    def flops_per_example(self) -> int:
        """Floating-point operations of `counted` on one example, multiplications and additions counted apart.

        Counted on the meta device from the data spec: nothing is computed.
        """
        model = self.on_meta()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.counted(self.data_spec.example_inputs(device="meta"))
        return counter.get_total_flops()


def check_optimizer(optimizer: Callable[[Iterable], Optimizer]) -> None:
    """Raises UserError where an optimizer refuses its options, which it would say only after data and model are there."""
    try:
        optimizer([torch.nn.Parameter(torch.zeros(1, 1))])
    except Exception as error:
        raise UserError(f"the optimizer cannot be made ({error}): change its options") from error
