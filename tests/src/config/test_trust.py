"""Strangers' configs run no code, in any command; the trainer's overlays mean what they say."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

import src.evaluate as evaluate
import src.fit as fit
import src.reproduce as reproduce
import src.visualize as visualize
from datamodules import UserError
from src.config.error_messages import is_user_error, one_line
from src.runs.folder import Run
from src.suites.definition import load_suite
from tests.support import DIGITS, ROOT

CELL = ["--config", DIGITS, "--trainer.max_steps", "4"]
STEPS = ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A file that the module `evil` leaves when it is imported, and commands of attacks when they are run."""
    left = tmp_path / "left"
    text = f"open({str(left)!r}, 'w')\nfrom src.backbones import Transformer\nclass Model(Transformer): pass\n"
    (tmp_path / "evil.py").write_text(
        f"{text}def make(data_spec=None, command='') -> Transformer: return Transformer(data_spec)"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield left
    sys.modules.pop("evil", None)


def refused(main, args: list[str], left: Path) -> str:
    """The line that a command ends with, which has imported and called nothing."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the parser's own errors are no UserErrors)
        main(args)
    assert is_user_error(caught.value), caught.value
    assert not left.exists()
    assert "evil" not in sys.modules
    return one_line(caught.value)


def calling(path: str, **options: object) -> dict:
    return {"class_path": path, "init_args": options}


def attacks(left: Path) -> dict[str, dict]:
    """Options that would leave the file, by what they try."""
    touch = f"touch {left}"
    shell, torch_run = calling("os.system", command=touch), calling("torch.utils.collect_env.run", command=touch)
    lightning = "lightning.pytorch"
    hook = calling(f"{lightning}.callbacks.LambdaCallback", on_fit_start="src.runs.folder.os.getcwd")
    return {
        "a function of a library as backbone": {"model.init_args.backbone": torch_run},
        "as optimizer": {"model.init_args.optimizer": torch_run},
        "as schedule": {"model.init_args.schedule": torch_run},
        "as data": {"data": torch_run},
        "as model": {"model": torch_run},
        "as callback": {"trainer.callbacks": [torch_run]},
        "as logger": {"trainer.logger": torch_run},
        "as strategy": {"trainer.strategy": torch_run},
        "as accelerator": {"trainer.accelerator": torch_run},
        "as profiler": {"trainer.profiler": torch_run},
        "as plugin": {"trainer.plugins": [torch_run]},
        "a shell": {"model.init_args.backbone": shell},
        "a process as callback": {"trainer.callbacks": [calling("subprocess.Popen", args=["touch", str(left)])]},
        "a shell through a module of ours": {
            "model.init_args.backbone": calling("src.runs.folder.os.system", command=touch)
        },
        "by the package's other name": {
            "model.init_args.backbone": calling("bytebench.runs.folder.os.system", command=touch)
        },
        "through the parser's module": {"data": calling("src.cli.base.os.system", command=touch)},
        "through a class": {"data": calling("src.runs.folder.Run.__init__.__globals__.os.system", command=touch)},
        "a checkpoint that is code": {"model.init_args.backbone": calling("torch.load", f="x.pt", weights_only=False)},
        "a repository": {"model.init_args.backbone": calling("torch.hub.load", repo_or_dir="x", model="y")},
        "a function of ours": {"model.init_args.backbone": calling("src.api.load_run", run="x")},
        "timm with any name": {"model.init_args.backbone": calling("timm.create_model", model_name="resnet18")},
        "eval": {"model.init_args.backbone": calling("builtins.eval", source="1")},
        "partial": {"model.init_args.backbone": calling("functools.partial", func="os.system")},
        "the parser's own settings": {"model.init_args.backbone": calling("jsonargparse.set_parsing_settings")},
        "checkpoints of ours anywhere": {
            "trainer.callbacks": [
                calling("src.training.checkpointing.Checkpointing", folder=str(left), monitor="top1", saving=True)
            ]
        },
        "a logger of ours anywhere": {
            "trainer.logger": calling("src.runs.wandb_logger.PatientWandbLogger", folder=str(left), run_id="x")
        },
        "a hook": {"trainer.callbacks": [hook]},
        "a logger that writes anywhere": {
            "trainer.logger": calling(f"{lightning}.loggers.CSVLogger", save_dir=str(left))
        },
        "a profiler that writes anywhere": {
            "trainer.profiler": calling(
                f"{lightning}.profilers.SimpleProfiler", dirpath=str(left.parent), filename="left"
            )
        },
        "checkpoints anywhere": {
            "trainer.callbacks": [calling(f"{lightning}.callbacks.ModelCheckpoint", dirpath=str(left))]
        },
        "a class of another package": {"model.init_args.backbone": {"class_path": "evil.Model"}},
        "without init_args": {"model.init_args.backbone": "evil.Model"},
        "a factory of another package": {"model.init_args.backbone": {"class_path": "evil.make"}},
        "as text": {"model.init_args.backbone": json.dumps({"class_path": "evil.Model"})},
        "as text of a whole model": {
            "model": yaml.safe_dump(calling("src.tasks.Classification", backbone="evil.Model"))
        },
        "in dict_kwargs": {"model.init_args.backbone": {"class_path": "src.backbones.Perceiver", "dict_kwargs": shell}},
        "in the options of a class": {"model.init_args.optimizer": calling("torch.optim.AdamW", betas=torch_run)},
        "in a callback's function": {
            "trainer.callbacks": [
                calling(f"{lightning}.callbacks.StochasticWeightAveraging", swa_lrs=0.1, avg_fn="os.getcwd")
            ]
        },
        "as an option's name": {"Option 'a' is not accepted given class_path 'evil.Model'": 1},
        "in an error message": {
            "trainer.max_epochs": "Option 'a' is not accepted given class_path 'evil.Model', No module named 'evil'"
        },
        "a tag": {"model.init_args.backbone": "!!python/object/apply:os.system [x]"},
        "trust itself": {"trust": ["evil"], "model.init_args.backbone": {"class_path": "evil.Model"}},
    }


def with_options(config: dict, options: dict) -> dict:
    """A config with some of its values, by their dotted names, changed."""
    for name, value in options.items():
        *parents, last = name.split(".") if " " not in name else [name]
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    return config


@pytest.mark.parametrize("attack", attacks(Path("left")))
def test_nothing_that_a_config_names_beyond_its_place_is_imported_or_called(attack, evil, tmp_path):
    config = yaml.safe_load(Path(DIGITS).read_text())
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(with_options(config, attacks(evil)[attack])))
    line = refused(fit.main, ["--config", "given.yaml"], evil)
    assert "\n" not in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "hidden",
    [
        "config.txt",
        "config",
        "named by a config",
        "named by data",
        "json",
        "a value",
        "the command line",
        "another --config",
    ],
)
def test_where_a_config_is_written_makes_no_difference(hidden, evil, tmp_path):
    config = with_options(
        yaml.safe_load(Path(DIGITS).read_text()), {"model.init_args.backbone": {"class_path": "evil.Model"}}
    )
    text = yaml.safe_dump(config)
    files = {
        "config.txt": ("config.txt", text),
        "config": ("config", text),
        "named by a config": ("outer.yaml", "config: inner\n"),
        "named by data": ("outer.txt", yaml.safe_dump({**yaml.safe_load(Path(DIGITS).read_text()), "model": "model"})),
        "json": ("config.json", json.dumps(config)),
        "another --config": ("last.cfg", yaml.safe_dump({"model": {"init_args": {"backbone": "evil.Model"}}})),
    }
    (tmp_path / "inner").write_text(text)
    (tmp_path / "model").write_text(yaml.safe_dump(config["model"]))
    args = {
        "a value": [*CELL, "--model", yaml.safe_dump(config["model"])],
        "the command line": [*CELL, "--model.backbone", "evil.Model"],
    }
    if hidden in files:
        name, content = files[hidden]
        (tmp_path / name).write_text(content)
        args[hidden] = [*(CELL if hidden == "another --config" else []), "--config", name]
    line = refused(fit.main, args[hidden], evil)
    assert "evil.Model is none of the classes that a config may name" in line or hidden == "named by a config"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two steps."""
    return fit.main(
        [*CELL, *STEPS, "--trainer.max_steps", "2", "--runs_dir", str(tmp_path_factory.mktemp("runs"))]
    ).folder


@pytest.mark.parametrize(
    ("main", "words"),
    [(evaluate.main, ["--run"]), (visualize.main, []), (reproduce.main, [])],
    ids=["evaluate", "visualize", "reproduce"],
)
@pytest.mark.parametrize("attack", ["a function of a library as backbone", "a class of another package", "as data"])
def test_a_strangers_run_folder_runs_nothing(main, words, attack, finished, evil, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(with_options(config, attacks(evil)[attack])))
    refused(main, [*words, str(tmp_path / "run")], evil)
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    refused(main, [*words, str(tmp_path / "linked")], evil)


def test_weights_of_a_stranger_are_tensors_alone(evil, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "good.ckpt")
    with zipfile.ZipFile(tmp_path / "good.ckpt") as good, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as bad:
        for name in good.namelist():
            code = b"cbuiltins\nopen\n(V" + str(evil).encode() + b"\nVw\ntR."
            bad.writestr(name, code if name.endswith("data.pkl") else good.read(name))
    probe = [
        "--model",
        "src.tasks.LinearProbe",
        "--model.weights",
        str(tmp_path / "bad.ckpt"),
        "--trainer.max_epochs",
        "1",
    ]
    given = ["--config", str(ROOT / "configs/digits_perceiver.yaml"), "--runs_dir", str(tmp_path / "runs")]
    assert "bad.ckpt cannot be read" in refused(fit.main, [*given, *probe], evil)


@pytest.mark.parametrize(
    "overrides",
    [
        {"trust": "[evil]"},
        {"trust=[evil]": 1},
        {"data.bands": "--trust=[evil]"},
        {"config": "evil.yaml"},
        {"model.help": "evil.Model"},
        {"runs_dir": "elsewhere"},
        {"cell": "../../x"},
    ],
)
def test_a_suite_changes_no_more_than_what_is_trained(overrides, tmp_path):
    (tmp_path / "suites").mkdir()
    shutil.copy(DIGITS, tmp_path / "digits.yaml")
    path = tmp_path / "suites" / "given.yaml"
    path.write_text(
        yaml.safe_dump({"source": "x", "config": "digits", "variants": [{"name": "a", "overrides": overrides}]})
    )
    with pytest.raises(UserError, match=r"no option that a suite changes|does not start with --"):
        load_suite(path)


def test_classes_of_a_trusted_package_are_let_through_but_no_functions_and_no_other_packages(evil, tmp_path):
    small = [*CELL, "--runs_dir", str(tmp_path / "runs"), "--trainer.max_steps", "1", *STEPS]
    options = ["--model.backbone", "evil.Model", "--model.backbone.dim", "16", "--model.backbone.heads", "2"]
    run = fit.main([*small, *options, "--model.backbone.depth", "1", "--trust", "[evil]"])
    assert run.config()["model"]["init_args"]["backbone"]["class_path"] == "evil.Model"
    assert evaluate.main(["--run", str(run.folder), "--trust", "[evil]"])
    with pytest.raises(UserError, match="a config may name classes alone"):
        fit.main([*small, "--model.backbone", "evil.make", "--trust", "[evil]"])
    evil.unlink()
    sys.modules.pop("evil")
    assert "add --trust '[evil]'" in refused(evaluate.main, ["--run", str(run.folder)], evil)
    assert "add --trust '[evil]'" in refused(fit.main, ["--model.help", "evil.Model"], evil)


def test_programs_that_call_fit_keep_their_own_parsers(tmp_path):
    from jsonargparse import ArgumentParser

    with pytest.raises(UserError):
        fit.main([*CELL, "--experiment", "a/b"])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--kind", type=type)
    assert parser.parse_args(["--kind", "collections.OrderedDict"]).kind.__name__ == "OrderedDict"


def weights(tmp_path: Path, name: str, *options: str) -> dict:
    fit.main([*CELL, *STEPS, "--runs_dir", str(tmp_path / name), *options])
    return Run(tmp_path / name / "digits" / "perceiver" / "seed0").weights()


def test_accumulation_makes_the_same_steps_of_smaller_batches(tmp_path):
    whole = weights(tmp_path, "whole")
    overlay = ["--config", str(ROOT / "configs" / "trainer" / "accumulate.yaml"), "--data.batch_size", "8"]
    parts = weights(tmp_path, "parts", *overlay)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


def test_bfloat16_trains_on_float32_weights(tmp_path):
    whole = weights(tmp_path, "whole")
    mixed = weights(tmp_path, "mixed", "--config", str(ROOT / "configs" / "trainer" / "bf16.yaml"))
    assert all(value.dtype == whole[name].dtype for name, value in mixed.items())
    assert any(not torch.equal(value, whole[name]) for name, value in mixed.items())


def test_a_compiled_backbone_leaves_the_same_names_in_its_checkpoint(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *args, **kwargs: compiled.append(type(self).__name__))
    names = weights(tmp_path, "compiled", "--config", str(ROOT / "configs" / "trainer" / "compile.yaml")).keys()
    assert compiled == ["Perceiver"]
    assert not any("_orig_mod" in name for name in names)


def test_a_suite_imports_nothing_that_a_finished_run_names(tmp_path, monkeypatch):
    from src.cli import check_options

    (tmp_path / "stranger.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = yaml.safe_load(Path(DIGITS).read_text())
    config["model"]["init_args"]["backbone"] = {"class_path": "stranger.Network"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(Exception, match=r"stranger\.Network"):
        check_options(Run(tmp_path), ["--config", DIGITS])
    assert "stranger" not in sys.modules
