"""AudioSet from your copy: the official CSV lists and a folder of media files, re-encoded for fast access.

Files are named by the YouTube id of the clip, with an optional suffix: ID.mp4, ID_30.000.webm, ID_30_40.wav. A file that
extends beyond the end of its clip is a whole video, from which the clip is extracted; any other file starts with the clip.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.checks import read_bytes
from ..core.errors import BadSampleError, TooShort, UserError, decoding
from ..core.order import hashed_seed
from ..storage import shards
from .media import damage, describe_clip, encode_clip, read_window
from .windows import AudioWindow, VideoWindow

FPS, RATE, KEY_EVERY = 25, 48_000, 12
SHORTEST = 1.28  # seconds, the length of a model's window
MARGIN = 0.5  # tolerance for lengths, in seconds
EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4a", ".wav", ".flac", ".ogg", ".opus", ".mp3")
ID_LENGTH = 11
LICENCE = "lists and labels: CC BY 4.0, Google; the recordings belong to their creators"


class Segment(NamedTuple):
    """A line of a list, and its file relative to the source (None if missing). Shards hash its repr, so names are fixed."""

    id: str
    start: float
    end: float
    labels: tuple[int, ...]
    file: str | None

    @property
    def key(self) -> str:
        return f"{self.id}_{round(1000 * self.start)}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", type=Path, required=True, help="folder with the media files, which may be in subfolders"
    )
    parser.add_argument(
        "--csv", type=Path, nargs="+", required=True, help="training lists, such as balanced_train_segments.csv"
    )
    parser.add_argument("--eval-csv", type=Path, required=True, help="eval_segments.csv, the test split")
    parser.add_argument("--labels", type=Path, required=True, help="class_labels_indices.csv")
    parser.add_argument(
        "--val-clips", type=int, help="training clips held out for val (default: a tenth, at most 2,000)"
    )
    parser.add_argument("--side", type=int, default=224, help="short side of the frames (default: 224)")
    parser.add_argument(
        "--out", type=Path, default=Path("data/audioset"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that write shards (default: %(default)s)")


def prepare(options: argparse.Namespace) -> str:
    if not options.source.is_dir():
        raise UserError(f"{options.source} is not a folder: set --source to the folder with the media files")
    classes = read_classes(options.labels)
    train = [segment for path in options.csv for segment in read_list(path, classes)]
    test = read_list(options.eval_csv, classes)
    refuse_repeats(train + test)
    files = find_files(options.source, {segment.id for segment in train + test})
    train, test = ([s._replace(file=files.get(s.id)) for s in split] for split in (train, test))
    held_out = min(2000, len(train) // 10) if options.val_clips is None else options.val_clips
    if not 0 < held_out < len(train):
        raise UserError(f"cannot hold out {held_out} of {len(train)} training clips: change --val-clips")
    by_hash = sorted(train, key=lambda segment: hashed_seed("audioset", segment.key))
    splits = {"train": by_hash[held_out:], "val": by_hash[:held_out], "test": test}
    manifest = shards.write_shards(
        options.out,
        "audioset",
        splits,
        partial(make_sample, source=options.source, side=options.side),
        made_with={"side": options.side, "val_clips": held_out, "classes": list(classes.values())},
        licence=LICENCE,
        workers=options.workers,
    )
    manifest["coverage"] = {name: coverage(options.out, manifest, name, splits[name]) for name in splits}
    shards.write_manifest(options.out, manifest)
    return f"{options.out}: " + "; ".join(
        summary(name, manifest["splits"][name], manifest["coverage"][name], len(classes)) for name in splits
    )


def summary(name: str, entry: dict, covered: dict[str, int], classes: int) -> str:
    lacking = ", ".join(f"{count:,} {what}" for what, count in covered.items() if what not in ("present", "classes"))
    return (
        f"{name} {entry['written']:,} of {entry['expected']:,} clips ({covered['present']:,} had a file, {lacking}), "
        f"{covered['classes']} of {classes} classes"
    )


def read_classes(path: Path) -> dict[str, str]:
    """Reads class_labels_indices.csv: the name of every class by its machine id, in the order of their indices."""
    rows = read_rows(path)[1:]
    if not rows or any(len(row) != 3 or row[0] != str(number) for number, row in enumerate(rows)):
        raise UserError(f"{path} is not a list of index, mid, display_name: set --labels to class_labels_indices.csv")
    return {machine_id: name for _, machine_id, name in rows}


def read_list(path: Path, classes: dict[str, str]) -> list[Segment]:
    """Reads a list of YTID, start_seconds, end_seconds, positive_labels, with the official comment lines."""
    numbers = {machine_id: number for number, machine_id in enumerate(classes)}
    segments = []
    for row in read_rows(path):
        try:
            name, start, end, labels = row
            segments.append(
                Segment(name, float(start), float(end), tuple(numbers[label] for label in labels.split(",")), None)
            )
        except KeyError as error:
            raise UserError(f"{path}: {row[0]} has the label {error.args[0]}, which is not in --labels") from error
        except ValueError as error:
            raise UserError(f"{path}: {row} is not id, start, end, labels: use an official list") from error
    if not segments:
        raise UserError(f"{path} lists no clips: use an official list")
    return segments


def read_rows(path: Path) -> list[list[str]]:
    try:
        lines = read_bytes(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): use an official list of AudioSet") from error
    return [
        row for row in csv.reader((line for line in lines if not line.startswith("#")), skipinitialspace=True) if row
    ]


def refuse_repeats(segments: Iterable[Segment]) -> None:
    seen = set()
    for segment in segments:
        if segment.id in seen:
            raise UserError(f"{segment.id} is listed twice: training and test lists must not share videos")
        seen.add(segment.id)


def find_files(source: Path, ids: set[str]) -> dict[str, str]:
    """The media file of every id that has one, relative to the source; video is preferred over sound."""
    found: dict[str, str] = {}
    files = [path for path in source.rglob("*") if path.suffix.lower() in EXTENSIONS]
    for path in sorted(files, key=lambda path: (EXTENSIONS.index(path.suffix.lower()), path)):
        stem = path.stem
        name = stem[:ID_LENGTH]
        if name not in ids and stem.startswith("Y"):  # some collections add this prefix
            name, stem = stem[1 : ID_LENGTH + 1], stem[1:]
        if name in ids and stem[ID_LENGTH : ID_LENGTH + 1] in ("", "_", ".", "-"):
            found.setdefault(name, str(path.relative_to(source)))
    return found


def make_sample(segment: Segment, source: Path, side: int) -> dict:
    """Re-encodes one clip with short side `side`, FPS frames per second and a key frame every KEY_EVERY; sound is mixed down
    to one channel at RATE."""
    if segment.file is None:
        raise BadSampleError(f"{segment.key} has no file in the source folder")
    path = source / segment.file
    with decoding(f"{segment.key}: {path.name}"):
        images, sound, seconds, skipped = read_clip(path, segment.start, segment.end, side)
    return {
        "__key__": segment.key,
        "mp4": encode_clip(
            images, FPS, sound, RATE, key_every=KEY_EVERY, preset="veryfast", quality=23, bit_rate=96_000
        ),
        "json": {
            "labels": segment.labels,
            "seconds": seconds,
            "pictures": images is not None,
            "sound": sound is not None,
            **({"damage": skipped} if skipped else {}),
        },
    }


def read_clip(
    path: Path, start: float, end: float, side: int
) -> tuple[np.ndarray | None, np.ndarray | None, float, str | None]:
    """Reads frames (T, H, W, 3) uint8 and sound (S,) int16 of one clip (None if missing), its length in seconds, and what was
    skipped (None if nothing)."""
    info = describe_clip(path)
    if info.size is None and not info.has_audio:
        raise BadSampleError("has neither video nor sound")
    length = end - start
    whole = info.seconds is not None and info.seconds > length + MARGIN and info.seconds > end - MARGIN
    begin = start if whole else 0.0
    expected = length if info.seconds is None else min(length, info.seconds - begin)
    if expected < SHORTEST:
        raise TooShort(f"has {max(0.0, expected):.2f} s of the clip")
    height, width = scaled(info.size or (side, side), side)
    video = VideoWindow(round(length * FPS), FPS, height, width)
    audio = AudioWindow(round(length * RATE), RATE)
    frames, samples = read_window(path, begin, video, audio, lambda height, width: [])
    seconds = min(length, max(extractor.seconds for extractor in (frames, samples) if extractor is not None))
    if info.seconds is not None and seconds < expected - MARGIN:
        raise BadSampleError(f"is truncated: it has {seconds:.2f} s instead of {expected:.2f} s")
    if seconds < SHORTEST:
        raise TooShort(f"has {seconds:.2f} s of the clip")
    images = frames.images[: round(seconds * FPS)] if frames is not None and frames.seconds else None
    sound = samples.sound[: round(seconds * RATE)] if samples is not None and samples.seconds else None
    return images, sound, seconds, damage(frames, samples)


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width after scaling the short side to `side`, both even."""
    scale = side / min(size)
    height, width = (2 * round(length * scale / 2) for length in size)
    return height, width


def coverage(folder: Path, manifest: dict, name: str, segments: list[Segment]) -> dict[str, int]:
    """Counts of a split: listed clips with a file; clips without sound, without frames, or shorter than listed by more than
    MARGIN; classes with a clip."""
    reader = shards.ShardReader(folder, manifest["splits"][name]["shards"])
    clips = [json.loads(reader.read(number, only=("json",))["json"]) for number in range(len(reader.keys))]
    length = {segment.key: segment.end - segment.start for segment in segments}
    short = sum(clip["seconds"] < length[key] - MARGIN for key, clip in zip(reader.keys, clips, strict=True))
    return {
        "present": sum(segment.file is not None for segment in segments),
        "without sound": sum(not clip["sound"] for clip in clips),
        "without pictures": sum(not clip["pictures"] for clip in clips),
        "shorter than listed": short,
        "with damaged packets": sum("damage" in clip for clip in clips),
        "classes": len({label for clip in clips for label in clip["labels"]}),
    }
