"""Checkpoints: every damage is found when they are read, and the one before takes over; kills leave one that is whole."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import UserError
from src.runs import checkpoints
from src.runs.checkpoints import BEST, LAST, PREVIOUS, digest_path, load_checkpoint, newest_checkpoint
from tests.support import ROOT


def save(folder: Path, step: int, best: bool = False) -> None:
    content = io.BytesIO()
    torch.save({"global_step": step, "state_dict": {"w": torch.arange(100.0) + step}}, content)
    checkpoints.replace_checkpoints(folder, content.getbuffer(), best)


def step_of(path: Path) -> int:
    return load_checkpoint(path)["global_step"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for step in (1, 2):
        save(tmp_path, step, best=step == 1)
    return tmp_path


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_last_previous_and_best_are_kept_apart(folder):
    assert [step_of(folder / name) for name in (LAST, PREVIOUS, BEST)] == [2, 1, 1]
    save(folder, 3, best=True)
    assert [step_of(folder / name) for name in (LAST, PREVIOUS, BEST)] == [3, 2, 3]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}{suffix}" for name in (LAST, PREVIOUS, BEST) for suffix in ("", ".sha256")
    )


def test_every_bit_that_flips_is_found_and_the_checkpoint_before_is_resumed_from(folder, capsys):
    last, whole = folder / LAST, (folder / LAST).read_bytes()
    for bit in np.random.default_rng(0).integers(8 * len(whole), size=150):
        flip(last, int(bit))
        with pytest.raises(UserError, match=r"last.ckpt cannot be read \(it is damaged"):
            load_checkpoint(last)
        last.write_bytes(whole)
    flip(last, 4000)
    assert newest_checkpoint(folder)[0].name == PREVIOUS
    assert "last.ckpt cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("with_digest", [True, False], ids=["new run", "old run"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_every_truncation_falls_back_to_the_checkpoint_before(folder, share, with_digest, capsys):
    content = (folder / LAST).read_bytes()
    (folder / LAST).write_bytes(content[: int(share * len(content))])
    if not with_digest:
        digest_path(folder / LAST).unlink()
    path, content = newest_checkpoint(folder)
    assert (path.name, content["global_step"]) == (PREVIOUS, 1)
    assert "trying the one before it" in capsys.readouterr().err


def test_where_none_can_be_read_the_run_does_not_begin_anew_unasked(folder):
    for name in (LAST, PREVIOUS):
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read: leave --resume out"):
        newest_checkpoint(folder)


def test_a_checkpoint_of_an_old_run_has_no_digest_and_its_tensors_are_checked_all_the_same(tmp_path):
    path = tmp_path / LAST
    shutil.copy(ROOT / "tests" / "first_house" / "finished" / "seed0" / "checkpoints" / LAST, path)
    tensors = load_checkpoint(path)["state_dict"]
    where = path.read_bytes().find(max(tensors.values(), key=lambda tensor: tensor.numel()).numpy().tobytes())
    assert where > 0
    flip(path, 8 * where + 5)
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(path)


def test_an_old_run_that_goes_on_keeps_its_old_checkpoint_as_the_one_before(folder):
    for path in folder.glob("*.sha256"):
        path.unlink()
    save(folder, 3)
    assert [step_of(folder / name) for name in (LAST, PREVIOUS)] == [3, 2]
    assert not digest_path(folder / PREVIOUS).exists()


def test_a_power_cut_between_any_two_renames_leaves_the_newest_whole_checkpoint(folder, tmp_path_factory, monkeypatch):
    rename = os.replace
    seen = []
    for number in range(100):
        copy = tmp_path_factory.mktemp("cut") / "checkpoints"
        shutil.copytree(folder, copy)
        done = 0

        def cut(source, target, number=number):
            nonlocal done
            done += 1
            if done > number:
                raise KeyboardInterrupt  # nothing after it happens
            rename(source, target)

        monkeypatch.setattr(os, "replace", cut)
        try:
            save(copy, 3, best=True)
        except KeyboardInterrupt:
            _, content = newest_checkpoint(copy)
            seen.append(content["global_step"])
            assert step_of(copy / BEST) in (1, 3)
            continue
        finally:
            monkeypatch.setattr(os, "replace", rename)
        break
    assert seen == sorted(seen)
    assert set(seen) == {2}
    assert number == 6


def test_best_is_kept_where_there_are_no_hard_links(folder, monkeypatch):
    def refuse(source, target):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(folder, 3, best=True)
    assert [step_of(folder / name) for name in (LAST, BEST)] == [3, 3]
