"""The lambda layer and LambdaResNets against convolution, self-attention, other implementations and EfficientNets.

Parts: `layers`, the paper's table of layers at the stage shapes of ResNet-50; `peers`, the layers of timm and
lambda-networks; `accelerated`, a network of timm with its layers and with ours; `networks`, ResNet-50 with lambda layers in
some or all stages; `efficientnet`, LambdaResNets against EfficientNets of similar published accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import matplotlib
import pandas as pd
import timm
import torch
from timm.layers.lambda_layer import LambdaLayer as TimmLambdaLayer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules import DataSpec, ModalitySpec

from ..backbones import EfficientNet, LambdaLayer, LambdaResNet, ResNet, TimmLambdaResNet
from ..backbones.lambda_networks.position_lambda import executed_flops
from .measure import RESULTS, alternate, forward_step, peak_bytes, save, training_step
from .self_attention import AxialAttention, GlobalAttention, LocalAttention

matplotlib.use("agg")
import matplotlib.pyplot as plt

BATCH = 8
STAGES = [(64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)]  # channels, side, blocks of each stage of ResNet-50
MAX_SCORES = 2**28  # values of an attention map; larger layers are skipped, like those marked OOM in the paper
PEER_SHAPES = {"16x16 global": (16, None), "32x32 global": (32, None), "32x32 r=23": (32, 23), "56x56 r=23": (56, 23)}
# LambdaResNet (depth, side), its published top-1 % on ImageNet; EfficientNet name, side, published top-1 %
SIMILAR_ACCURACY = [
    ((152, 256), 83.8, "efficientnet_b5", 456, 83.7),
    ((270, 256), 84.3, "efficientnet_b6", 528, 84.2),
    ((350, 320), 84.7, "efficientnet_b7", 600, 84.7),
]
C4_LAMBDAS = {50: 1, 101: 3, 152: 6, 200: 6, 270: 6, 350: 6, 420: 8}
HYBRIDS = ["CCCC", "CCCL", "CCLL", "CLLL", "LLLL", "LLLC", "LLCC", "LCCC"]


def lambda_layer(channels: int, side: int, **options) -> nn.Module:
    grid = None if "scope" in options else (side, side)
    return LambdaLayer(channels, channels, grid=grid, **options)


LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "conv 3x3": lambda c, side: nn.Conv2d(c, c, 3, padding=1, bias=False),
    "attention, global": lambda c, side: GlobalAttention(c, c, (side, side)),
    "attention, axial": lambda c, side: AxialAttention(c, c, (side, side)),
    "attention, local 7x7": lambda c, side: LocalAttention(c, c, 7),
    "lambda": lambda_layer,
    "lambda shared": lambda_layer,  # equal in time; a stage stores one copy of the embeddings
    "lambda k=8": partial(lambda_layer, key_depth=8),
    "lambda conv 7x7": partial(lambda_layer, scope=(7, 7)),
    "lambda conv 23x23": partial(lambda_layer, scope=(23, 23)),
}


def timm_layer(channels: int, side: int, scope: int | None) -> nn.Module:
    options: dict = {"r": scope}  # None means global, which the type hints do not allow
    return TimmLambdaLayer(channels, channels, feat_size=(side, side), num_heads=4, dim_head=16, **options)


def lambda_networks_layer(channels: int, side: int, scope: int | None) -> nn.Module:
    from lambda_networks import LambdaLayer as Theirs

    extent = {"n": side} if scope is None else {"r": scope}
    return Theirs(dim=channels, dim_out=channels, dim_k=16, heads=4, dim_u=1, **extent)


def our_layer(channels: int, side: int, scope: int | None) -> nn.Module:
    return lambda_layer(channels, side) if scope is None else lambda_layer(channels, side, scope=(scope, scope))


def implementations() -> dict[str, Callable[[int, int, int | None], nn.Module]]:
    """Our layer and those of the other installed packages."""
    layers: dict[str, Callable[[int, int, int | None], nn.Module]] = {"ours": our_layer, "timm": timm_layer}
    if find_spec("lambda_networks"):
        layers["lambda_networks"] = lambda_networks_layer
    return layers


def make_layer_step(
    build: Callable[..., nn.Module] | str, batch: int, channels: int, side: int, *args
) -> Callable[..., None]:
    """A training step of a layer, or of the one of `LAYERS` with this name."""
    torch.manual_seed(0)
    layer = (LAYERS[build] if isinstance(build, str) else build)(channels, side, *args)
    return partial(training_step, partial(layer, torch.randn(batch, channels, side, side, requires_grad=True)))


def make_memory_step(*args: Any) -> Callable[[], None]:
    """`make_layer_step` for `peak_bytes`, which then excludes parameters, gradients and input."""
    return partial(make_layer_step(*args), hold_gradients=True)


def map_gib(layer: str, batch: int = 128, heads: int = 8) -> float | None:
    """The memory column of the paper (table 4), GiB: float32 attention maps, or embeddings, of all layers of ResNet-50."""
    squares = sum(blocks * side**4 for _, side, blocks in STAGES)
    numbers = {
        "attention, global": batch * heads * squares,
        "attention, axial": batch * heads * sum(blocks * side**2 * 2 * side for _, side, blocks in STAGES),
        "lambda": 16 * squares,
        "lambda k=8": 8 * squares,
        "lambda shared": 16 * sum(side**4 for _, side, _ in STAGES),
    }
    return numbers[layer] * 4 / 2**30 if layer in numbers else None


def multiply_adds(model: nn.Module, inputs: Any, examples: int) -> dict[str, float]:
    """Millions of multiply-adds per example of a forward pass: of the definition of the layers, and executed on a CPU."""
    counted = {}
    for name, formulas in (
        ("mega_multiply_adds", {}),
        ("executed", {torch.ops.bytebench.position_lambdas: executed_flops}),
    ):
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter, torch.no_grad():
            model(inputs)
        counted[name] = counter.get_total_flops() / 2e6 / examples
    return {"mega_multiply_adds": counted["mega_multiply_adds"], "executed_mega_multiply_adds": counted["executed"]}


def run_layers(rounds: int) -> pd.DataFrame:
    """The paper's table of layers, one row per layer and stage."""
    rows = []
    for channels, side, _ in STAGES:
        x = torch.randn(BATCH, channels, side, side)
        names = [n for n in LAYERS if n != "attention, global" or BATCH * 8 * side**4 <= MAX_SCORES]
        steps = {name: make_layer_step(name, BATCH, channels, side) for name in names}
        layers = {name: step.args[0].func for name, step in steps.items()}  # type: ignore[attr-defined]
        forward = {name: partial(forward_step, partial(layer, x)) for name, layer in layers.items()}
        title = f"{channels} channels on {side}x{side}"
        seconds = [alternate(cases, rounds, title) for cases in (forward, steps)]
        for name, layer in layers.items():
            rows.append(
                {
                    "layer": name,
                    "channels": channels,
                    "grid": f"{side}x{side}",
                    "batch": BATCH,
                    "dtype": "float32",
                    "parameters": sum(p.numel() for p in layer.parameters()),
                    **multiply_adds(layer, x, BATCH),
                    "paper_gib_batch_128": map_gib(name),
                    "peak_mib": peak_bytes(make_memory_step, name, BATCH, channels, side) / 2**20,
                    "forward_s": seconds[0][name],
                    "forward_backward_s": seconds[1][name],
                    "train_images_per_s": BATCH / seconds[1][name],
                    "ratio_to_conv": seconds[1][name] / seconds[1]["conv 3x3"],
                }
            )
        save(rows, "lambda_layers", finished=False)
    return save(rows, "lambda_layers")


def run_peers(rounds: int) -> pd.DataFrame:
    """Our layer against other implementations, at 256 channels and at the stage shapes of ResNet-50."""
    shapes = {name: (256, side, scope) for name, (side, scope) in PEER_SHAPES.items()}
    for channels, side, _ in STAGES:
        shapes |= {f"{channels} on {side}x{side} {s or 'global'}": (channels, side, s) for s in (None, 7, 23)}
    rows = []
    for name, (channels, side, scope) in shapes.items():
        builders = implementations()
        steps = {kind: make_layer_step(build, BATCH, channels, side, scope) for kind, build in builders.items()}
        seconds = alternate(steps, rounds, name)
        del steps
        memory = {
            kind: peak_bytes(make_memory_step, build, BATCH, channels, side, scope) for kind, build in builders.items()
        }
        for kind in builders:
            rows.append(
                {
                    "shape": name,
                    "implementation": kind,
                    "batch": BATCH,
                    "channels": channels,
                    "dtype": "float32",
                    "forward_backward_s": seconds[kind],
                    "peak_mib": memory[kind] / 2**20,
                    "time_ratio": seconds[kind] / min(s for k, s in seconds.items() if k != "ours"),
                    "memory_ratio": memory[kind] / min(m for k, m in memory.items() if k != "ours"),
                }
            )
        save(rows, "lambda_peers", finished=False)
    return save(rows, "lambda_peers")


def image_spec(side: int) -> DataSpec:
    return DataSpec({"image": ModalitySpec(3, 2, side * side, (side, side), 2)}, "single_label", ("any",))


def time_networks(cases: dict[str, tuple[Callable[[], nn.Module], int]], batch: int, rounds: int) -> list[dict]:
    """Times forward passes and training steps. `cases` maps names to a builder and the side of the images."""
    models = {}
    for name, (make, side) in cases.items():
        torch.manual_seed(0)
        models[name] = (make(), image_spec(side).example_inputs(batch))
    forward = {n: partial(forward_step, partial(model, inputs)) for n, (model, inputs) in models.items()}
    train = {n: partial(training_step, partial(model, inputs)) for n, (model, inputs) in models.items()}
    seconds = [alternate(forward, rounds, "forward"), alternate(train, rounds, "training steps")]
    return [
        {
            "network": name,
            "side": cases[name][1],
            "batch": batch,
            "dtype": "float32",
            "parameters": sum(p.numel() for p in model.parameters()),
            **multiply_adds(model, inputs, batch),
            "forward_s": seconds[0][name],
            "forward_backward_s": seconds[1][name],
            "train_images_per_s": batch / seconds[1][name],
        }
        for name, (model, inputs) in models.items()
    ]


def run_accelerated(rounds: int) -> pd.DataFrame:
    """timm's LambdaResNet-26t at its own size of pictures: as it is, accelerated, and without its lambda layers, below which
    no other layers get it."""
    spec = image_spec(256)

    def theirs() -> nn.Module:
        backbone = TimmLambdaResNet(spec)
        backbone.network = timm.create_model("lambda_resnet26t", num_classes=0, global_pool="")
        return backbone

    def without() -> nn.Module:
        backbone = theirs()
        for module in list(backbone.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, TimmLambdaLayer):
                    setattr(module, name, child.pool)
        return backbone

    networks = {"timm": theirs, "accelerated": lambda: TimmLambdaResNet(spec), "without lambda layers": without}
    rows = time_networks({name: (make, 256) for name, make in networks.items()}, BATCH, rounds)
    for row in rows:
        row["ratio"] = row["forward_backward_s"] / rows[0]["forward_backward_s"]
    return save(rows, "lambda_accelerated")


def run_networks(rounds: int) -> pd.DataFrame:
    """ResNet-50 with lambda layers in some or all stages, against timm's ResNet-50."""
    spec = image_spec(224)
    cases: dict[str, tuple[Callable[[], nn.Module], int]] = {"timm ResNet-50": (lambda: ResNet(spec), 224)}
    cases |= {name: (partial(LambdaResNet, spec, stages=name), 224) for name in HYBRIDS}
    rows = time_networks(cases, BATCH, rounds)
    for row in rows:
        row["ratio"] = row["forward_backward_s"] / rows[0]["forward_backward_s"]
    return save(rows, "lambda_networks")


def run_efficientnet(rounds: int) -> pd.DataFrame:
    """LambdaResNets against EfficientNets of similar published accuracy, one image per step."""
    rows = []
    for (depth, side), published, name, other_side, other_published in SIMILAR_ACCURACY:
        ours = partial(
            LambdaResNet,
            image_spec(side),
            depth=depth,
            stages="CCLC",
            c4_lambdas=C4_LAMBDAS[depth],
            squeeze_excite=True,
        )
        theirs = partial(EfficientNet, image_spec(other_side), name=name)
        pair = time_networks({f"LambdaResNet-{depth}": (ours, side), name: (theirs, other_side)}, 1, rounds)
        for row, top1 in zip(pair, (published, other_published), strict=True):
            row["published_top1"] = top1
            row |= {f"{k}_speedup": pair[1][f"{k}_s"] / row[f"{k}_s"] for k in ("forward", "forward_backward")}
        rows += pair
        save(rows, "lambda_efficientnet", finished=False)
    return save(rows, "lambda_efficientnet")


PARTS = {
    "layers": run_layers,
    "peers": run_peers,
    "accelerated": run_accelerated,
    "networks": run_networks,
    "efficientnet": run_efficientnet,
}


def run(parts: list[str] | None = None, rounds: int = 3) -> dict[str, pd.DataFrame]:
    """Runs the given parts, or all of them; writes a CSV for each and a plot of the table of layers."""
    tables = {part: PARTS[part](rounds) for part in parts or PARTS}
    if "layers" in tables:
        plot(tables["layers"])
    return tables


def plot(frame: pd.DataFrame) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for axis, column, label in zip(
        axes, ("forward_backward_s", "peak_mib"), ("seconds per training step", "peak MiB"), strict=True
    ):
        bars = frame.pivot(index="grid", columns="layer", values=column)
        bars.loc[frame["grid"].unique(), frame["layer"].unique()].plot.bar(
            ax=axis, logy=True, width=0.8, legend=axis is axes[1], rot=0
        )
        axis.set(xlabel="", ylabel=label)
        axis.grid(axis="y", alpha=0.3)
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"Layers at ResNet-50's stage shapes, forward + backward, batch {BATCH}, float32")
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / "lambda_layers.png", dpi=120)
    plt.close(figure)
