"""Option names are checked from source: what the parser takes is never refused, what it refuses is told without torch."""

import pytest

from datamodules import UserError
from src.config.help import choices, find_class
from src.config.option_names import check_option_names
from src.config.signatures import TRAINER, parameters
from tests.support import DIGITS

CLASSES = [
    *(f"{package}.{name}" for package in ("datamodules", "src.tasks", "src.backbones") for name in choices(package)),
    *("timm.optim.Lamb", "torch.optim.AdamW", "torch.optim.SGD", "src.optim.Cosine", "src.optim.Step", TRAINER),
]


@pytest.mark.parametrize("class_path", CLASSES)
def test_all_options_that_the_parser_takes_are_found_in_the_source(class_path):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(add_help=False)
    parser.add_class_arguments(find_class(class_path), "x", fail_untyped=False)
    taken = {action.dest.split(".")[1] for action in parser._actions if action.dest.startswith("x.")}
    assert taken - {"data_spec", "params"} <= set(parameters(class_path))


@pytest.mark.parametrize(
    "words",
    [
        ["--model.backbone", "src.backbones.LambdaNet", "--model.backbone.key_depth", "8"],
        ["--model.backbone=LambdaNet", "--model.backbone.key_depth=8"],
        ["--model.backbone.class_path", "src.backbones.LambdaNet", "--model.backbone.init_args.key_depth", "8"],
        ["--model.backbone", "somewhere.else.Network", "--model.backbone.anything", "8"],
        ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.momentum", "0.9"],
        ["--trainer.callbacks+=src.training.SettleBatchNorms", "--trainer.callbacks.batches=2"],
        ["--data.init_args.batch_size", "8", "--data.dict_kwargs.x", "1", "--print_config"],
    ],
)
def test_right_options_pass_whichever_way_they_are_written(words):
    check_option_names(["--config", DIGITS, *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.optimzer.lr", "1"], "src.tasks.Classification has no option 'optimzer': did you mean optimizer?"),
        (["--model.optimizer.lrr=1"], "timm.optim.Lamb has no option 'lrr': did you mean lr?"),
        (["--model.backbone=src.backbones.LambdaNet", "--model.backbone.dims=8"], "LambdaNet has no option 'dims'"),
        (["--model.backbone", "src.backbones.LambdaNet", "--model.backbone.num_latents", "8"], "LambdaNet has no"),
    ],
)
def test_a_misspelt_option_is_told_with_its_class(words, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        check_option_names(["--config", DIGITS, *words])


@pytest.mark.parametrize("path", [".x", "a..b", "x\0y.Z", "../etc.passwd", "torch/optim.SGD"])
def test_what_is_no_class_path_is_left_to_the_parser(path, tmp_path):
    assert parameters(path) is None
    config = tmp_path / "config.yaml"
    config.write_text("data: {class_path: datamodules.Digits, init_args: [1]}\nmodel: {class_path: 3, init_args: x}\n")
    check_option_names(["--config", str(config), "--data.batch_size", "1", "--model", path, "--model.anything", "1"])
