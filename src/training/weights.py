"""Weights that a backbone begins with: of a run, of a file, of a release, or published by timm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from datamodules import UserError

from ..config.error_messages import shorten, squeeze
from ..runs.checkpoints import LAST, load_checkpoint
from ..runs.files import sha256_of

RELEASES = "BYTEBENCH_WEIGHTS"  # the environment variable with the folder of releases
PREFIX = "backbone."


@dataclass(frozen=True)
class LoadedWeights:
    """What became of each tensor, by name.

    Attributes:
        source: as the option names it.
        sha256: of the file; None for timm's.
        loaded: tensors that the backbone now has.
        missing: tensors of the backbone that the source lacks; they stay as they were.
        refused: tensors of other shapes, with both; the backbone's stay as they were.
        unused: tensors of the source that the backbone lacks.
    """

    source: str
    sha256: str | None
    loaded: list[str]
    missing: list[str]
    refused: dict[str, str]
    unused: list[str]

    @property
    def whole(self) -> bool:
        return not (self.missing or self.refused or self.unused)

    def to_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        """One line, with the first names of what was left out."""
        text = f"weights of {self.source}: {len(self.loaded)} tensors loaded"
        for title in ("missing", "refused", "unused"):
            names: Any = getattr(self, title)
            if names:
                told = [f"{n} {names[n]}" for n in names] if isinstance(names, dict) else names
                text += f"; {len(names)} {title} ({', '.join(told[:3])}{', ...' if len(names) > 3 else ''})"
        return text


def load_weights(backbone: nn.Module, source: str, whole: bool = False) -> LoadedWeights:
    """Gives a backbone the weights of a source, those whose names and shapes fit.

    Args:
        backbone: is changed in place.
        source: a run folder (its last checkpoint), a checkpoint or .safetensors file, `release:NAME`, or `timm:NAME`.
        whole: refuses a source that does not fit to the last tensor.

    Raises:
        UserError: there are no weights, or none that fit.
    """
    found, digest = read_weights(backbone, source)
    wanted = backbone.state_dict()
    fits = {name: tensor for name, tensor in found.items() if name in wanted and wanted[name].shape == tensor.shape}
    report = LoadedWeights(
        source,
        digest,
        loaded=list(fits),
        missing=[name for name in wanted if name not in found],
        refused={
            name: f"{tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
            for name, tensor in found.items()
            if name in wanted and name not in fits
        },
        unused=[name for name in found if name not in wanted],
    )
    if not any(name in fits for name, _ in backbone.named_parameters()) or (whole and not report.whole):
        raise UserError(
            f"{source} is of another architecture than model.backbone ({type(backbone).__name__}; {report}): give "
            "--model.backbone the options of the run that it is from, in its config.yaml"
        )
    backbone.load_state_dict(fits, strict=False)
    return report


def read_weights(backbone: nn.Module, source: str) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a source under the backbone's names, and the digest of its file."""
    kind, _, name = source.partition(":")
    if kind == "timm":
        return timm_weights(backbone, name), None
    path = release(name) if kind == "release" else Path(source)
    path = path / "checkpoints" / LAST if path.is_dir() else path
    state = read_safetensors(path) if path.suffix == ".safetensors" else load_checkpoint(path)["state_dict"]
    tensors = {
        str(name).removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if str(name).startswith(PREFIX) and isinstance(tensor, Tensor)
    }
    return tensors, sha256_of(path)


def release(name: str) -> Path:
    """The file of a release. Raises UserError where there is none."""
    folder = Path(os.environ.get(RELEASES, "weights"))
    path = folder / f"{name}.safetensors"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.safetensors"))) or "none"
        raise UserError(
            f"release:{name} is not in {folder} (there: {known}): set {RELEASES} to the folder with {name}.safetensors"
        )
    return path


def read_safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing: name another file of weights")
    try:
        return load_file(path)
    except Exception as error:  # of as many kinds as there are places to damage
        reason = shorten(squeeze(f"{type(error).__name__}: {error}"))
        raise UserError(f"{path} cannot be read ({reason}): name another file of weights") from error


def timm_weights(backbone: nn.Module, name: str) -> dict[str, Tensor]:
    """Published weights, with the first layer adapted to the backbone's channels as timm does it."""
    import timm  # takes a second

    from ..backbones.baselines import TimmImageNetwork

    if not isinstance(backbone, TimmImageNetwork):
        raise UserError(
            f"timm:{name} is for a backbone that wraps timm, such as ResNet, EfficientNet, ViT or TimmLambdaResNet, and "
            f"{type(backbone).__name__} is none: give a run folder or a checkpoint"
        )
    # by timm's own names alone: others name repositories of strangers, or folders
    if name.partition(":")[0] in ("hf-hub", "local-dir") or not timm.is_model(name):
        raise UserError(f"timm has no model {name!r}: choose one of `timm.list_models(pretrained=True)`")
    try:
        network = timm.create_model(name, pretrained=True, in_chans=backbone.channels, num_classes=0)
    except Exception as error:  # of the network, of the hub and of timm, each with its own
        reason = shorten(squeeze(f"{type(error).__name__}: {error}"))
        raise UserError(
            f"timm:{name} cannot be had ({reason}): check the name and the network, or give a file"
        ) from error
    return {f"network.{name}": tensor for name, tensor in backbone.adapted(network).state_dict().items()}
