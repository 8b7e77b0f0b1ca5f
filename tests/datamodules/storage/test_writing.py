"""Writing: after a kill or a full disk at any moment, the same command makes the same bytes."""

import errno
import multiprocessing
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from datamodules import UserError
from datamodules.prepare import run
from datamodules.storage import files, shards, writer
from datamodules.storage.lint import findings
from tests.support.fashion_mnist import write_fashion
from tests.support.imagenet import write_imagenet
from tests.support.shards import as_of_format_1, content, make, reader, write

SHORT = {"train": [0, 1, 2, 3], "val": [8]}
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    write(folder, workers=1)
    return content(folder)


def fail_at(call: str, number: int, error: BaseException | None):
    """Makes one call of os fail, or kill its process, the `number`th time in any process. Returns the count that is left."""
    original, left = getattr(os, call), FORK.Value("i", number)

    def counted(*args, **options):
        with left.get_lock():
            left.value -= 1
            due = left.value == 0
        if due and error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if due:
            raise error
        return original(*args, **options)

    setattr(os, call, counted)
    return left


def write_with_failure(folder: Path, call: str, number: int, error: BaseException | None, said: Path) -> None:
    left = fail_at(call, number, error)
    try:
        write(folder, splits=SHORT, workers=1)
        said.write_text(str(number - left.value))
    except UserError as user_error:
        said.write_text(str(user_error))


@pytest.mark.integration
@pytest.mark.parametrize("error", [None, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))], ids=["killed", "full"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_the_same_command_goes_on_after_a_failure_at_every_sync_and_rename(tmp_path, call, error):
    def attempt(number: int) -> str:
        """Fails at one call in a process of its own, and finishes. Returns what the process said."""
        folder, said = tmp_path / f"{number}", tmp_path / f"{number}.said"
        process = FORK.Process(target=write_with_failure, args=(folder, call, number, error, said))
        process.start()
        process.join()
        write(folder, splits=SHORT, workers=1)
        return said.read_text() if said.exists() else "killed"

    calls = int(attempt(10_000))  # none fails
    for number in range(1, calls + 1):
        said = attempt(number)
        assert said == "killed" or said.isdigit() or "run the same command again" in said
        assert content(tmp_path / f"{number}") == content(tmp_path / "10000"), (call, number, said)
    assert calls >= 7  # two shards, each with index and record, and the manifest


def test_a_kill_between_the_manifest_and_the_end_leaves_nothing_behind(tmp_path, whole):
    folder = tmp_path / "tiny"
    write(folder, workers=1)
    for name in (".lock", "train-000000.record.json", "val-000000.tar.part"):
        (folder / name).write_text("left")
    write(folder, workers=1)
    assert content(folder) == whole


def test_records_that_are_damaged_or_of_an_older_format_are_written_again(tmp_path, whole):
    folder = tmp_path / "tiny"
    for damage in (b"", b"{}", b"[", b'{"made_from": "x"}'):
        write(folder, workers=1)
        (folder / shards.MANIFEST).unlink()
        (folder / "train-000000.record.json").write_bytes(damage)
        (folder / "train-000000.tar").write_bytes(b"half")
        write(folder, workers=1)
        assert content(folder) == whole


def write_small_files_only(args: list[str], limit: int, said: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with said.open("w") as sys.stderr:
        status = run(args)
    os._exit(status)


@pytest.mark.parametrize("name", ["imagenet", "fashion_mnist", "composed"])
def test_prepare_goes_on_after_a_full_disk(tmp_path, name):
    source, said = tmp_path / "source", tmp_path / "said"
    options = {
        "imagenet": ["--source", str(source), "--workers", "1"],
        "fashion_mnist": ["--source", str(source)],
        "composed": ["--scenes", "4", "2", "2", "--side", "64"],
    }[name]
    if name != "composed":
        (write_imagenet if name == "imagenet" else write_fashion)(source)
    for out, limit in (("full", 2000), ("whole", None)):
        if limit is not None:
            args = [name, *options, "--out", str(tmp_path / out)]
            process = FORK.Process(target=write_small_files_only, args=(args, limit, said))
            process.start()
            process.join()
            assert process.exitcode == 2
            last = said.read_text().splitlines()[-1]
            assert last.startswith(
                f"error: no space left to write {tmp_path / out} (File too large): free some and run"
            )
        assert run([name, *options, "--out", str(tmp_path / out)]) == 0
    assert content(tmp_path / "full") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file", "cannot be written (File exists)"),
        ("file/below", "cannot be written (Not a directory)"),
        ("/proc/nothing", "cannot be written (No such file or directory)"),
        ("s3://bucket/data", "is a URL: write to a folder of this machine and copy it"),
    ],
)
def test_an_out_that_cannot_be_written_is_told_in_one_line(tmp_path, capsys, out, words):
    (tmp_path / "file").touch()
    out = out if ":" in out or out.startswith("/") else str(tmp_path / out)
    assert run(["dialpad", "--out", out, "--clips", "2", "1", "1", "--workers", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    ("option", "most"),
    [
        (["--workers", "0"], "1,000"),
        (["--workers", "1000000"], "1,000"),
        (["--clips", "3", "-1", "2"], "10,000,000"),
        (["--clips", "3", "1000000000000", "2"], "10,000,000"),
    ],
)
def test_numbers_below_one_or_beyond_use_are_refused(tmp_path, capsys, option, most):
    assert run(["dialpad", "--out", str(tmp_path / "out"), *option]) == 2
    said = " ".join(option[1:])
    assert capsys.readouterr().err == f"error: {option[0]} {said}: use numbers from 1 to {most}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["dialpad", "--workers", "some"], ["dialpads"], ["dialpad", "--out"], []])
def test_a_command_line_that_cannot_be_is_told_in_one_line(capsys, words):
    assert run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("--help`")


def test_every_file_is_synced_before_it_gets_its_name_and_its_folder_after(tmp_path, monkeypatch):
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(number: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{number}")))
        fsync(number)

    def note_rename(source: Path, target: Path) -> None:
        events.append(("rename", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    shards.write_shard(tmp_path / "x.tar", [make(1)])
    parts = [f"{tmp_path}/x.index.json.part", f"{tmp_path}/x.tar.part"]
    assert events == [event for part in parts for event in (("sync", part), ("rename", part), ("sync", str(tmp_path)))]


def test_an_error_leaves_no_partial_file(tmp_path):
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", object())
    with suppress(RuntimeError), files.written_whole(tmp_path / "x.tar") as part:
        part.touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("outdated", [False, True])
def test_reindex_writes_the_bytes_that_prepare_wrote(tmp_path, whole, outdated):
    folder = tmp_path / "tiny"
    write(folder)
    if outdated:
        as_of_format_1(folder)
        assert content(folder) != whole
        (old,) = findings(folder)
        assert old.startswith("manifest: is of an older format, ")
        expected = [reader(folder).read(number) for number in range(8)]
    else:
        (folder / "train-000000.index.json").unlink()
        (folder / "train-000001.index.json").write_text("[[")
        expected = []
    assert run(["reindex", str(folder)]) == 0
    assert content(folder) == whole
    assert expected in ([], [reader(folder).read(number) for number in range(8)])


def test_reindex_refuses_a_damaged_shard(tmp_path, capsys):
    write(tmp_path)
    path = tmp_path / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"train-000001\.tar is missing or damaged \(sha256\): delete"):
        writer.reindex(tmp_path)
    assert {name: bytes_ for name, bytes_ in content(tmp_path).items() if name != ".lock"} == before


def test_a_manifest_with_numbers_as_keys_is_read_back(tmp_path):
    write(tmp_path, made_with={"names": {10: "ten", 9: "nine"}})
    assert shards.read_manifest(tmp_path)["made_with"] == {"names": {"10": "ten", "9": "nine"}}
