"""What a result depends on, and what it does not."""

import json
from copy import deepcopy

import pytest
import yaml

from src.runs.environment import dirty
from src.runs.files import digest_of
from src.runs.identity import changes, identity

CONFIG = {
    "seed_everything": 0,
    "runs_dir": "runs",
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "log_every_n_steps": 10},
    "model": {
        "class_path": "src.tasks.LinearProbe",
        "init_args": {"weights": "runs/tiny/a/seed0", "lr": 1e-5, "data_spec": {"task": "single_label"}},
    },
    "data": {"class_path": "datamodules.Digits", "init_args": {"num_workers": 2, "batch_size": 64}},
}
DATA = {"dataset": "Digits", "fingerprint": "a", "splits": {"test": {"samples": 3}}, "spec": {}}


def changed(where: str, value: object) -> dict:
    config = deepcopy(CONFIG)
    place = config
    *parents, last = where.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("trainer.accelerator", "gpu"),
        ("trainer.log_every_n_steps", 1),
        ("data.init_args.num_workers", 0),
        ("model.init_args.data_spec", {}),
        ("model.class_path", "bytebench.tasks.LinearProbe"),
        ("model.init_args.lr", 0.00001),
        ("trainer.max_epochs", 3.0),
    ],
)
def test_places_do_not_change_the_identity(where, value):
    assert identity(changed(where, value), DATA) == identity(CONFIG, DATA)
    assert changes(CONFIG, changed(where, value)) == {}


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("seed_everything", 1),
        ("trainer.max_epochs", 4),
        ("model.init_args.weights", "runs/tiny/b/seed0"),
        ("data.init_args.batch_size", 32),
        ("data.init_args.bands", None),
    ],
)
def test_what_a_result_depends_on_changes_the_identity_and_is_named(where, value):
    other = changed(where, value)
    assert identity(other, DATA) != identity(CONFIG, DATA)
    if where != "data.init_args.bands":  # absent and null are one to a reader of messages, not to the hash
        assert list(changes(CONFIG, other)) == [where]


def test_data_and_code_change_the_identity_and_the_folder_of_runs_does_not():
    whole = identity(CONFIG, DATA)
    assert identity(CONFIG, DATA | {"fingerprint": "b"}) != whole
    assert identity(CONFIG, DATA, code=0) != whole
    moved = changed("model.init_args.weights", "elsewhere/tiny/a/seed0") | {"runs_dir": "elsewhere"}
    assert identity(moved, DATA) == whole


def test_the_identity_survives_the_files_that_it_is_read_back_from():
    config, data = yaml.safe_load(yaml.safe_dump(CONFIG)), json.loads(json.dumps(DATA))
    assert identity(config, data) == identity(CONFIG, DATA)
    assert digest_of({"a": (1, True)}) == digest_of({"a": [1.0, True]}) != digest_of({"a": [1.0, 1.0]})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ("", False),
        ("?? runs/\n?? wandb/\n?? notes.txt", False),
        (" M README.md", True),
        ("?? runs/\n?? src/backbones/mine.py", True),
        (None, None),
    ],
)
def test_a_checkout_is_dirty_where_code_may_have_changed_and_not_for_what_runs_leave(monkeypatch, changes, found):
    monkeypatch.setattr("src.runs.environment.git", lambda *words: changes)
    assert dirty() is found
