"""The loaders that people use, and ours: torchvision's folders, webdataset, and Hugging Face's datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import DatasetFolder

from datamodules import DeclaredData

from .decoders import as_picture, choose
from .files import Files

BATCH = 32


def ours(files: Files, root: Path, tars: bool, workers: int) -> Iterator[dict]:
    """Batches of our loader, from a datamodule that is made now: what `src.fit` gives a training loop."""
    modality = {**files.declared, **({"column": files.suffix} if tars else {})}
    data = DeclaredData(
        str(root / ("tars" if tars else "folder")),
        {"x": modality},
        target="json.label" if tars else "class",
        batch_size=BATCH,
        num_workers=workers,
    )
    return iter(data.loader("test"))


def torchvision_batches(files: Files, root: Path, workers: int) -> Iterator:
    """`DatasetFolder`, of which `ImageFolder` is the case of pictures."""
    data = DatasetFolder(str(root / "folder" / "test"), partial(load, files.decode), extensions=(files.suffix,))
    return iter(DataLoader(data, BATCH, num_workers=workers))


def load(decode: Callable[[bytes], Tensor], path: str) -> Tensor:
    return decode(Path(path).read_bytes())


def webdataset_batches(files: Files, root: Path, workers: int) -> Iterator:
    import webdataset

    npy = files.suffix == "npy"  # webdataset decodes it itself
    tars = sorted(map(str, (root / "tars").glob("test-*.tar")))
    decode: Callable[[Any], Tensor] = (lambda array: choose(torch.from_numpy(array))) if npy else files.decode
    data: Any = webdataset.WebDataset(tars, shardshuffle=False).decode(only=["json", *(["npy"] if npy else [])])
    data = data.map(lambda sample: (decode(sample[files.suffix]), sample["json"]["label"]))
    return iter(DataLoader(data.batched(BATCH), batch_size=None, num_workers=workers))


def datasets_batches(files: Files, root: Path, workers: int) -> Iterator:
    """Hugging Face's datasets; its table is made when it is first asked for, and then read from its cache."""
    import datasets  # type: ignore[import-not-found]

    datasets.disable_progress_bars()
    cached, where = str(root / "cache"), root / "folder" / "test"
    if files.suffix == "jpg":
        data = datasets.load_dataset("imagefolder", data_dir=str(where), split="train", cache_dir=cached)
        data = data.with_transform(lambda rows: {"x": list(map(as_picture, rows["image"])), "label": rows["label"]})
    elif files.suffix == "npy":
        features = datasets.Features({"x": datasets.Array2D((2048, 3), "float32"), "label": datasets.Value("int64")})
        data = datasets.Dataset.from_generator(clouds, features, cached, gen_kwargs={"where": str(where)})
        data = data.with_transform(
            lambda rows: {"x": [choose(torch.tensor(x)) for x in rows["x"]], "label": rows["label"]}
        )
    else:  # its own decoder of sound and video, torchcodec, asks for FFmpeg's libraries: paths, and a decoder of one's own
        paths = sorted(map(str, where.rglob(f"*.{files.suffix}")))
        data = datasets.Dataset.from_dict({"x": paths, "label": [int(Path(path).parent.name == "b") for path in paths]})
        data = data.with_transform(
            lambda rows: {"x": [load(files.decode, path) for path in rows["x"]], "label": rows["label"]}
        )
    return iter(DataLoader(data, BATCH, num_workers=workers))


def clouds(where: str) -> Iterator[dict]:
    for path in sorted(Path(where).rglob("*.npy")):
        yield {"x": np.load(path), "label": int(path.parent.name == "b")}


PEERS: dict[str, Callable[[Any, Path, int], Iterator]] = {
    "torchvision": torchvision_batches,
    "webdataset": webdataset_batches,
    "datasets": datasets_batches,
}
