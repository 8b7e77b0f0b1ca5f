"""Damaged manifests, indices, shards and files: `python -m tests.support.fuzz_data [CASES] [TARGET]`, for one target or all.

Each case damages one file of a small data set at random and reads it in a process of its own with the reader, `prepare lint`
and `prepare stats`, or for the target `decoders` with the data sets. What must hold: every status is 0, 1 (lint alone) or 2,
there is at most one line of error and no stack trace, nothing hangs, and in the present format nothing is read without an
error but what was written.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import torch

from datamodules import BadSampleError, UserError
from datamodules.clips.base import ClipSplit
from datamodules.clips.windows import AudioWindow, VideoWindow
from datamodules.core.datamodule import Split
from datamodules.images.imagenet import ImageSplit, ShardFiles
from datamodules.points.base import CloudSplit
from datamodules.prepare import run
from datamodules.sounds.language_id import PromptSplit
from datamodules.storage import shards

from .clips import WHOLE
from .damage import with_flipped_bit, with_zeros
from .imagenet import jpeg, picture
from .shards import as_of_format_1, content

TARGETS = ("manifest", "index", "shard", "decoders")
SECONDS = 60  # after which a case hangs
FORK = multiprocessing.get_context("fork")
ODD_VALUES = (
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    float("nan"),
    "",
    "x",
    "../x",
    "\x1b[2J\n",
    "[/nope]",
    [],
    {},
    [[]],
    {"x": {}},
)


def make(number: int) -> dict:
    """A sample with files of every kind that a data set here reads, cut so that they stay small."""
    file = io.BytesIO()
    soundfile.write(file, (np.arange(1200) * 37 % 2000).astype(np.int16), 8000, format="wav")
    cloud = io.BytesIO()
    np.save(cloud, np.random.default_rng(number).random((40, 3), np.float32))
    return {
        "__key__": f"s{number:02d}",
        "jpg": jpeg(picture(number % 3, number)),
        "mp4": WHOLE,
        "npy": cloud.getvalue(),
        "wav": file.getvalue(),
        "json": {"label": number % 3, "labels": [number % 3], "seconds": 3.0},
    }


def write(folder: Path) -> None:
    splits = {"train": [0, 1, 2, 3, 4], "val": [5, 6]}
    shards.write_shards(folder, "fuzz", splits, make, made_with={"classes": ["a", "b"], "points": 40}, licence="CC0",
                        samples_per_shard=3, workers=1)  # fmt: skip


def noise(content: bytes, random: Random) -> bytes:
    """One of the damages that any file may get."""
    size = len(content)
    place, length = random.randrange(size), random.choice((1, 2, 16, 300))
    return random.choice(
        (
            lambda: with_flipped_bit(content, random),
            lambda: with_flipped_bit(with_flipped_bit(content, random), random),
            lambda: with_zeros(content, random),
            lambda: content[:place],
            lambda: content[:place] + content[place + length :],
            lambda: content[:place] + content[place : place + length] + content[place:],
            lambda: content[:place] + random.randbytes(length) + content[place + length :],
            lambda: (
                content[:place] + random.choice((b"9", b"-", b"[", b"{", b'"', b"\xff", b"1e9")) + content[place + 1 :]
            ),
            lambda: b"",
        )
    )()


def odd_json(content: bytes, random: Random) -> bytes:
    """Valid JSON with a value somewhere that was exchanged, left out, doubled or nested deeply."""
    whole = json.loads(content)
    places: list[tuple] = []

    def visit(node) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(whole)
    node, key = random.choice(places)
    kind = random.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, list):
        node.insert(key, node[key])
    elif kind == 2:
        return json.dumps(whole).encode().replace(b"[", b"[" * random.choice((2, 1100, 100_000)), 1)
    elif kind == 3 and type(node[key]) is int:
        node[key] += random.choice((-1, 1, 10, 2**40))
    else:
        node[key] = random.choice(ODD_VALUES)
    return json.dumps(whole).encode()


def damage(folder: Path, target: str, random: Random) -> Path:
    """Damages one file of the folder, and returns it."""
    pattern = {"manifest": "manifest.json", "index": "*.index.json", "shard": "*.tar"}[target]
    path = random.choice(sorted(folder.glob(pattern)))
    before = path.read_bytes()
    change = odd_json if target != "shard" and random.random() < 0.5 else noise
    while (after := change(before, random)) == before:
        pass
    path.write_bytes(after)
    return path


def read(folder: Path) -> tuple[dict, dict]:
    """The manifest, and every sample that can be read, as bytes or as the reason why not."""
    manifest = shards.read_manifest(folder)
    found = {}
    for split, entry in manifest["splits"].items():
        reader = shards.ShardReader(folder, entry["shards"])
        for number, key in enumerate(reader.keys):
            try:
                found[split, key] = dict(reader.read(number))
            except BadSampleError as error:
                found[split, key] = str(error)
    return manifest, found


def judge(folder: Path, expected: tuple[dict, dict], damaged: str) -> dict:
    """What reader, lint and stats make of a folder with one damaged file."""
    sealed = "format" in expected[0]
    said: dict = {"problems": []}
    try:
        manifest, found = read(folder)
        said["reader"] = "bad sample" if any(isinstance(files, str) for files in found.values()) else "read"
        wrong = [key for key, files in found.items() if not isinstance(files, str) and files != expected[1].get(key)]
        if sealed and (wrong or manifest != expected[0] or found.keys() != expected[1].keys()):
            said["problems"].append(f"read other data than were written: {wrong or 'the manifest or the keys'}")
        lines = [files for files in found.values() if isinstance(files, str)]
    except UserError as error:
        said["reader"], lines = "refused", [str(error)]
    if any("\n" in line for line in lines):
        said["problems"].append(f"an error of several lines: {lines}")
    for command in ("lint", "stats"):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run([command, str(folder)])
        said[command] = status
        errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        if status not in ((0, 1, 2) if command == "lint" else (0, 2)) or len(errors) != (status == 2):
            said["problems"].append(f"{command}: status {status}, {errors}")
        if "Traceback" in err.getvalue() or not all(c.isprintable() or c == "\n" for c in out.getvalue()):
            said["problems"].append(f"{command} said {err.getvalue()} {out.getvalue()!r}")
        same = damaged == shards.MANIFEST and said["reader"] == "read"  # other blanks, say
        if command == "lint" and status == 0 and sealed and not same:
            said["problems"].append("lint found nothing")
    return said


def splits(reader: shards.ShardReader) -> dict[str, Split]:
    """How data sets read the files of a sample, by extension."""
    window = VideoWindow(4, 25, 16, 16), AudioWindow(800, 8000)
    return {
        "jpg": ImageSplit(ShardFiles(reader, 3), 32, "inception", 0, 0),
        "mp4": ClipSplit(reader, 3, *window, training=True),
        "npy": CloudSplit(reader, range(len(reader.keys)), [0] * len(reader.keys), 40, training=True),
        "wav": PromptSplit(reader, training=True, windows=1),
        "json": ClipSplit(reader, 3, *window, training=False),
    }


def form_of(split: Split, index: int) -> dict:
    """Shapes of a sample's tensors; what was skipped of it is said in words."""
    sample = split.load(index, torch.Generator().manual_seed(0))
    return {name: value.shape for name, value in sample.items() if isinstance(value, torch.Tensor)}


def decode(folder: Path, random: Random) -> dict:
    """What a data set makes of a sample with one damaged file, which no checksum protects."""
    (line,) = shards.read_manifest(folder)["splits"]["val"]["shards"]
    extension = random.choice(("jpg", "mp4", "npy", "wav", "json"))
    start, size = json.loads(shards.index_path(folder / line["file"]).read_text())[0][1][extension][:2]
    tar = folder / line["file"]
    before = tar.read_bytes()
    part = noise(before[start : start + size], random)
    tar.write_bytes((before[:start] + part[:size].ljust(size, b"\0") + before[start + size :])[: len(before)])
    index = shards.index_path(tar)
    entries = json.loads(index.read_text())
    entries[0][1][extension] = [start, min(size, len(part))]
    index.write_text(json.dumps(entries))
    split = splits(shards.ShardReader(folder, [line]))[extension]
    form = form_of(split, 1)
    said: dict = {"problems": [], extension: "decoded"}
    try:
        found = form_of(split, 0)
        if found != form:
            said["problems"].append(f"{extension} is {found} instead of {form}")
    except BadSampleError as error:
        said[extension] = "bad sample"
        if "\n" in str(error) or "s05" not in str(error):
            said["problems"].append(str(error))
    return said


def one_case(target: str, number: int, originals: dict[int, Path], scratch: Path, out: Path) -> None:
    """Runs in a process of its own and writes what it found."""
    random = Random(f"{target} {number}")
    format_ = 1 if target == "decoders" or number % 3 == 2 else 2
    original = originals[format_]
    for name, bytes_ in content(original).items():
        (scratch / name).write_bytes(bytes_)
    torch.set_num_threads(1)
    try:
        if target == "decoders":
            said = decode(scratch, random)
        else:
            said = judge(scratch, read(original), damage(scratch, target, random).name)
    except BaseException:
        said = {"problems": [traceback.format_exc()]}
    out.write_text(json.dumps(said))


def fuzz(target: str, cases: int, report: Callable[[str], object] = print) -> list[str]:
    """Runs the cases of one target. Returns what must not be, and reports how many ended how."""
    problems: list[str] = []
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        originals = {2: root / "format2", 1: root / "format1"}
        with contextlib.redirect_stderr(io.StringIO()):
            for folder in originals.values():
                write(folder)
        as_of_format_1(originals[1])
        for number in range(cases):
            scratch, out = root / f"{number}", root / f"{number}.json"
            scratch.mkdir()
            process = FORK.Process(target=one_case, args=(target, number, originals, scratch, out))
            process.start()
            process.join(SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
                said = {"problems": [f"hangs for more than {SECONDS} s"]}
            elif process.exitcode or not out.exists():
                said = {"problems": [f"ended with {process.exitcode}"]}
            else:
                said = json.loads(out.read_text())
            problems += [f"{target} {number}: {problem}" for problem in said.pop("problems")]
            ends.update(f"{part} {end}" for part, end in said.items())
    report(
        f"{target}: {cases} cases, {len(problems)} problems; " + ", ".join(f"{n} {k}" for k, n in sorted(ends.items()))
    )
    return problems


def main() -> int:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    problems = [problem for target in sys.argv[2:] or TARGETS for problem in fuzz(target, cases)]
    print(*problems, sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
