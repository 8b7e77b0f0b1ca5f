"""`python -m src.visualize` on real runs: which pictures there are, how large, and where they go."""

from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image

import src.fit as fit
from datamodules import UserError
from src import visualize
from tests.support import ROOT

CONFIGS = ROOT / "configs"
OF_A_PERCEIVER = {
    "training",
    "samples",
    "attention_image",
    "attention_image_latents",
    "importance_image",
    "receptive_field_image",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two epochs on the digits, with pictures at the end of training."""
    folder = tmp_path_factory.mktemp("runs")
    callback = "[{class_path: src.pictures.Pictures, init_args: {samples: 3}}]"
    options = ["--trainer.max_epochs", "2", "--trainer.callbacks", callback, "--runs_dir", str(folder)]
    fit.main(["--config", str(CONFIGS / "digits_perceiver.yaml"), *options])
    return folder / "digits" / "perceiver" / "seed0"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def written(run, tmp_path_factory) -> list[Path]:
    return visualize.main([str(run), "--out", str(tmp_path_factory.mktemp("out")), "--samples", "5"])


def test_a_run_gets_its_pictures(written):
    assert {path.stem for path in written} == OF_A_PERCEIVER
    for path in written:
        height, width, _ = pixels(path).shape
        assert 500 < width < 1500
        assert 150 < height < 1500
        assert path.stat().st_size < 150_000
        assert pixels(path).std() > 10  # something is drawn


def test_the_callback_draws_when_training_has_ended(run):
    found = {path.stem for path in (run / "pictures").iterdir()}
    assert {"val_samples", "attention_image", "attention_image_latents"} <= found


def test_pictures_lie_in_the_run_and_their_paths_are_printed(run, written, capsys):
    many = visualize.main([str(run), "--samples", "20"])
    assert capsys.readouterr().out.split() == [str(path) for path in many]
    assert many[1] == run / "pictures" / "samples.png"
    assert pixels(many[1]).shape[0] > 2 * pixels(written[1]).shape[0]  # more samples make a longer picture


def test_wandb_gets_the_same_pictures_in_a_run_of_its_own(run, written, tmp_path, monkeypatch, request):
    request.addfinalizer(wandb.teardown)  # it reads the environment once
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    again = visualize.main([str(run), "--out", str(tmp_path), "--samples", "5", "--wandb"])
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(written, again, strict=True))
    (folder,) = (run / "wandb").glob("offline-run-*")
    logged = list(folder.glob("files/media/images/pictures/*.png"))
    assert sorted(p.read_bytes() for p in logged) == sorted(p.read_bytes() for p in again)


def test_sight_and_sound_get_pictures_of_both(tmp_path):
    options = ["--data.data_dir", str(tmp_path / "data"), "--data.clips", "[8, 2, 3]", "--data.decode_workers", "1"]
    runs = ["--runs_dir", str(tmp_path / "runs"), "--data.batch_size", "4", "--trainer.max_epochs", "1"]
    fit.main(["--config", str(CONFIGS / "quickstart.yaml"), *options, *runs])
    written = visualize.main([str(tmp_path / "runs/quickstart/dialpad_perceiver/seed0"), "--samples", "3"])
    both = {f"{kind}_{name}" for kind in ("attention", "importance") for name in ("audio", "video")}
    assert {path.stem for path in written} == {
        "training",
        "samples",
        "attention_audio_latents",
        "attention_video_latents",
        *both,
    }


def test_detection_gets_boxes_importance_and_receptive_fields(tmp_path):
    options = ["--data.data_dir", str(tmp_path / "scenes"), "--data.scenes", "[8, 2, 4]", "--data.side", "64"]
    runs = ["--runs_dir", str(tmp_path / "runs"), "--data.batch_size", "4", "--trainer.max_epochs", "1"]
    fit.main(["--config", str(CONFIGS / "composed_resnet.yaml"), *options, *runs])
    written = visualize.main([str(tmp_path / "runs/composed/resnet/seed0"), "--samples", "4"])
    assert {"training", "samples", "receptive_field_image"} <= {path.stem for path in written}


def test_mistakes_raise_user_errors(run, tmp_path):
    with pytest.raises(UserError, match="--samples is 0: pass 1 or more"):
        visualize.main([str(run), "--samples", "0"])
    with pytest.raises(UserError, match=r"has no data.json: give a run folder"):
        visualize.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"nowhere.ckpt is missing"):
        visualize.main([str(run), "--checkpoint", "nowhere"])


def test_of_a_trivial_baseline_samples_are_drawn_and_a_line_says_that_it_has_no_gradient(tmp_path, capsys):
    model = ["--model", "src.tasks.Trivial", "--model.method", "hog", "--runs_dir", str(tmp_path), "--cell", "hog"]
    fit.main(["--config", str(CONFIGS / "digits_perceiver.yaml"), *model])
    capsys.readouterr()
    written = visualize.main([str(tmp_path / "digits" / "hog" / "seed0")])
    assert "samples" in {path.stem for path in written}
    printed = capsys.readouterr()
    assert printed.out.split() == [str(path) for path in written]
    assert "The baseline hog has no gradient" in printed.err
