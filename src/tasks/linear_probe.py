"""Linear probes: how well a linear map reads the classes from the features of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from datamodules import Batch, ByteArray, DataSpec, UserError
from datamodules.core.checks import check_range

from ..backbones.base import Backbone
from .base import Task
from .classification import Classification
from .linear_maps import STEPS, Fit, solve_maps, train_maps


class LinearProbe(Classification):
    """A frozen backbone, the mean over its features, and the best of many linear maps to the classes.

    The features of a split are computed once: of training in the one epoch that a probe takes (its last, incomplete batch
    is left out, as in all training). They are scaled to mean 0 and standard deviation 1 over training. Then for each penalty
    one map is trained on them to the minimum (logistic regression), and one solved for in closed form (ridge regression); of
    both kinds the map that is best on the validation split is kept, and it alone is tested. `top1` or `map` and `loss` are
    the trained map's, `ridge_top1` or `ridge_map` the other's. A penalty chosen at an end of the list gives a warning.

    Args:
        data_spec: comes from the datamodule; its task is single_label or multi_label.
        backbone: the network that is probed, made with the data spec.
        weights: the run folder or the checkpoint file whose backbone is probed; None probes random weights, to compare with.
        penalties: penalties to choose from. Both kinds of maps minimise a sum over the examples (of cross-entropies, or of
            squared errors) plus penalty times squared weights.
    """

    explained = "features"
    whole_weights = True

    def __init__(
        self,
        data_spec: DataSpec,
        backbone: Callable[[DataSpec], Backbone],
        weights: str | None = None,
        penalties: Sequence[float] = (1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4),
    ) -> None:
        super().__init__(data_spec, backbone, weights=weights)
        check_range(0, penalties=penalties)
        if not penalties or min(penalties) <= 0:
            raise UserError(f"penalties {list(penalties)}: give one or more, all above 0")
        self.automatic_optimization = False
        self.resumes_inside_epochs = False  # the features gathered so far are in no checkpoint
        self.penalties = tuple(sorted(set(penalties)))
        self.backbone.requires_grad_(False)
        width = self.backbone.num_features
        self.ridge = nn.Linear(width, data_spec.num_classes)
        self.ridge_metrics = type(self.test_metrics)()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.gathered: list[
            tuple[Tensor, Batch]
        ] = []  # of the split that goes through: features, batches without inputs
        self.trained: list[Fit] = []
        self.solved: list[nn.Linear] = []

    def configure_model(self) -> None:
        if self.device_mesh is not None:
            raise UserError("a linear probe trains nothing that is worth sharding: use --trainer.strategy ddp")
        super().configure_model()

    def train(self, mode: bool = True) -> LinearProbe:
        super().train(mode)
        self.backbone.eval()  # frozen: no dropout, and statistics stay as they are
        return self

    def on_fit_start(self) -> None:
        if self.trainer.max_epochs != 1 or not self.trainer.enable_validation:
            raise UserError(
                f"a linear probe goes through the data once and chooses on the validation split: set "
                f"--trainer.max_epochs 1 (it is {self.trainer.max_epochs}) and leave validation on"
            )

    @torch.no_grad()
    def features(self, inputs: dict[str, ByteArray]) -> Tensor:
        """What the maps read: (B, D), scaled."""
        return (self.backbone(inputs).mean(dim=1).float() - self.mean) / self.std

    def forward(self, inputs: dict[str, ByteArray]) -> Tensor:
        """Class scores (B, classes) of the trained map."""
        return self.head(self.features(inputs))

    def score_to_explain(self, inputs: dict[str, ByteArray]) -> Tensor:
        return Task.score_to_explain(self, inputs)  # the maps pass no gradient

    def gather(self, batch: Batch) -> None:
        self.gathered.append((self.features(batch.inputs), replace(batch, inputs={})))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.gather(batch)
        optimizer: Any = self.optimizers()
        optimizer.step()  # moves nothing: Lightning saves no checkpoint where it has counted no step
        if self.trainer.is_last_batch:
            features, target, weight = self.of_all_ranks()
            self.fit_maps(features[weight > 0], target[weight > 0])

    def of_all_ranks(self) -> tuple[Tensor, ...]:
        """Features, targets and weights gathered so far, in the order of one rank that had them all."""
        parts = zip(*((features, batch.target, batch.weight) for features, batch in self.gathered), strict=True)
        self.gathered = []
        own = [torch.cat(part) for part in parts]
        wholes: Any = self.all_gather(own)
        # ranks take turns in a step, see `datamodules.core.order`
        turns = (whole.reshape(-1, *part.shape).transpose(0, 1) for whole, part in zip(wholes, own, strict=True))
        return tuple(turn.flatten(0, 1) for turn in turns)

    def fit_maps(self, features: Tensor, target: Tensor) -> None:
        """Train and solve for all maps, on features (S, D) and targets (S,) or (S, classes)."""
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        std = variance.sqrt()
        std[std == 0] = 1
        self.mean.copy_(mean), self.std.copy_(std)
        features = (features - mean) / std
        classes = self.data_spec.num_classes
        scores = nn.functional.one_hot(target, classes) if target.dim() == 1 else target
        self.solved = solve_maps(features, scores, self.penalties)
        self.trained = train_maps(features, target, classes, self.penalties)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.gather(batch)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        self.check_complete()
        trained = [each.linear for each in self.trained]
        if not self.trained[self.choose("penalty", trained, self.head)].converged:
            rank_zero_warn(f"the map that was chosen had not converged after {STEPS} steps: leave out small penalties")
        self.choose("ridge_penalty", self.solved, self.ridge)
        for features, batch in self.gathered:
            self.measure(features, batch, "val", self.val_metrics)
        self.gathered = []
        self.report("val", self.val_metrics)

    def choose(self, kind: str, maps: list[nn.Linear], chosen: nn.Linear) -> int:
        """Give `chosen` the map that is best on validation, of one for each penalty; return its number."""
        found = [self.validate(each) for each in maps]
        best = found.index(max(found))
        chosen.load_state_dict(maps[best].state_dict())
        self.log(f"val/{kind}", self.penalties[best])
        if best in (0, len(found) - 1) and found.count(found[best]) == 1 < len(found):
            rank_zero_warn(
                f"the best {kind} on validation, {self.penalties[best]:g}, is at the end of the penalties "
                f"{self.penalties[0]:g} to {self.penalties[-1]:g}: add {'smaller' if best == 0 else 'larger'} ones"
            )
        return best

    def on_train_end(self) -> None:
        self.check_complete()

    def check_complete(self) -> None:
        if not self.trained:
            raise UserError(
                "validation or the end came before the probe had the features of all training batches: leave "
                "--trainer.max_steps, --trainer.max_time and --trainer.val_check_interval at their defaults"
            )

    def validate(self, linear: nn.Linear) -> float:
        """The monitored metric of a map on the validation split."""
        metrics = type(self.val_metrics)().to(self.device)
        for features, batch in self.gathered:
            metrics.update(linear(features), batch.target, batch.weight, batch.keys)
        return metrics.compute()[self.monitor].item()

    def evaluate(self, batch: Batch, split: str, metrics: Any) -> None:
        self.measure(self.features(batch.inputs), batch, split, metrics)

    def measure(self, features: Tensor, batch: Batch, split: str, metrics: Any) -> None:
        self.record(self.head(features), batch, split, metrics)
        self.ridge_metrics.update(self.ridge(features), batch.target, batch.weight, batch.keys)

    def report(self, split: str, metrics: Any) -> None:
        super().report(split, metrics)
        self.log(f"{split}/ridge_{self.monitor}", self.ridge_metrics.compute()[self.monitor].float().to(self.device))
        self.ridge_metrics.reset()

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.head.parameters(), lr=0.0)  # Lightning's; see training_step
