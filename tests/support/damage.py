"""Ways to damage shards, and shards that were written with damaged files in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from datamodules.storage import shards

# From the bytes of a file to damaged ones; None leaves the file out
DAMAGES: dict[str, Callable[[bytes, Random], bytes | None]] = {
    "missing": lambda content, random: None,
    "empty": lambda content, random: b"",
    "noise": lambda content, random: random.randbytes(len(content)),
    "halved": lambda content, random: content[: len(content) // 2],
    "bit": lambda content, random: with_flipped_bit(content, random),
    "zeros": lambda content, random: with_zeros(content, random),
}


def with_flipped_bit(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def with_zeros(content: bytes, random: Random) -> bytes:
    """Like a block that a disk lost."""
    start = random.randrange(len(content))
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def rewrite(folder: Path, file: str, change: Callable[[str, str, bytes], bytes | None]) -> None:
    """Writes a shard anew as if its files had always been so; index and manifest match it.

    change: from key, extension and bytes to other bytes; None leaves the file out.
    """
    manifest = shards.read_manifest(folder)
    lines = [line for entry in manifest["splits"].values() for line in entry["shards"]]
    line = next(line for line in lines if line["file"] == file)
    source = shards.ShardReader(folder, [line])
    samples = []
    for number, key in enumerate(source.keys):
        files = {ext: change(key, ext, content) for ext, content in source.read(number).items()}
        samples.append({"__key__": key, **{ext: content for ext, content in files.items() if content is not None}})
    line.update(shards.write_shard(folder / file, samples))
    shards.write_manifest(folder, manifest)


def flip_in_place(folder: Path, file: str, number: int, extension: str, place: int = 0) -> None:
    """Flips a bit of a file of a sample, as a disk may: neither index nor manifest knows."""
    index = json.loads(shards.index_path(folder / file).read_text())
    with (folder / file).open("r+b") as tar:
        tar.seek(index[number][1][extension][0] + place)
        byte = tar.read(1)[0]
        tar.seek(-1, 1)
        tar.write(bytes([byte ^ 1]))
