"""Which parameters train, how fast, and which of them decay."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from datamodules import UserError

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def freeze(model: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """Stops the training of what the prefixes name.

    Args:
        model: is changed in place.
        prefixes: dotted names of modules or parameters, such as backbone.stem.

    Returns:
        The modules with frozen parameters only, which belong in evaluation mode.

    Raises:
        UserError: a prefix names nothing in the model.
    """
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    for prefix in prefixes:
        found = [name for name in parameters if name == prefix or name.startswith(f"{prefix}.")]
        if not found:
            near = difflib.get_close_matches(prefix, [*modules, *parameters], n=3, cutoff=0.5)
            raise UserError(
                f"freeze names {prefix!r}, of which the model has no parameters: give names such as "
                f"{', '.join(near or ['backbone', 'backbone.stages.0'])}"
            )
        for name in found:
            parameters[name].requires_grad_(False)
    return [modules[prefix] for prefix in prefixes if prefix in modules]


def parameter_groups(model: nn.Module, lr_decay: float, decay: str) -> list[dict]:
    """The parameters that train, as groups of an optimizer.

    A layer is one of the backbone's `blocks`; what comes before the first is layer 0. Of L layers, layer l learns at
    lr_decay^(L - l) times the rate of the heads (Clark et al. 2020, ELECTRA).

    Args:
        model: has a `backbone`.
        lr_decay: factor of the learning rate from a layer to the one before.
        decay: `all`, or `weights`: biases and the parameters of norms get no weight decay.

    Returns:
        Groups with `params`, `lr_scale` and, where it is none, `weight_decay`.
    """
    depths = layer_numbers(model.get_submodule("backbone"))
    layers = 1 + max(depths.values(), default=0)
    exempt = set(undecayed(model)) if decay == "weights" else set()
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = depths.get(name.removeprefix("backbone."), layers) if name.startswith("backbone.") else layers
            groups[lr_decay ** (layers - layer), name in exempt].append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, **({"weight_decay": 0.0} if none else {})}
        for (scale, none), parameters in groups.items()
    ]


def layer_numbers(backbone: nn.Module) -> dict[str, int]:
    """The layer of each parameter of a backbone by name; what follows a block belongs to it."""
    learned = [block for block in getattr(backbone, "blocks", ()) if any(True for _ in block.parameters())]
    blocks = {id(parameter): n for n, block in enumerate(learned, start=1) for parameter in block.parameters()}
    numbers, last = {}, 0
    for name, parameter in backbone.named_parameters():
        last = blocks.get(id(parameter), last)
        numbers[name] = last
    return numbers


def undecayed(model: nn.Module) -> Iterator[str]:
    """Names of biases and of the parameters of norms."""
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(prefix, recurse=False):
            if isinstance(module, NORMS) or name.rpartition(".")[2] == "bias":
                yield name
