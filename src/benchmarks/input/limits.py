"""Data loading against the library calls that bound it, on real files in a temporary folder.

All but the last row run on one core, like a DataLoader worker.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg

from datamodules.clips.media import decode_clip, encode_clip
from datamodules.clips.windows import AudioWindow, VideoWindow
from datamodules.core.datamodule import CompactBatches
from datamodules.core.order import SampleRef
from datamodules.images import prepare_imagenet
from datamodules.images.imagenet import ImageNet
from datamodules.images.transforms import encode_jpeg
from datamodules.storage.shards import ShardReader, index_path, write_shard

from ...backbones import Perceiver
from ..measure import alternate, save

PHOTOS = ("china", "flower")  # of scikit-learn
SAMPLES, SAMPLE_BYTES = 20_000, 1000
IMAGES, STORED, SIDE = 128, 256, 224  # evaluation crops 224 from a side of 256 without resizing
VIDEO, AUDIO = VideoWindow(32, 25, SIDE, SIDE), AudioWindow(61_440, 48_000)  # as on AudioSet (Perceiver, section 4.2)
CLIPS, CLIP_SECONDS = 4, 3


def run(rounds: int = 5) -> pd.DataFrame:
    """Medians over `rounds`; the ratio is ours to the limit."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.set_num_threads(1)
        rows = [random_reads(folder, rounds)]
        data = write_images(folder)
        rows += [jpeg_images(data, rounds), batch_bytes(data), clips(rounds)]
        torch.set_num_threads(threads)
        rows.append(flatten(data, rounds))
    return save(rows, "input")


def row(what: str, unit: str, ours: float, limit: float, limit_is: str, aim: str, met: bool) -> dict:
    return {
        "what": what, "unit": unit, "ours": ours, "limit": limit, "limit_is": limit_is, "ratio": ours / limit,
        "aim": aim, "met": met,
    }  # fmt: skip


def random_reads(folder: Path, rounds: int) -> dict:
    """Reading small samples of a shard by its index, against os.pread of the same byte ranges."""
    rng = np.random.default_rng(0)
    shard = write_shard(
        folder / "small.tar", ({"__key__": f"s{n:06d}", "bin": rng.bytes(SAMPLE_BYTES)} for n in range(SAMPLES))
    )
    reader = ShardReader(folder, [shard], "this benchmark")
    order = rng.permutation(SAMPLES).tolist()
    index = dict(json.loads(index_path(folder / "small.tar").read_text()))
    ranges = [index[reader.keys[number]]["bin"] for number in order]
    file = os.open(folder / "small.tar", os.O_RDONLY)

    def plain() -> None:
        for offset, size in ranges:
            os.pread(file, size, offset)

    def ours() -> None:
        for number in order:
            reader.read(number)

    seconds = alternate({"ours": ours, "plain": plain}, rounds, "random reads")
    os.close(file)
    speed = {name: SAMPLES / s for name, s in seconds.items()}
    return row(
        f"random reads of {SAMPLE_BYTES} bytes by index", "samples/s", speed["ours"], speed["plain"], "os.pread",
        "at least 20,000/s", speed["ours"] >= 20_000,
    )  # fmt: skip


def crop_photos(count: int, side: int) -> list[Tensor]:
    """Random crops (side, side, 3), uint8, of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    crops = []
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(length - side)) for length in photo.shape[:2])
        crops.append(torch.from_numpy(photo[top : top + side, left : left + side].copy()))
    return crops


def write_images(folder: Path) -> ImageNet:
    """Prepares shards from an ImageNet folder with two classes, one for each photograph."""
    for part, count in (("train", 20), ("val", IMAGES)):
        for photo in PHOTOS:
            (folder / "images" / part / photo).mkdir(parents=True)
        for number, crop in enumerate(crop_photos(count, STORED)):
            (folder / "images" / part / PHOTOS[number % 2] / f"{number}.jpg").write_bytes(encode_jpeg(crop))
    out = folder / "shards"
    prepare_imagenet.prepare(Namespace(source=folder / "images", out=out, side=None, workers=1))
    return ImageNet(str(out), classes=2, batch_size=IMAGES, num_workers=0)


def jpeg_decoders() -> dict[str, Callable[[bytes], object]]:
    """The JPEG decoders that are installed."""
    decoders: dict[str, Callable[[bytes], object]] = {
        "torchvision": lambda content: decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)),
        "Pillow": lambda content: np.asarray(Image.open(io.BytesIO(content))),
    }
    if find_spec("simplejpeg"):
        import simplejpeg  # type: ignore[import-not-found]

        decoders["simplejpeg"] = simplejpeg.decode_jpeg
    return decoders


def jpeg_images(data: ImageNet, rounds: int) -> dict:
    """The evaluation path from shards to a uint8 batch, against decoding alone with the fastest decoder."""
    split = data.split("test")
    batches = CompactBatches(split, seed=0, on_bad_sample="raise")
    refs = [SampleRef(number, epoch=0, real=True) for number in range(IMAGES)]
    contents = [path.read_bytes() for path in Path(data.data_dir).parent.glob("images/val/*/*.jpg")]
    cases = {name: partial(apply_to_all, decode, contents) for name, decode in jpeg_decoders().items()}
    seconds = alternate({"ours": partial(batches.__getitem__, refs), **cases}, rounds, "JPEG")
    fastest = min(cases, key=lambda name: seconds[name])
    speed = {name: IMAGES / s for name, s in seconds.items()}
    return row(
        f"JPEG {STORED}x{STORED} to a batch of {SIDE}x{SIDE}", "images/s", speed["ours"], speed[fastest],
        f"{fastest} decoding", "at least 0.8", speed["ours"] >= 0.8 * speed[fastest],
    )  # fmt: skip


def apply_to_all(function: Callable[[bytes], object], contents: list[bytes]) -> None:
    for content in contents:
        function(content)


def batch_bytes(data: ImageNet) -> dict:
    """Bytes that a worker sends to the training process."""
    compact = next(iter(data.loader("test")))
    ours, pixels = len(pickle.dumps(compact)), IMAGES * SIDE * SIDE * 3
    return row(
        f"a pickled batch of {SIDE}x{SIDE}", "bytes/image", ours / IMAGES, pixels / IMAGES, "pixels",
        "at most 1.05", ours <= 1.05 * pixels,
    )  # fmt: skip


def clips(rounds: int) -> dict:
    """Decoding 32 frames and their audio from an mp4 as stored in shards, against plain PyAV."""
    rng = np.random.default_rng(0)
    contents = []
    for photo in crop_photos(CLIPS, 400):
        frames = CLIP_SECONDS * VIDEO.fps
        video = np.stack([photo[n : n + SIDE, 2 * n : 2 * n + SIDE] for n in range(int(frames))])
        sound = (3000 * rng.standard_normal(CLIP_SECONDS * AUDIO.rate)).astype(np.int16)
        contents.append(encode_clip(video, int(VIDEO.fps), sound, AUDIO.rate, key_every=12, preset="medium"))
    cases = {"ours": lambda content: decode_clip(content, 0.0, VIDEO, AUDIO), "plain": decode_with_pyav}
    seconds = alternate({name: partial(apply_to_all, case, contents) for name, case in cases.items()}, rounds, "clips")
    return row(
        f"mp4 {SIDE}x{SIDE} to {VIDEO.frames} frames and sound", "ms/clip", 1000 * seconds["ours"] / CLIPS,
        1000 * seconds["plain"] / CLIPS, "PyAV decoding", "at most 1.25", seconds["ours"] <= 1.25 * seconds["plain"],
    )  # fmt: skip


def decode_with_pyav(content: bytes) -> None:
    """Decodes only the frames (RGB) and the audio (16 bits) that the windows cover."""
    frames, samples = 0, 0
    resample = av.AudioResampler(format="s16", layout="mono", rate=AUDIO.rate).resample
    with av.open(io.BytesIO(content), "r") as container:
        for stream in container.streams:
            stream.codec_context.thread_count = 1
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame) and frames < VIDEO.frames:
                frame.to_ndarray(format="rgb24")
                frames += 1
            elif isinstance(frame, av.AudioFrame) and samples < AUDIO.samples:
                samples += sum(part.to_ndarray().size for part in resample(frame))
            elif frames == VIDEO.frames and samples >= AUDIO.samples:
                break


def flatten(data: ImageNet, rounds: int) -> dict:
    """Normalising and adding positions, against a training step of a Perceiver with one cross-attend."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = Perceiver(data.spec, num_latents=512, latent_dim=1024, cross_attends=1, self_attends_per_block=6).to(device)
    compact = {"image": torch.stack(crop_photos(2, SIDE)), "target": torch.zeros(2), "weight": torch.ones(2)}
    compact = {**{name: tensor.to(device) for name, tensor in compact.items()}, "key": ["a", "b"]}
    inputs = data.flatten(compact).inputs
    cases = {"flatten": lambda: data.flatten(compact), "step": lambda: model(inputs).square().mean().backward()}
    seconds = alternate(cases, rounds, "flatten")
    return row(
        "flatten on the device, batch of 2", "ms", 1000 * seconds["flatten"], 1000 * seconds["step"],
        "Perceiver training step, 1 cross-attend", "at most 0.05", seconds["flatten"] <= 0.05 * seconds["step"],
    )  # fmt: skip
