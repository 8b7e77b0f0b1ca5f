"""Shards: what is written is read back, in any order, from any process; damage is named."""

import pickle
from pathlib import Path

import pytest
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset

from datamodules import UserError, shards

COMMAND = "python -m datamodules.prepare tiny"


def samples(first: int, count: int) -> list[dict]:
    return [
        {"__key__": f"s{n:03d}", "bin": bytes([n % 256]) * (500 + n), "json": {"n": n}}
        for n in range(first, first + count)
    ]


def write(folder: Path) -> dict:
    """Two shards of train and one of val, and the manifest, which is returned."""
    folder.mkdir(exist_ok=True)
    train = [shards.write_shard(folder / f"train-{n:06d}.tar", samples(4 * n, 4)) for n in range(2)]
    val = [shards.write_shard(folder / "val-000000.tar", samples(8, 3))]
    shards.write_manifest(folder, "tiny", {"seed": 0}, {"train": train, "val": val})
    return shards.read_manifest(folder, COMMAND)


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "tiny")
    return tmp_path / "tiny"


def reader(folder: Path, split: str = "train") -> shards.ShardReader:
    return shards.ShardReader(folder, shards.read_manifest(folder, COMMAND)["splits"][split], COMMAND)


class Read(Dataset):
    def __init__(self, source: shards.ShardReader) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source.keys)

    def __getitem__(self, number: int) -> dict[str, bytes]:
        return self.source.read(number)


def test_what_is_written_is_read_back_in_any_order(folder):
    source, expected = reader(folder), samples(0, 8)
    assert source.keys == [sample["__key__"] for sample in expected]
    for number in torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist() * 2:
        files = source.read(number)
        assert files.keys() == {"bin", "json"}
        assert files["bin"] == expected[number]["bin"]
        assert files["json"] == b'{"n": %d}' % number


def test_equal_samples_make_equal_bytes(tmp_path):
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert first == second
    for split in first["splits"].values():
        for line in split:
            assert shards.sha256(tmp_path / "a" / line["file"]) == shards.sha256(tmp_path / "b" / line["file"])
            assert line["sha256"] == shards.sha256(tmp_path / "a" / line["file"])


def test_shards_are_readable_by_webdataset(folder):
    urls = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [(s["__key__"], s["bin"], s["json"]) for s in read] == [
        (s["__key__"], s["bin"], s["json"]) for s in samples(0, 8)
    ]


def test_finished_shards_leave_no_other_files(folder):
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_shard_is_refused_with_its_path_and_the_command(folder, damage):
    path = folder / "train-000001.tar"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-512])
    else:
        path.unlink()
    with pytest.raises(UserError) as error:
        reader(folder)
    assert str(path) in str(error.value)
    assert COMMAND in str(error.value)
    assert ("is missing" if damage == "missing" else "is damaged") in str(error.value)
    assert len(reader(folder, "val").keys) == 3


def test_missing_index_is_refused_with_its_path_and_the_command(folder):
    (folder / "train-000000.index.json").unlink()
    with pytest.raises(UserError, match=r"train-000000\.index\.json is missing.*" + COMMAND):
        reader(folder)


def test_unfinished_folder_is_refused_with_its_path_and_the_command(folder):
    (folder / shards.MANIFEST).unlink()
    with pytest.raises(UserError) as error:
        shards.read_manifest(folder, COMMAND)
    assert str(folder) in str(error.value)
    assert COMMAND in str(error.value)


@pytest.mark.parametrize("start", ["fork"])
def test_workers_read_what_one_process_reads(folder, start):
    source = reader(folder)
    expected = [source.read(number) for number in range(8)]  # opens the files before the workers start
    loader = DataLoader(Read(source), batch_size=None, num_workers=2, multiprocessing_context=start)
    assert list(loader) == expected


def test_reader_reads_after_pickling(folder):
    source = reader(folder)
    source.read(0)
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(n) for n in range(8)] == [source.read(n) for n in range(8)]


def test_fingerprint_changes_with_one_byte_of_one_shard(folder):
    manifest = shards.read_manifest(folder, COMMAND)
    before = shards.fingerprint(folder, manifest)
    assert shards.fingerprint(folder, manifest) == before
    path = folder / "val-000000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    assert shards.fingerprint(folder, manifest) != before
