"""A byte of a shard that changes after it was written is found: by reading where it is in a file, by lint wherever it is."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import BadSampleError
from datamodules.storage import lint, shards
from tests.support.damage import flip_in_place

SHARD, NUMBER = "train-000000.tar", 2  # the sample that is damaged


def picture(number: int) -> dict:
    """An uncompressed picture: a flipped bit is another pixel, and still a picture that opens."""
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(content, "bmp")
    return {"__key__": f"s{number}", "bmp": content.getvalue(), "json": {"label": number}}


@pytest.fixture
def folder(tmp_path) -> Path:
    shards.write_shards(tmp_path, "pictures", {"train": range(4)}, picture, made_with={}, licence="own", workers=1)
    return tmp_path


def read_all(folder: Path) -> dict[str, str]:
    """For every sample that cannot be read, why not."""
    reader = shards.ShardReader(folder, shards.read_manifest(folder)["splits"]["train"]["shards"])
    found = {}
    for number, key in enumerate(reader.keys):
        try:
            reader.read(number)
        except BadSampleError as error:
            found[key] = str(error)
    return found


@pytest.mark.parametrize("place", [0, 54, 100, 269])
def test_one_flipped_bit_of_a_picture_is_found_by_reading_and_by_lint(folder, place):
    assert (read_all(folder), list(lint.findings(folder))) == ({}, [])
    flip_in_place(folder, SHARD, NUMBER, "bmp", place)
    assert read_all(folder) == {"s2": f"s2.bmp is damaged (CRC-32), in {folder}/{SHARD}"}
    assert list(lint.findings(folder)) == [
        f"{SHARD}: its bytes have changed since it was written (sha256)",
        f"{SHARD}: s2.bmp is damaged (CRC-32)",
    ]


def test_a_sample_is_read_without_its_damaged_file_where_that_is_not_asked_for(folder):
    flip_in_place(folder, SHARD, NUMBER, "bmp", 100)
    reader = shards.ShardReader(folder, shards.read_manifest(folder)["splits"]["train"]["shards"])
    assert reader.read(NUMBER, only=("json",)).metadata() == {"label": NUMBER}


def test_a_flipped_bit_between_the_files_is_found_by_lint_and_changes_the_fingerprint(folder):
    before = shards.fingerprint(folder, shards.read_manifest(folder))
    index = json.loads(shards.index_path(folder / SHARD).read_text())
    offset, size, _ = index[NUMBER][1]["bmp"]
    assert (offset + size) % 512  # the file ends before its block does
    flip_in_place(folder, SHARD, NUMBER, "bmp", size)
    assert read_all(folder) == {}
    assert list(lint.findings(folder)) == [f"{SHARD}: its bytes have changed since it was written (sha256)"]
    assert shards.fingerprint(folder, shards.read_manifest(folder)) != before


def test_an_index_that_says_the_same_in_other_bytes_is_found_by_lint(folder):
    path = shards.index_path(folder / SHARD)
    path.write_text(path.read_text().replace(" ", "", 1))
    assert list(lint.findings(folder)) == [f"{path.name}: its bytes have changed since it was written (sha256)"]
