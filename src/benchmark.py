"""Measure speed side by side: `python -m src.benchmark backbones`. Writes results/NAME_HARDWARE.csv."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from datamodules import UserError
from datamodules.core.checks import check_counts

from .config.command import Parser, run_command
from .config.package import command_name

BENCHMARKS = {
    "backbones": "training step of every backbone on the same batch",
    "lambda": "lambda layers and LambdaResNets against convolution, attention, other implementations and EfficientNets",
    "perceiver": "our Perceiver against the other installed implementations",
    "gpu": "checks and benchmarks on a GPU, in at most nine minutes",
    "metrics": "mean average precision at AudioSet's size, beside scikit-learn's and torchmetrics'",
    "input": "data loading against the library calls that bound it, and beside torchvision, webdataset and datasets",
    "overhead": "training step of src.fit against a plain PyTorch loop; two processes against one",
    "startup": "what commands take to start, beside `import torch`",
    "statistics": "intervals and verdicts of comparisons on simulated runs whose truth is known",
    "scaling": "time and memory against the number of elements, for Perceiver and Transformer",
}
ON_DEVICE = ("backbones", "lambda", "perceiver", "scaling")  # the others move their models themselves, or have none
PARTS = {
    "lambda": ("layers", "peers", "accelerated", "networks", "efficientnet"),
    "input": ("limits", "peers"),
}
SHAPES = ("small", "audioset", "imagenet", "imagenet_2", "tiny")
MODULES = {"lambda": "lambda_layers"}  # where the module has another name


def main(args: list[str] | None = None) -> None:
    parser = Parser(command_name("benchmark"), description=__doc__, allow_abbrev=False)
    benchmarks = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, summary in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == "gpu":
            benchmark.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
            benchmark.add_argument("--tiny", action="store_true", help="small shapes and few steps, to try the command")
            continue
        benchmark.add_argument("--rounds", type=int, help="number of timed rounds")
        if name in ON_DEVICE:
            benchmark.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
            benchmark.add_argument(
                "--precision", choices=("32", "bf16", "16"), default="32", help="of products (default: 32)"
            )
        if name in PARTS:
            benchmark.add_argument("--parts", nargs="+", choices=PARTS[name], help="which (default: all)")
        if name == "startup":
            benchmark.add_argument("--before", type=Path, help="another checkout, measured in turns with this one")
        if name == "perceiver":
            benchmark.add_argument("--shapes", nargs="+", choices=SHAPES, help="which (default: all)")
    options = vars(parser.parse_args(args))
    name = options.pop("name")
    check_counts(**{"--rounds": options.get("rounds")})
    if (before := options.get("before")) is not None and not (before / "src" / "fit.py").is_file():
        raise UserError(f"--before {before} holds no src/fit.py: name the root of a checkout")
    if name in ON_DEVICE:
        import_module(".benchmarks.measure", __package__).use(options.pop("device"), options.pop("precision"))
    module = import_module(f".benchmarks.{MODULES.get(name, name)}", __package__)
    module.run(**{key: value for key, value in options.items() if value is not None})


if __name__ == "__main__":
    run_command(main)
