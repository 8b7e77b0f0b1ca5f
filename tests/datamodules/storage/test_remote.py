"""Remote shards: fetched whole when first read, by any process; what may pass is tried again, what is damaged never used."""

import errno
import logging
import multiprocessing
import os
import random
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from datamodules import UserError
from datamodules.storage import remote, shards
from tests.support.flaky_server import serve
from tests.support.shards import COMMAND, Read, as_of_format_1, reader, write

SHARD, INDEX, MANIFEST = "train-000000.tar", "train-000000.index.json", "manifest.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BYTEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def server(folder):
    with serve(folder) as server:
        yield server


def cached(cache: Path) -> list[Path]:
    """What is in the cache, but for locks."""
    return [path for path in cache.glob("*") if path.suffix != ".lock"]


def test_remote_shards_are_fetched_whole_when_first_read(folder, cache):
    url = f"file://{folder}"
    source = reader(url)
    assert source.keys == reader(folder).keys
    assert not cache.exists()
    assert source.read(5) == reader(folder).read(5)
    line = shards.read_manifest(url)["splits"]["train"]["shards"][1]
    assert [path.name for path in cached(cache)] == [f"{line['sha256']}.tar"]
    assert shards.fingerprint(url, shards.read_manifest(url)) == shards.read_manifest(folder)["fingerprint"]


def test_a_url_that_became_a_path_is_still_a_url(folder):
    assert reader(Path(f"file://{folder}/")).read(5) == reader(folder).read(5)


def test_remote_shards_are_read_by_several_workers_at_once(folder, server, cache):
    loader = DataLoader(Read(reader(server.url)), batch_size=None, num_workers=2)
    expected = reader(folder)
    assert list(loader) == [expected.read(number) for number in range(8)]
    assert len(cached(cache)) == 2
    assert server.asked[SHARD] == server.asked["train-000001.tar"] == 1


def read_once(url: str, meet) -> None:
    source = reader(url)
    meet.wait()
    assert source.read(0)["json"] == b'{"n": 0}'


def test_processes_that_need_one_shard_at_once_fetch_it_once(folder, server, cache):
    fork = multiprocessing.get_context("fork")
    server.failures[SHARD] = [503]
    meet = fork.Barrier(4)
    processes = [fork.Process(target=read_once, args=(server.url, meet)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.asked[SHARD] == 2  # the one that failed, and one
    assert len(cached(cache)) == 1


@pytest.mark.parametrize("failure", [500, 503, 429, "drop", "cut", "flip"])
@pytest.mark.parametrize("name", [SHARD, INDEX])
def test_what_may_pass_is_tried_again_and_told(folder, server, caplog, name, failure):
    once = failure == "flip" or (failure == "cut" and name == INDEX)  # wrong bytes, as far as one can see
    server.failures[name] = [failure] * (1 if once else 2)
    with caplog.at_level(logging.WARNING):
        assert reader(server.url).read(0) == reader(folder).read(0)
    assert server.asked[name] == (2 if once else 3)
    assert "; try 2 of " in caplog.text


def test_a_server_that_never_answers_is_left_after_the_timeout(server, monkeypatch):
    monkeypatch.setenv("BYTEBENCH_TIMEOUT", "0.1")
    server.failures[MANIFEST] = ["hang"]
    assert len(reader(server.url).keys) == 8
    server.failures[SHARD] = ["hang"] * remote.TRIES
    with pytest.raises(
        UserError, match=rf"{SHARD} could not be read in {remote.TRIES} tries \(no answer within 0.1 s\)"
    ):
        reader(server.url).read(0)
    assert server.asked[SHARD] == remote.TRIES


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_timeout_that_is_none_is_refused(server, monkeypatch, text):
    monkeypatch.setenv("BYTEBENCH_TIMEOUT", text)
    with pytest.raises(UserError, match=rf"BYTEBENCH_TIMEOUT '{text}' is not a number of seconds: set it to one"):
        reader(server.url)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (500, r"\(HTTP 500 Internal Server Error\): check the server, then run the same command again"),
        ("drop", r"\(ClientPayloadError, .*\): check the server"),
        ("cut", r"\(it has 5120 bytes but 10240 in its manifest\): check the server"),
        ("flip", r"\(it has other bytes than in its manifest, by their SHA-256\): prepare the remote folder again"),
    ],
)
def test_what_does_not_pass_ends_in_one_line_and_leaves_nothing(server, cache, failure, words):
    tries = 2 if failure == "flip" else remote.TRIES
    server.failures[SHARD] = [failure] * 100
    with pytest.raises(UserError, match=rf"^{server.url}/{SHARD} could not be read in {tries} tries {words}") as error:
        reader(server.url).read(0)
    assert "\n" not in str(error.value)
    assert server.asked[SHARD] == tries
    assert cached(cache) == []


@pytest.mark.parametrize("status", [404, 403, 401])
@pytest.mark.parametrize("name", [SHARD, INDEX, MANIFEST])
def test_what_is_not_there_or_forbidden_is_not_tried_again(server, name, status):
    server.failures[name] = [status] * 100
    said = "FileNotFoundError" if status == 404 else f"HTTP {status}"
    with pytest.raises(UserError, match=rf"^{server.url}/{name} cannot be read \({said}.*\): check the URL"):
        reader(server.url).read(0)
    assert server.asked[name] == 1


def test_an_index_that_was_exchanged_is_refused(folder, server):
    (folder / INDEX).write_bytes((folder / "train-000001.index.json").read_bytes())
    with pytest.raises(UserError, match=rf"{INDEX} could not be read in 2 tries \(it has other bytes than in its man"):
        reader(server.url)


@pytest.mark.parametrize("format_", [1, 2])
@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_copy_in_the_cache_that_has_changed_is_fetched_again(folder, server, cache, damage, format_):
    if format_ == 1:
        as_of_format_1(folder)
    reader(server.url).read(0)
    (path,) = cached(cache)
    content = bytearray(path.read_bytes())
    content[600] ^= 1  # in the first file of the first sample
    path.write_bytes(content[:-512] if damage == "truncated" else content)
    assert reader(server.url).read(0) == reader(folder).read(0)
    assert server.asked[SHARD] == 2
    assert path.read_bytes() == (folder / SHARD).read_bytes()


def test_a_copy_that_changes_after_it_was_opened_is_fetched_again(folder, server, cache):
    source = reader(server.url)
    source.read(0)
    (path,) = cached(cache)
    with path.open("r+b") as file:
        file.seek(600)
        file.write(b"x")
    assert source.read(0) == reader(folder).read(0)
    assert server.asked[SHARD] == 2


def test_what_a_killed_process_left_in_the_cache_is_not_used(folder, server, cache):
    line = shards.read_manifest(folder)["splits"]["train"]["shards"][0]
    cache.mkdir()
    (cache / f"{line['sha256']}.tar.part").write_bytes(b"half of it")
    assert reader(server.url).read(0) == reader(folder).read(0)
    assert [path.suffix for path in cached(cache)] == [".tar"]


def test_a_full_disk_is_told_at_once(server, cache, monkeypatch):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("datamodules.storage.files.sync", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): free some space, or set BYTE"):
        reader(server.url).read(0)
    assert server.asked[SHARD] == 1
    assert cached(cache) == []


def test_a_cache_that_cannot_be_written_is_named(server, cache):
    cache.write_text("a file")
    with pytest.raises(UserError, match=rf"{cache} cannot be written \(File exists\).*set BYTEBENCH_CACHE"):
        reader(server.url).read(0)


def test_a_remote_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"file://.*/nowhere/manifest\.json cannot be read \(FileNotFoundError"):
        reader(f"file://{tmp_path}/nowhere")
    with pytest.raises(
        UserError, match=r"nothing://here/manifest\.json cannot be read \(ValueError, Protocol not known"
    ):
        reader("nothing://here")


def test_a_manifest_that_was_cut_on_the_server_is_refused(folder, server):
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-40])
    with pytest.raises(UserError, match=rf"{MANIFEST} is damaged \(.*\): delete .* and run `{COMMAND}`"):
        reader(server.url)


def test_retries_leave_the_random_numbers_of_the_training_alone(server):
    state = random.getstate()
    server.failures[SHARD] = [500]
    reader(server.url).read(0)
    assert random.getstate() == state
