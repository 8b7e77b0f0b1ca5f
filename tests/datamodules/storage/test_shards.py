"""Shards: what is written is read back, in any order, from any process; what is killed goes on; damage is named."""

import errno
import json
import multiprocessing
import os
import pickle
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from datamodules import BadSampleError, UserError
from datamodules.core.errors import TooShort
from datamodules.storage import reader as storage_reader
from datamodules.storage import shards
from datamodules.storage import writer as storage_writer
from datamodules.storage.lint import findings
from tests.support.shards import COMMAND, Read, as_of_format_1, content, make, reader, write

FORK = multiprocessing.get_context("fork")


def make_named(number: int, key: str) -> dict:
    return make(number) | {"__key__": f"{key}{number}"}


def make_most(number: int) -> dict:
    """Three of ten sources have something wrong."""
    if number % 10 == 3:
        raise BadSampleError(f"{number}.mp4 has no sound")
    if number % 10 == 5:
        raise TooShort(f"{number}.mp4 lasts 0.1 s")
    if number % 10 == 7:
        Path(f"/nowhere/{number}.mp4").read_bytes()
    return make(number)


def make_until_full(number: int, full_at: int | None) -> dict:
    if number == full_at:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return make(number)


def make_once(number: int, seen: Path) -> dict:
    """Leaves a mark for every sample that is made, and refuses to make one twice."""
    (seen / str(number)).touch(exist_ok=False)
    return make(number)


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_what_is_written_is_read_back_in_any_order(folder):
    source, expected = reader(folder), [make(n) for n in range(8)]
    assert source.keys == [sample["__key__"] for sample in expected]
    for number in torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist() * 2:
        files = source.read(number)
        assert files.keys() == {"bin", "json"}
        assert files["bin"] == expected[number]["bin"]
        assert files["json"] == b'{"n": %d}' % number
        assert source.read(number, only=("json",)) == {"json": files["json"]}


def test_samples_with_different_extensions_are_read_back(tmp_path):
    samples = [{"__key__": "a", "bin": b"1"}, {"__key__": "b"}, {"__key__": "c", "txt": "3", "ab.c": b"4"}]
    line = shards.write_shard(tmp_path / "x.tar", [s for s in samples if len(s) > 1])
    source = shards.ShardReader(tmp_path, [line], COMMAND)
    assert [source.read(n) for n in range(2)] == [{"bin": b"1"}, {"txt": b"3", "ab.c": b"4"}]


def test_equal_items_make_equal_bytes_with_any_number_of_workers(tmp_path):
    assert write(tmp_path / "a", workers=1) == write(tmp_path / "b", workers=3)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_manifest_says_what_lies_there(folder):
    manifest = shards.read_manifest(folder, COMMAND)
    assert (manifest["name"], manifest["licence"], manifest["made_with"]) == ("tiny", "own", {"seed": 0})
    lines = [line for split in manifest["splits"].values() for line in split["shards"]]
    assert [line["samples"] for line in lines] == [4, 4, 3]
    assert all(line["sha256"] == shards.sha256(folder / line["file"]) for line in lines)
    assert all(line["bytes"] == (folder / line["file"]).stat().st_size for line in lines)
    assert manifest["fingerprint"] == shards.fingerprint(folder, manifest)


def test_sources_that_are_unreadable_or_too_short_are_counted_with_their_reasons(tmp_path, caplog):
    manifest = write(tmp_path, make_most, {"train": list(range(20)), "val": [3]})
    assert "14 of 20 train samples were written; the first that was not: 3.mp4 has no sound" in caplog.text
    assert "0 of 1 val samples were written" in caplog.text
    train, val = manifest["splits"]["train"], manifest["splits"]["val"]
    assert [train[n] for n in ("expected", "written", "unreadable", "too_short")] == [20, 14, 4, 2]
    assert train["reasons"]["too_short"] == ["5.mp4 lasts 0.1 s", "15.mp4 lasts 0.1 s"]
    assert train["reasons"]["unreadable"][0] == "3.mp4 has no sound"
    assert "No such file" in train["reasons"]["unreadable"][1]
    assert "/nowhere/7.mp4" in train["reasons"]["unreadable"][1]
    assert [val[n] for n in ("expected", "written", "unreadable", "too_short")] == [1, 0, 1, 0]
    assert len(reader(tmp_path).keys) == 14
    assert reader(tmp_path, "val").keys == []


def test_shards_are_readable_by_webdataset(folder):
    urls = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [(s["__key__"], s["bin"], s["json"]) for s in read] == [
        (s["__key__"], s["bin"], s["json"]) for s in map(make, range(8))
    ]


def test_a_finished_folder_holds_tars_indices_and_the_manifest_alone(folder):
    stems = ("train-000000", "train-000001", "val-000000")
    assert content(folder).keys() == {
        "manifest.json",
        *(f"{stem}.tar" for stem in stems),
        *(f"{stem}.index.json" for stem in stems),
    }


def test_a_finished_folder_is_left_as_it_is(folder):
    before = content(folder)
    assert write(folder) == json.loads(before["manifest.json"])
    assert content(folder) == before


@pytest.mark.parametrize(
    "other", [{"made_with": {"seed": 1}}, {"samples_per_shard": 3}, {"splits": {"train": [1], "val": [2]}}]
)
def test_a_folder_of_other_items_or_settings_is_refused(folder, other, tmp_path):
    what = "seed" if "made_with" in other else "items"
    with pytest.raises(UserError, match=rf"made from other items or settings \({what} differ\): delete it"):
        write(folder, **other)
    with pytest.raises(UserError, match="no space left"):
        write(tmp_path / "half", partial(make_until_full, full_at=10), workers=1)
    with pytest.raises(UserError, match="unfinished shards made from other items or settings"):
        write(tmp_path / "half", **other)


@pytest.mark.parametrize("key", ["s001", "s.1", "", "/s1", "a/../../s1"])
def test_keys_that_a_tar_could_not_tell_apart_are_refused(tmp_path, key):
    with pytest.raises(UserError, match="keys must be unique, relative and not empty, and contain no dot"):
        shards.write_shard(tmp_path / "x.tar", [make(1), {**make(2), "__key__": key}])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_in_one_line_and_keeps_finished_shards_and_nothing_else(tmp_path):
    with pytest.raises(
        UserError, match=r"no space left to write .*No space left on device.*run the same command again"
    ):
        write(tmp_path, partial(make_until_full, full_at=6), workers=1)
    assert {"train-000000.tar", "train-000000.index.json", "train-000000.record.json"} <= content(tmp_path).keys()
    assert not list(tmp_path.glob("train-000001*")) + list(tmp_path.glob("*.part"))
    with pytest.raises(UserError, match=r"has no manifest\.json: run `python -m datamodules"):
        reader(tmp_path)
    write(tmp_path, partial(make_until_full, full_at=None))
    assert [reader(tmp_path).read(n)["bin"] for n in range(8)] == [make(n)["bin"] for n in range(8)]


def write_small_files_only(folder: Path, said: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # a sample takes 2,048 bytes
    try:
        write(folder, splits={"train": [1], "val": [8, 9, 10]}, workers=1)
    except UserError as error:
        said.write_text(str(error))


def test_a_limit_on_file_size_is_a_full_disk(tmp_path):
    """The system itself refuses the write, in the middle of a tar."""
    process = FORK.Process(target=write_small_files_only, args=(tmp_path / "full", tmp_path / "said"))
    process.start()
    process.join()
    assert "no space left to write" in (tmp_path / "said").read_text()
    assert not [path for path in (tmp_path / "full").iterdir() if path.suffix in (".tar", ".part", ".json")]


def make_and_wait(number: int, at: int, fifo: Path) -> dict:
    """Stops at one sample, says so through the fifo, and waits there to be killed."""
    if number == at:
        fifo.write_text("here")
        signal.pause()
    return make(number)


def test_a_killed_process_loses_nothing_and_leaves_nothing_half_written(tmp_path):
    folder, fifo, seen = tmp_path / "killed", tmp_path / "fifo", tmp_path / "seen"
    os.mkfifo(fifo)
    seen.mkdir()
    process = FORK.Process(target=write, args=(folder, partial(make_and_wait, at=10, fifo=fifo)), kwargs={"workers": 1})
    process.start()
    assert fifo.read_text() == "here"  # in the middle of the last shard
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (folder / "val-000000.tar.part").exists()
    assert not (folder / "val-000000.tar").exists()
    with pytest.raises(UserError, match="no manifest"):
        reader(folder)
    write(folder, partial(make_once, seen=seen))
    assert {path.name for path in seen.iterdir()} == {"8", "9", "10"}
    write(tmp_path / "whole")
    assert content(folder) == content(tmp_path / "whole")


def test_processes_that_write_one_folder_at_once_make_one_data_set(tmp_path):
    processes = [FORK.Process(target=write, args=(tmp_path / "all",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    write(tmp_path / "one")
    assert content(tmp_path / "all") == content(tmp_path / "one")


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


def test_a_shard_that_is_cut_short_after_it_was_opened_is_a_bad_sample(folder):
    source = reader(folder)
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadSampleError, match="truncated"):
        source.read(7)
    assert source.read(0)["bin"] == make(0)["bin"]


def test_missing_index_is_refused_with_its_path_and_the_command(folder):
    (folder / "train-000000.index.json").unlink()
    with pytest.raises(
        UserError, match=r"train-000000\.index\.json is missing: run `python -m datamodules.prepare reindex"
    ):
        reader(folder)


@pytest.mark.parametrize(("old", "new"), [('"s001"', '"s0x1"'), ('"bin"', '"bim"'), (" ", "")])
def test_an_index_that_was_changed_is_refused_whatever_it_says(folder, old, new):
    index = folder / "train-000000.index.json"
    index.write_text(index.read_text().replace(old, new, 1))
    words = r"train-000000\.index\.json is damaged \(its bytes have changed .*, by their SHA-256\): run `python -m"
    with pytest.raises(UserError, match=words):
        reader(folder)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ('[["s000", {"bin": [9000, 2000]}]]', "a file lies outside of the shard"),
        ('[["s000", {"bin": [-1, 5]}]]', "a file lies outside of the shard"),
        ('[["s000", {"bin": [9223372036854775807, 9223372036854775807]}]]', "a file lies outside of the shard"),
        ('[["s000", {"bin": [36893488147419103232, 5]}]]', "a file does not have an offset and a size"),
        ('[["s000", {"bin": [1.5, 5]}]]', "a file does not have an offset and a size"),
        ('[["s000", {"bin": [1]}]]', "a file does not have an offset and a size"),
        ('[["s000", {"bin": [1, 5], "json": [1, 5, 7]}]]', "it is not a list of keys with their files"),
        ('[[7, {"bin": [1, 5]}]]', "its keys are not different texts"),
        ('[["s000", {"bin": [1, 5]}], ["s000", {"bin": [1, 5]}]]', "its keys are not different texts"),
        ('[["s000", {"../x": [1, 5]}]]', "the extension of a file is invalid"),
        ("[]", "it has 0 samples instead of 1"),
        ('{"s0": 1}', "it is not a list of keys with their files"),
        ("7", "it is not a list of keys with their files"),
        ("[" * 100_000, "it is nested too deeply"),
        ("", "Expecting value"),
    ],
)
def test_an_index_that_breaks_the_schema_is_refused(tmp_path, index, words):
    write(tmp_path, splits={"train": [0], "val": [1]})
    as_of_format_1(tmp_path)
    (tmp_path / "train-000000.index.json").write_text(index)
    with pytest.raises(UserError, match=rf"train-000000\.index\.json is damaged \({words}"):
        reader(tmp_path)


MANIFESTS = [
    (lambda m: m.pop("splits"), "it has no splits"),
    (lambda m: m.update(other=1), "it has the unknown field 'other'"),
    (lambda m: m.update(made_with=[]), r"it has the invalid made_with \[\]"),
    (lambda m: m["splits"].update(train=7), "train is not a JSON object"),
    (lambda m: m["splits"]["train"].update(written=True), "train has the invalid written True"),
    (lambda m: m["splits"]["train"]["shards"][0].update(bytes=-1), "shard 0 of train has the invalid bytes -1"),
    (lambda m: m["splits"]["train"]["shards"][1].update(sha256="x"), "shard 1 of train has the invalid sha256 'x'"),
    (lambda m: m["splits"]["val"]["shards"].extend(m["splits"]["train"]["shards"]), "it lists a shard twice"),
]


@pytest.mark.parametrize("format_", [1, 2])
@pytest.mark.parametrize(("change", "words"), MANIFESTS)
def test_a_manifest_that_breaks_the_schema_is_refused(folder, format_, change, words):
    if format_ == 1:
        as_of_format_1(folder)
    manifest = json.loads((folder / shards.MANIFEST).read_text())
    change(manifest)
    (folder / shards.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=rf"manifest\.json is damaged \({words}"):
        shards.read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(made_with={"seed": 1}), "it was changed after it was written"),
        (lambda m: m.update(licence="free"), "it was changed after it was written"),
        (lambda m: m.update(format=3), "its format 3 is not 2: update ByteBench"),
        (lambda m: m.pop("format"), "it has the unknown field 'sha256'"),
    ],
)
def test_a_manifest_that_was_changed_by_hand_is_refused(folder, change, words):
    manifest = json.loads((folder / shards.MANIFEST).read_text())
    change(manifest)
    (folder / shards.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=rf"manifest\.json is damaged \({words}"):
        shards.read_manifest(folder)


def test_a_folder_of_format_1_is_read_and_resumed_like_the_present_one(folder, tmp_path):
    expected = [reader(folder).read(number) for number in range(8)]
    fingerprint = shards.fingerprint(folder, shards.read_manifest(folder))
    as_of_format_1(folder)
    assert [reader(folder).read(number) for number in range(8)] == expected
    assert shards.fingerprint(folder, shards.read_manifest(folder)) == fingerprint
    assert write(folder) == shards.read_manifest(folder)  # the command that made it leaves it as it is


def test_unfinished_folder_is_refused_with_its_path_and_the_command(folder):
    (folder / shards.MANIFEST).unlink()
    with pytest.raises(UserError) as error:
        shards.read_manifest(folder, COMMAND)
    assert str(folder) in str(error.value)
    assert COMMAND in str(error.value)


def test_workers_read_what_one_process_reads(folder):
    source = reader(folder)
    expected = [source.read(number) for number in range(8)]  # opens the files before the workers start
    loader = DataLoader(Read(source), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert list(loader) == expected


def test_reader_reads_after_pickling(folder):
    source = reader(folder)
    source.read(0)
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(n) for n in range(8)] == [source.read(n) for n in range(8)]


def test_reader_holds_few_files_open(folder, monkeypatch):
    monkeypatch.setattr(storage_reader, "OPEN_FILES", 1)
    source, before = reader(folder), len(os.listdir("/proc/self/fd"))
    assert [source.read(n % 8)["bin"] for n in range(0, 40, 3)] == [make(n % 8)["bin"] for n in range(0, 40, 3)]
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_fingerprint_changes_with_one_byte_of_one_shard(folder):
    manifest = shards.read_manifest(folder, COMMAND)
    before = shards.fingerprint(folder, manifest)
    path = folder / "val-000000.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    assert shards.fingerprint(folder, manifest) != before


@pytest.mark.parametrize("name", ["../train-000000.tar", "/etc/train-000000.tar", "train-000000"])
def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path, name):
    write(tmp_path / "data")
    path = tmp_path / "data" / shards.MANIFEST
    path.write_text(path.read_text().replace("train-000000.tar", name))
    with pytest.raises(UserError, match="has the invalid shard name"):
        shards.read_manifest(tmp_path / "data")


def test_members_that_lead_out_of_their_shard_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_writer, "escapes_folder", lambda key: False)  # someone else's writer
    write(tmp_path / "data", make=partial(make_named, key="/etc/evil"))
    lines = shards.read_manifest(tmp_path / "data")["splits"]["train"]["shards"]
    assert any("evil0.bin would be unpacked outside of the folder" in line for line in findings(tmp_path / "data"))
    index = shards.index_path(tmp_path / "data" / lines[0]["file"])
    absolute = index.read_text()
    for way_out in ("/etc/evil", "../../evil"):
        index.write_text(absolute.replace("/etc/evil", way_out))
        with pytest.raises(UserError, match="would be unpacked outside of the folder"):
            shards.ShardReader(tmp_path / "data", lines, COMMAND)
