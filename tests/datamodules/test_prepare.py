"""The prepare command: names, Fashion-MNIST's files, what Debian packages give, lint and stats."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from datamodules import FashionMNIST, UserError, prepare
from datamodules.core.errors import TooShort
from datamodules.images import prepare_fashion_mnist
from datamodules.storage import debian, shards
from datamodules.storage.lint import findings
from tests.support.fashion_mnist import write_fashion

NOT_INSTALLED = not prepare_fashion_mnist.INSTALLED.is_dir()


def test_help_and_a_misspelt_name_tell_all_names(capsys):
    with pytest.raises(SystemExit):
        prepare.main(["--help"])
    said = capsys.readouterr().out
    assert [name for name in (*prepare.SETS, "lint", "stats") if name not in said] == []
    with pytest.raises(UserError, match="invalid choice: 'fashion'"):
        prepare.main(["fashion"])


@pytest.mark.parametrize("args", [["--ou", "x"], ["--workers", "2"]])
def test_abbreviated_and_unknown_options_are_refused(args):
    with pytest.raises(UserError, match="unrecognized arguments"):
        prepare.main(["fashion_mnist", *args])


def test_fashion_mnist_is_taken_from_a_folder(tmp_path, capsys):
    source, out = write_fashion(tmp_path / "source", train=3, test=3), tmp_path / "out"
    for said in (f"3 + 3 images, from the folder {source}", "already holds Fashion-MNIST"):
        assert prepare.main(["fashion_mnist", "--source", str(source), "--out", str(out)]) == 0
        assert said in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {path.name for path in source.iterdir()}


def test_fashion_mnist_from_a_folder_that_lacks_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path} lacks some of train-images.*set --source to another folder"):
        prepare.main(["fashion_mnist", "--source", str(tmp_path), "--out", str(tmp_path / "out")])


@pytest.mark.skipif(NOT_INSTALLED, reason="needs `apt-get install dataset-fashion-mnist`")
def test_fashion_mnist_of_debian_has_60000_and_10000_images(tmp_path, capsys):
    prepare.main(["fashion_mnist", "--out", str(tmp_path)])
    assert "60,000 + 10,000 images, from the Debian package dataset-fashion-mnist, installed" in capsys.readouterr().out
    data = FashionMNIST(str(tmp_path))
    assert {n: len(data.split(n).keys) for n in ("train", "val", "test")} == {
        "train": 55000,
        "val": 5000,
        "test": 10000,
    }


def test_installed_debian_content_is_used_where_it_lies(tmp_path):
    folder, origin = debian.find_or_unpack(["some-package"], tmp_path, tmp_path / "scratch")
    assert folder == tmp_path
    assert "some-package, installed" in origin
    assert not (tmp_path / "scratch").exists()


def fake_apt(folder: Path, monkeypatch, package: Path | None) -> None:
    """An apt-get that gives one package, or fails as the real one does."""
    folder.mkdir()
    line = f"cp {package} ." if package else "echo 'E: Unable to locate package' >&2; exit 100"
    (folder / "apt-get").write_text(f"#!/bin/sh\n{line}\n")
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb, that is Debian or Ubuntu")
def test_a_debian_package_is_unpacked_without_root(tmp_path, monkeypatch):
    content = tmp_path / "build" / "usr" / "share" / "tiny"
    (tmp_path / "build" / "DEBIAN").mkdir(parents=True)
    content.mkdir(parents=True)
    (content / "file").write_text("hello")
    (tmp_path / "build" / "DEBIAN" / "control").write_text(
        "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: tiny\n"
    )
    package = tmp_path / "tiny_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", tmp_path / "build", package], check=True, capture_output=True)
    fake_apt(tmp_path / "bin", monkeypatch, package)
    folder, origin = debian.find_or_unpack(["tiny"], Path("/usr/share/tiny"), tmp_path / "scratch")
    assert (folder / "file").read_text() == "hello"
    assert folder.is_relative_to(tmp_path)
    assert "downloaded with apt-get and unpacked" in origin


def test_a_package_that_apt_does_not_have_is_named_with_what_to_do(tmp_path, monkeypatch):
    fake_apt(tmp_path / "bin", monkeypatch, None)
    with pytest.raises(
        UserError, match=r"could not download nope \(E: Unable to locate package\): run `apt-get update`"
    ):
        debian.unpack(["nope"], tmp_path / "scratch")


def test_without_apt_the_error_says_how_to_get_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"apt-get is needed to download nope but not installed: set --source"):
        debian.unpack(["nope"], tmp_path / "scratch")


def make(number: int) -> dict:
    if number == 7:
        raise TooShort("7 lasts 0.1 s")
    return {"__key__": f"s{number}", "txt": f"é{number}", "json": {"labels": [number % 3], "seconds": 1800}}


@pytest.fixture
def folder(tmp_path) -> Path:
    splits = {"train": list(range(10)), "val": [10, 11]}
    shards.write_shards(
        tmp_path / "tiny", "tiny", splits, make, made_with={}, licence="CC0", samples_per_shard=5, workers=1
    )
    return tmp_path / "tiny"


def change_manifest(folder: Path, change) -> None:
    manifest = shards.read_manifest(folder)
    change(manifest)
    shards.write_manifest(folder, manifest)


def rewrite(folder: Path, name: str, samples: list[dict]) -> None:
    """Other samples in a shard, its line of the manifest kept right."""
    line = shards.write_shard(folder / name, samples)
    change_manifest(
        folder,
        lambda m: [
            old.update(line) for entry in m["splits"].values() for old in entry["shards"] if old["file"] == line["file"]
        ],
    )


def test_lint_finds_nothing_in_what_was_written(folder, capsys):
    assert prepare.main(["lint", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: no problems found\n"


def flip_a_byte(folder: Path) -> None:
    path = folder / "val-000000.tar"
    content = bytearray(path.read_bytes())
    content[512] ^= 1
    path.write_bytes(content)


def cut(folder: Path) -> None:
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:1600])


def move_index(folder: Path) -> None:
    path = folder / "train-000000.index.json"
    index = json.loads(path.read_text())
    index[2][1]["txt"][0] += 1
    path.write_text(json.dumps(index))


DAMAGES = [
    (flip_a_byte, "val-000000.tar: its bytes have changed since it was written (sha256)"),
    (cut, "train-000001.tar: has 1600 bytes, the manifest says 10240"),
    (lambda f: (f / "train-000000.tar").unlink(), "train-000000.tar: is missing"),
    (move_index, "train-000000.index.json: does not match the tar"),
    (lambda f: (f / "train-000000.index.json").write_text("[["), "train-000000.index.json: cannot be read"),
    (lambda f: (f / "x.tar.part").touch(), "x.tar.part: is not part of the data set"),
    (lambda f: rewrite(f, "val-000000.tar", [make(2), make(11)]), "val-000000.tar: s2 is already in train"),
    (
        lambda f: rewrite(f, "val-000000.tar", [make(10), {"__key__": "s11", "json": b"{"}]),
        "val-000000.tar: s11.json cannot be opened",
    ),
    (
        lambda f: rewrite(f, "val-000000.tar", [make(10), {"__key__": "s11", "jpg": b"no picture"}]),
        "val-000000.tar: s11.jpg cannot be opened",
    ),
    (
        lambda f: rewrite(f, "val-000000.tar", [make(10), {"__key__": "s11", "mp4": b""}]),
        "val-000000.tar: s11.mp4 cannot be opened",
    ),
    (
        lambda f: change_manifest(f, lambda m: m["splits"]["train"].update(unreadable=3)),
        "manifest: 10 train samples were expected, 13 are accounted for",
    ),
    (lambda f: rewrite(f, "val-000000.tar", [make(10)]), "manifest: 2 val samples were written, its shards hold 1"),
    (
        lambda f: change_manifest(f, lambda m: m.update(fingerprint="0")),
        "manifest: the fingerprint does not match the shards",
    ),
]


@pytest.mark.parametrize(("damage", "finding"), DAMAGES, ids=[finding.split(": ")[1][:30] for _, finding in DAMAGES])
def test_lint_names_each_damage_in_one_line(folder, damage, finding, capsys):
    damage(folder)
    assert any(line.startswith(finding) for line in findings(folder))
    assert prepare.main(["lint", str(folder)]) == 1
    assert all(line for line in capsys.readouterr().out.splitlines())


def test_stats_tell_samples_classes_hours_and_what_was_left_out(folder, capsys):
    assert prepare.main(["stats", str(folder)]) == 0
    said = capsys.readouterr().out
    train = next(line for line in said.splitlines() if "train" in line)
    assert [cell.strip() for cell in train.strip("│ \n").split("│")] == [
        *("train", "9 of 10", "2", "0.0", "3", "4.50", "0", "1"),
    ]
    assert "licence: CC0" in said


def test_stats_of_a_folder_without_shards_say_so(tmp_path):
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        prepare.main(["stats", str(tmp_path)])
