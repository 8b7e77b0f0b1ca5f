"""Options that cannot be are refused in one line, before a run folder is made; what only looks odd is accepted."""

import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import datamodules
import src.benchmark as benchmark
import src.compare as compare
import src.evaluate as evaluate
import src.fit as fit
import src.visualize as visualize
from datamodules import UserError
from datamodules.core.checks import check_range
from src.config.command import run_command
from src.config.error_messages import is_user_error, one_line
from src.runs.folder import Run
from tests.support import DIGITS, ROOT
from tests.support.run_folders import make_run

TINY = ["--model.backbone.num_latents=2", "--model.backbone.latent_dim=8", "--model.backbone.self_heads=2"]
FEW = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
TRANSFORMER = ["--model.backbone=src.backbones.Transformer", "--model.backbone.dim=8", "--model.backbone.depth=1"]
STEP = ["--model.schedule=src.optim.Step", "--model.schedule.milestones=[0.5]"]
VIT = ["--model.backbone=src.backbones.ViT", "--model.backbone.name=vit_tiny_patch16_224"]


def refused(main, args: list[str]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the parser's own errors are no UserErrors)
        main(args)
    assert is_user_error(caught.value), repr(caught.value)
    line = one_line(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer.max_steps=0"], "--trainer.max_steps is 0: pass 1"),
        (["--trainer.max_epochs=-2"], "--trainer.max_epochs is -2"),
        (["--trainer.limit_train_batches=0"], "limit_train_batches is 0"),
        (["--trainer.limit_test_batches=0.0"], "limit_test_batches is 0"),
        (["--trainer.limit_train_batches=.nan"], "limit_train_batches"),
        (["--trainer.min_steps=5"], "min_steps is 5, which is more than max_steps, 1"),
        (["--trainer.min_epochs=9", "--trainer.max_epochs=3"], "min_epochs is 9, which is more than max_epochs, 3"),
        (["--trainer.num_sanity_val_steps=-2"], "num_sanity_val_steps is -2"),
        (["--trainer.gradient_clip_val=.inf"], "gradient_clip_val is inf"),
        (["--trainer.devices=1000000"], "devices is 1000000"),
        (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is 0"),
        (["--trainer.gradient_clip_val=-1"], "gradient_clip_val is -1"),
        (["--trainer.accelerator=tpu"], "torch_xla"),
        (["--trainer.devices=-3"], "devices"),
        (["--trainer.devices=0"], "devices"),
        (["--trainer.precision=bogus"], "bogus"),
        (["--trainer.strategy=bogus"], "bogus"),
        (["--trainer.profiler=bogus"], "profiler"),
        (["--trainer.max_time=soon"], "soon|max_time"),
        (["--seed_everything=-1"], "seed_everything"),
        (["--seed_everything=4294967296"], "seed_everything"),
        (["--data.batch_size=0"], "batch_size is 0: pass 1"),
        (["--data.num_workers=-1"], "num_workers is -1"),
        (["--data.bands=-1"], "bands is -1"),
        (["--data.classes=[11]"], "11"),
        (["--model.backbone.num_latents=0"], "num_latents is 0: pass 1"),
        (["--model.backbone.latent_dim=0"], "latent_dim is 0: pass 1"),
        (["--model.backbone.widening=0"], "widening is 0: pass 1"),
        (["--model.backbone.cross_heads=1000"], "cross_heads is 1000"),
        (["--model.backbone.self_attends_per_block=1000000000"], "self_attends_per_block is 1000000000"),
        (["--model.backbone.modality_dropout={image: 1.7}"], "modality_dropout is .*1.7"),
        (["--model.backbone.modality_dropout={image: .nan}"], "modality_dropout is .*nan"),
        (["--model.dropout=-0.1"], "dropout is -0.1: pass 0 to 1"),
        (["--model.label_smoothing=2"], "label_smoothing is 2.0"),
        (["--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=-1"], "optimizer cannot be made .*-1"),
        (["--model.optimizer=torch.optim.AdamW", "--model.optimizer.betas=[2, 3]"], "optimizer cannot be made"),
        ([*STEP, "--model.schedule.gamma=-1"], "gamma is -1"),
        ([*TRANSFORMER, "--model.backbone.heads=3"], "dim 8 does not divide by heads 3"),
        ([*TRANSFORMER, "--model.backbone.heads=2", "--model.backbone.max_side=0"], "max_side is 0"),
        ([*VIT, "--model.backbone.patch=0"], "patch is 0"),
        ([*VIT, "--model.backbone.depth=0"], "depth is 0"),
        (["--model.backbone=src.backbones.ResNet", "--model.backbone.name=resnet1"], "unknown timm model 'resnet1'"),
        (["--model.backbone=src.backbones.LambdaNet", "--model.backbone.widths=[]"], "stages is 0"),
        (["--model.backbone=src.backbones.LambdaNet", "--model.backbone.patch={image: 0}"], "patch is"),
        (["--model.backbone=src.backbones.LambdaNet", "--model.backbone.scope=4"], "even scope"),
        (["--model.backbone=src.backbones.LambdaResNet", "--model.backbone.heads=0"], "heads is 0"),
        (["--experiment="], "--experiment is ''"),
        (["--experiment=../../x"], "--experiment is '../../x'"),
        (["--cell=/abs"], "--cell is '/abs'"),
        (["--cell=a\nb"], "--cell is"),
        (["--cell=.."], r"--cell is '\.\.'"),
        (["--cell=" + "x" * 300], "--cell is"),
        (["--cell=-x"], "--cell is '-x'"),
        (["--trust=[jsonargparse]"], "--trust jsonargparse"),
        (["--trust=[a b/c]"], "--trust"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named_and_leaves_no_run_folder(options, said, tmp_path):
    small = [] if any("backbone=" in word for word in options) else TINY
    line = refused(fit.main, ["--config", DIGITS, "--runs_dir", str(tmp_path / "runs"), *FEW, *small, *options])
    assert re.search(said, line), line
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "file" in refused(fit.main, ["--config", DIGITS, "--runs_dir", str(tmp_path / "file"), *FEW, *TINY])
    assert "/proc/here" in refused(fit.main, ["--config", DIGITS, "--runs_dir", "/proc/here", *FEW, *TINY])
    monkeypatch.setenv("WANDB_MODE", "bogus")
    assert "WANDB_MODE is 'bogus'" in refused(fit.main, ["--config", DIGITS, "--runs_dir", str(tmp_path), *FEW, *TINY])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return fit.main(["--config", DIGITS, "--runs_dir", str(tmp_path_factory.mktemp("runs")), *FEW, *TINY]).folder


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another architecture", "no weights"])
def test_a_checkpoint_that_does_not_fit_is_named(damage, finished, tmp_path):
    import torch

    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    if damage in ("truncated", "empty", "text"):
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    else:
        wrong = {"state_dict": {"x": torch.zeros(1)}} if damage == "another architecture" else {"epoch": 1}
        torch.save(wrong, path)
    for main, words in ((evaluate.main, ["--run"]), (visualize.main, [])):
        line = refused(main, [*words, str(tmp_path / "run")])
        assert "checkpoint" in line or "last.ckpt" in line


@pytest.mark.parametrize("checkpoint", ["first", "../../last", ""])
def test_a_checkpoint_that_is_not_there_is_named(checkpoint, finished):
    refused(evaluate.main, ["--run", str(finished), "--checkpoint", checkpoint])


def test_predictions_that_cannot_be_are_named(tmp_path):
    for number, arrays in enumerate(
        (
            {},
            {"sample": np.arange(3)},
            {"sample": np.arange(3), "target": np.arange(2), "predicted": np.arange(3)},
            {"sample": np.arange(3), "target": np.array([0, 1, 2**40]), "predicted": np.arange(3)},
            {"sample": np.arange(3), "target": np.arange(3), "predicted": np.array(["a", "b", "c"])},
            {"sample": np.arange(3), "target": np.arange(3), "predicted": np.array([{}, 1, 2], dtype=object)},
            {"sample": np.arange(0), "target": np.arange(0), "predicted": np.arange(0)},
        )
    ):
        runs = tmp_path / str(number)
        for cell in ("a", "b"):
            run = make_run(runs, cell, 0)
        np.savez(run / "predictions.npz", **arrays)
        with pytest.raises(UserError, match=r"predictions.npz cannot be read"):
            compare.main([str(runs)])


def test_tables_go_to_files_alone(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "runs", "a", 0)
    (tmp_path / "file").write_text("")
    for option in ("--csv", "--markdown", "--latex", "--html"):
        for target in (tmp_path, tmp_path / "file" / "x.html"):
            monkeypatch.setattr(sys, "argv", ["src/compare.py", str(run), option, str(target)])
            with pytest.raises(SystemExit) as stopped:
                run_command(compare.main)
            assert stopped.value.code == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {target} cannot be written")


def test_spreadsheets_tables_and_pages_take_names_for_text(tmp_path):
    names = [
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@x",
        "a|b",
        "[x](http://y)",
        "<img src=x>",
        "50%_\\input{x}",
        "$x^2$",
        "a\nb",
        "\x1b[31m",
    ]
    for number, cell in enumerate(names):
        make_run(tmp_path / "runs" / str(number), "a", 0, results={"cell": cell, "experiment": "=1"})
    paths = {form: tmp_path / f"x.{form}" for form in ("csv", "markdown", "latex", "html")}
    compare.main([str(tmp_path / "runs"), *(word for form, path in paths.items() for word in (f"--{form}", str(path)))])
    for path in (paths["csv"], tmp_path / "x_cells.csv"):
        import pandas as pd

        table = pd.read_csv(path)
        assert set(table["cell"]) == {f"'{n}" if n[0] in "=+-@" else n for n in [*names[:-2], "a\\nb", "\\x1b[31m"]}
        assert set(table["experiment"]) == {"'=1"}
        assert table["parameters"].dtype.kind in "if"  # numbers stay numbers, negative ones too
    for path in paths.values():
        assert "\x1b" not in path.read_text()
    lines = paths["markdown"].read_text().splitlines()
    table = lines[: lines.index("")]
    assert len(table) == 2 + len(names)
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "[x](http" not in paths["markdown"].read_text()
    assert "<img" not in paths["html"].read_text() + paths["markdown"].read_text().replace("\\<", "")
    assert [line for line in paths["latex"].read_text().splitlines() if "\\input{" in line and line[0] != "%"] == []


def test_the_progress_bar_can_be_left_out_and_loggers_named_true(tmp_path):
    words = ["--config", DIGITS, "--runs_dir", str(tmp_path), *FEW, *TINY]
    run = fit.main([*words, "--trainer.enable_progress_bar=false", "--trainer.logger=true"])
    assert Run(run.folder).finished
    assert (ROOT / "src").is_dir()


def test_numbers_outside_are_named_with_the_limits():
    check_range(0, 1, one=0, two=1.0, three=None, four=[0.5, None], five={"a": 1})
    for value in (-0.1, 1.1, float("nan"), float("inf"), [0, 2], {"a": -1}):
        with pytest.raises(UserError, match=r"share is .*: pass 0 to 1"):
            check_range(0, 1, share=value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ImageNet", {"classes": -3}, "classes is -3"),
        ("ImageNet", {"classes": 10**12}, "classes is"),
        ("ImageNet", {"randaugment_layers": -1}, "randaugment_layers is -1"),
        ("ImageNet", {"randaugment_magnitude": 31}, "randaugment_magnitude is 31: pass 0 to 30"),
        ("ImageNet", {"mixup": math.nan}, "mixup nan"),
        ("ImageNet", {"cutmix": math.inf}, "cutmix inf"),
        ("ImageNet", {"side": 0}, "is .*0"),
        ("AudioSet", {"num_classes": 0}, "num_classes is 0"),
        ("AudioSet", {"side": 0}, "side is 0"),
        ("AudioSet", {"crop_area": 0.0}, "crop_area is 0.0"),
        ("AudioSet", {"crop_area": 2.0}, "crop_area is 2.0"),
        ("AudioSet", {"colour": -1.0}, "colour is -1.0"),
        ("AudioSet", {"eval_clips": 0}, "eval_clips is 0"),
        ("AudioSet", {"audio": "mel", "spec_augment": (-1, 2)}, "spec_augment is"),
        ("Dialpad", {"clips": (1, 0, 1)}, "clips is"),
        ("LanguageId", {"eval_clips": -1}, "eval_clips is -1"),
        ("ModelNet40", {"jitter": -0.1}, "jitter is -0.1"),
        ("ModelNet40", {"points": 0}, "elements is 0"),
        ("ModelNet40", {"max_frequency": math.inf}, "max_frequency is inf"),
        ("Furniture", {"stretch": 1.5}, "stretch is 1.5"),
        ("Furniture", {"fold": 5}, "fold 5"),
        ("Coco", {"held_out": -1}, "held_out is -1"),
        ("Coco", {"scale_jitter": (0.5, math.inf)}, "scale_jitter"),
        ("Composed", {"scenes": (0, 1, 1)}, "scenes is"),
        ("Digits", {"seed": -1}, "seed is -1"),
        ("Digits", {"batch_size": 10**9}, "batch_size is 1000000000"),
    ],
)
def test_an_option_of_a_data_set_that_cannot_be_is_named(name, options, said):
    with pytest.raises(UserError, match=said):
        getattr(datamodules, name)(**options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["backbones", "--rounds", "0"], "--rounds is 0: pass 1"),
        (["backbones", "--rounds", "-3"], "--rounds is -3"),
        (["backbones", "--rounds", "many"], "invalid int value: 'many'"),
        (["backbones", "--device", "bogus"], "--device bogus: .*: pass cpu or cuda"),
        (["backbones", "--device", "cuda:99"], "--device cuda:99: .*: pass cpu or cuda"),
        (["backbones", "--precision", "8"], "invalid choice: '8'"),
        (["lambda", "--parts", "none"], "invalid choice: 'none'"),
        (["perceiver", "--shapes", "huge"], "invalid choice: 'huge'"),
        (["startup", "--before", "/tmp"], "--before /tmp holds no src/fit.py"),
        (["speed"], "invalid choice: 'speed'"),
        ([], "NAME"),
    ],
)
def test_options_of_a_benchmark_that_cannot_be_are_named(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(said, refused(benchmark.main, words))
    assert not list(tmp_path.iterdir())
