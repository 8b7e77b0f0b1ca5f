"""Tokens and passwords are in no record of a run; what only sounds like one is."""

import json
import sys

import pytest

import src.fit as fit
from src.config.secrets import redacted, redacted_command, redacted_text
from tests.support import DIGITS

TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "word",
    [
        f"--data.token={TOKEN}",
        f"WANDB_API_KEY={TOKEN}",
        f"https://user:{TOKEN}@host/data/train.tar",
        f"https://host/data/train.tar?token={TOKEN}",
        f"https://host/data?X-Amz-Signature={TOKEN}&part=3",
        f"s3://key:{TOKEN}@bucket/path",
        f"[a, {TOKEN}]",
        "hf_" + TOKEN,
        "ghp_" + TOKEN,
        "AKIA" + "ABCDEFGHIJKLMNOP",
        f'{{"api_key": 1, "password={TOKEN}": 2}}',
    ],
)
def test_nothing_that_looks_like_a_token_stays(word):
    assert TOKEN not in redacted_text(word)
    assert "ABCDEFGHIJKLMNOP" not in redacted_text(word)
    assert redacted_text(word) == redacted_command([word])[0] != word


def test_the_word_after_an_option_for_a_token_is_hidden_and_others_stay(monkeypatch):
    words = ["python", "-m", "src.fit", "--config", "configs/x.yaml", "--data.password", "short", "--cell", "a=b"]
    assert redacted_command(words) == [*words[:6], "***", *words[7:]]
    harmless = {
        "key_depth": "16",
        "weights": "runs/probe/half/seed0",
        "data_dir": "https://host/data?part=3",
        "tags": ["token", "author"],
        "commit": f"runs/{TOKEN}",
        "number": 3,
    }
    assert redacted(harmless) == harmless
    assert redacted({"data": {"init_args": {"access_key": "x", "secret": None}}}) == {
        "data": {"init_args": {"access_key": "***", "secret": None}}
    }
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "correct horse battery")
    assert redacted_text("it is correct horse battery here") == "it is *** here"


def test_a_run_records_no_secret_of_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    words = [
        "--config",
        DIGITS,
        "--runs_dir",
        str(tmp_path),
        "--trainer.max_steps",
        "1",
        "--trainer.limit_test_batches",
        "1",
    ]
    words += ["--tags", f"[{TOKEN}, correct-horse-battery, kept]", "--cell", "a"]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "src.fit", *words])
    run = fit.main(words)
    for path in run.folder.glob("*.*"):
        if path.suffix in (".json", ".yaml"):
            assert TOKEN not in path.read_text()
            assert "correct-horse-battery" not in path.read_text()
    assert run.config()["tags"] == ["***", "***", "kept"]
    assert "a" in json.loads((run.folder / "environment.json").read_text())["command"]
