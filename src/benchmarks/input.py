"""What loading costs, each beside the bare library calls that bound it, on real files made in a temporary folder.

All but the last row run on one core, as in a loader's worker.
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

from ..backbones import Perceiver
from .measure import alternate, save

SAMPLES, SAMPLE_BYTES = 20_000, 1000
PICTURES, STORED, SIDE = 128, 256, 224  # the evaluation crop of a side of 256 is 224: nothing is scaled
VIDEO, AUDIO = VideoWindow(32, 25, SIDE, SIDE), AudioWindow(61_440, 48_000)  # AudioSet's (Perceiver, section 4.2)
CLIPS, CLIP_SECONDS = 4, 3


def run(rounds: int = 5) -> pd.DataFrame:
    """Medians over `rounds`; the ratio is ours to the limit."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.set_num_threads(1)
        rows = [random_reads(folder, rounds)]
        data = write_pictures(folder)
        rows += [pictures(data, rounds), shipped(data), clips(rounds)]
        torch.set_num_threads(threads)
        rows.append(flatten(data, rounds))
    return save(rows, "input")


def row(what: str, unit: str, ours: float, limit: float, limit_is: str, aim: str, met: bool) -> dict:
    return {
        "what": what, "unit": unit, "ours": ours, "limit": limit, "limit_is": limit_is, "ratio": ours / limit,
        "aim": aim, "met": met,
    }  # fmt: skip


def random_reads(folder: Path, rounds: int) -> dict:
    """Small samples of a shard through its index, against os.pread of the same places."""
    rng = np.random.default_rng(0)
    line = write_shard(
        folder / "small.tar", ({"__key__": f"s{n:06d}", "bin": rng.bytes(SAMPLE_BYTES)} for n in range(SAMPLES))
    )
    reader = ShardReader(folder, [line], "this benchmark")
    order = rng.permutation(SAMPLES).tolist()
    index = dict(json.loads(index_path(folder / "small.tar").read_text()))
    places = [index[reader.keys[number]]["bin"] for number in order]
    file = os.open(folder / "small.tar", os.O_RDONLY)

    def bare() -> None:
        for offset, size in places:
            os.pread(file, size, offset)

    def ours() -> None:
        for number in order:
            reader.read(number)

    seconds = alternate({"ours": ours, "bare": bare}, rounds, "random reads")
    os.close(file)
    speed = {name: SAMPLES / s for name, s in seconds.items()}
    return row(
        f"random reads of {SAMPLE_BYTES} bytes by index", "samples/s", speed["ours"], speed["bare"], "os.pread",
        "at least 20,000/s", speed["ours"] >= 20_000,
    )  # fmt: skip


def cut_photos(count: int, side: int) -> list[Tensor]:
    """Squares (side, side, 3) uint8 of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    whole = load_sample_images().images
    squares = []
    for number in range(count):
        photo = whole[number % len(whole)]
        top, left = (int(rng.integers(length - side)) for length in photo.shape[:2])
        squares.append(torch.from_numpy(photo[top : top + side, left : left + side].copy()))
    return squares


def write_pictures(folder: Path) -> ImageNet:
    """An ImageNet of one class, as its owner has it, prepared as shards."""
    for part, count in (("train", 20), ("val", PICTURES)):
        (folder / "pictures" / part / "photo").mkdir(parents=True)
        for number, square in enumerate(cut_photos(count, STORED)):
            (folder / "pictures" / part / "photo" / f"{number}.jpg").write_bytes(encode_jpeg(square))
    out = folder / "shards"
    prepare_imagenet.prepare(Namespace(source=folder / "pictures", out=out, side=None, workers=1))
    return ImageNet(str(out), classes=1, batch_size=PICTURES, num_workers=0)


def decoders() -> dict[str, Callable[[bytes], object]]:
    """The bare JPEG decoders that are installed."""
    found: dict[str, Callable[[bytes], object]] = {
        "torchvision": lambda content: decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)),
        "Pillow": lambda content: np.asarray(Image.open(io.BytesIO(content))),
    }
    if find_spec("simplejpeg"):
        import simplejpeg  # type: ignore[import-not-found]

        found["simplejpeg"] = simplejpeg.decode_jpeg
    return found


def pictures(data: ImageNet, rounds: int) -> dict:
    """The evaluation path from shards to a uint8 batch, against decoding alone by the fastest decoder."""
    split = data.split("test")
    batches = CompactBatches(split, seed=0, on_bad_sample="raise")
    refs = [SampleRef(number, epoch=0, real=True) for number in range(PICTURES)]
    contents = [path.read_bytes() for path in Path(data.data_dir).parent.glob("pictures/val/photo/*.jpg")]
    cases = {name: partial(each, decode, contents) for name, decode in decoders().items()}
    seconds = alternate({"ours": partial(batches.__getitem__, refs), **cases}, rounds, "JPEG")
    fastest = min(cases, key=lambda name: seconds[name])
    speed = {name: PICTURES / s for name, s in seconds.items()}
    return row(
        f"JPEG {STORED}x{STORED} to a batch of {SIDE}x{SIDE}", "pictures/s", speed["ours"], speed[fastest],
        f"{fastest} decoding", "at least 0.8", speed["ours"] >= 0.8 * speed[fastest],
    )  # fmt: skip


def each(function: Callable[[bytes], object], contents: list[bytes]) -> None:
    for content in contents:
        function(content)


def shipped(data: ImageNet) -> dict:
    """What a worker hands to the training process."""
    compact = next(iter(data.loader("test")))
    ours, pixels = len(pickle.dumps(compact)), PICTURES * SIDE * SIDE * 3
    return row(
        f"a batch of {SIDE}x{SIDE} as shipped", "bytes/picture", ours / PICTURES, pixels / PICTURES, "pixels",
        "at most 1.05", ours <= 1.05 * pixels,
    )  # fmt: skip


def clips(rounds: int) -> dict:
    """32 frames and their sound out of an mp4 as shards hold it, against PyAV alone decoding as much."""
    rng = np.random.default_rng(0)
    contents = []
    for photo in cut_photos(CLIPS, 400):
        frames = CLIP_SECONDS * VIDEO.fps
        video = np.stack([photo[n : n + SIDE, 2 * n : 2 * n + SIDE] for n in range(int(frames))])
        sound = (3000 * rng.standard_normal(CLIP_SECONDS * AUDIO.rate)).astype(np.int16)
        contents.append(encode_clip(video, int(VIDEO.fps), sound, AUDIO.rate, key_every=12, preset="medium"))
    cases = {"ours": lambda content: decode_clip(content, 0.0, VIDEO, AUDIO), "bare": decode_barely}
    seconds = alternate({name: partial(each, case, contents) for name, case in cases.items()}, rounds, "clips")
    return row(
        f"mp4 {SIDE}x{SIDE} to {VIDEO.frames} frames and sound", "ms/clip", 1000 * seconds["ours"] / CLIPS,
        1000 * seconds["bare"] / CLIPS, "PyAV decoding", "at most 1.25", seconds["ours"] <= 1.25 * seconds["bare"],
    )  # fmt: skip


def decode_barely(content: bytes) -> None:
    """As many frames in RGB and as much sound in 16 bits as the windows ask for, and no more than that."""
    pictures, samples = 0, 0
    resample = av.AudioResampler(format="s16", layout="mono", rate=AUDIO.rate).resample
    with av.open(io.BytesIO(content), "r") as container:
        for stream in container.streams:
            stream.codec_context.thread_count = 1
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame) and pictures < VIDEO.frames:
                frame.to_ndarray(format="rgb24")
                pictures += 1
            elif isinstance(frame, av.AudioFrame) and samples < AUDIO.samples:
                samples += sum(part.to_ndarray().size for part in resample(frame))
            elif pictures == VIDEO.frames and samples >= AUDIO.samples:
                break


def flatten(data: ImageNet, rounds: int) -> dict:
    """Normalising and attaching positions, as a share of a training step of a Perceiver with one cross-attend."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = Perceiver(data.spec, num_latents=512, latent_dim=1024, cross_attends=1, self_attends_per_block=6).to(device)
    compact = {"image": torch.stack(cut_photos(2, SIDE)), "target": torch.zeros(2), "weight": torch.ones(2)}
    compact = {**{name: tensor.to(device) for name, tensor in compact.items()}, "key": ["a", "b"]}
    inputs = data.flatten(compact).inputs
    cases = {"flatten": lambda: data.flatten(compact), "step": lambda: model(inputs).square().mean().backward()}
    seconds = alternate(cases, rounds, "flatten")
    return row(
        "flatten on the device, batch of 2", "ms", 1000 * seconds["flatten"], 1000 * seconds["step"],
        "Perceiver training step, 1 cross-attend", "at most 0.05", seconds["flatten"] <= 0.05 * seconds["step"],
    )  # fmt: skip
