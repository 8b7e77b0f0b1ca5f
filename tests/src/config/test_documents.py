"""Documents of strangers are read within limits: what breaks one is told in one line, wherever the document is."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import src.compare as compare
import src.fit as fit
from datamodules import UserError
from src.config.documents import Loader, load_yaml, read_json, read_yaml
from src.config.error_messages import is_user_error, one_line
from src.suites.definition import load_suite
from tests.support import DIGITS, ROOT
from tests.support.run_folders import make_run

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
BROKEN_YAML = {
    "aliases": (BOMB.encode(), "aliases written out"),
    "an alias inside itself": (b"a: &a [1, *a]", "inside of what it names"),
    "depth": (b"a: " + b"[" * 5000 + b"]" * 5000, "nested more than 50 deep"),
    "deep blocks": ("".join(f"{' ' * n}a:\n" for n in range(200)).encode(), "nested more than 50 deep"),
    "size": (b"a: " + b"x" * 1_000_001, "larger than"),
    "nodes": (b"a: [" + b"1," * 200_000 + b"]", "more than 100,000 values"),
    "no UTF-8": (b"a: \xff\xfe\xfa", "UTF-8"),
    "a key twice": (b"trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}\n", "'trainer' is there twice"),
    "a tag": (b"a: !!python/object/apply:os.system [x]", "tag"),
    "bytes": (b"a: !!binary aGVsbG8=", "tag"),
    "a date by tag": (b"a: !!timestamp 2001-99-99", "tag"),
    "a long number": (b"a: " + b"1" * 5000, "not a number"),
    "two documents": (b"a: 1\n---\na: 2\n", "single document|a document"),
    "control characters": (b"a: \x07", "YAML"),
    "unbalanced": (b"a: [1,\nb: 3", "YAML"),
}
BROKEN_JSON = {
    "depth": b"[" * 100_000,
    "deep values": b'{"a":' * 60 + b"1" + b"}" * 60,
    "no UTF-8": b'{"a": "\xff"}',
    "half a character": b'{"a": "\\ud800"}',
    "a long number": b'{"a": ' + b"1" * 5000 + b"}",
    "empty": b"",
    "another type": b"[]",
    "no fields": b"{}",
    "null": b"null",
}


@pytest.mark.parametrize("kind", BROKEN_YAML)
def test_a_broken_document_is_one_line_as_config_as_suite_and_in_a_run_folder(kind, tmp_path):
    content, said = BROKEN_YAML[kind]
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_yaml(path)
    with pytest.raises(UserError, match=said):
        load_suite(path)
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the parser's own errors are no UserErrors)
        fit.main(["--config", str(path)])
    assert is_user_error(caught.value)
    assert "\n" not in one_line(caught.value)
    run = make_run(tmp_path / "runs", "a", 0)
    shutil.copy(path, run / "config.yaml")
    with pytest.raises(UserError, match=said):
        compare.main([str(run)])


@pytest.mark.parametrize("name", ["results.json", "data.json", "environment.json"])
@pytest.mark.parametrize("kind", BROKEN_JSON)
def test_a_broken_record_is_one_line_that_names_the_file(kind, name, tmp_path):
    run = make_run(tmp_path, "a", 0)
    (run / name).write_bytes(BROKEN_JSON[kind])
    with pytest.raises(UserError, match=name) as error:
        compare.main([str(run)])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "results.json")
    for read in (read_json, read_yaml):
        with pytest.raises(UserError, match="is not a file"):
            read(tmp_path / "results.json")


def test_values_are_what_configs_mean():
    text = (
        "a: 1e-3\nb: 2024-01-01\nc: 0x10\nd: .inf\ne: -1.5E+3\nf: 1_000\ng: yes\nh: '1'\ni: ~\nj: 3.\nk: v1.0\nl: 12e\n"
    )
    found = load_yaml(text)
    assert found == {
        "a": 0.001, "b": "2024-01-01", "c": 16, "d": float("inf"), "e": -1500.0, "f": 1000, "g": True, "h": "1", "i": None,
        "j": 3.0, "k": "v1.0", "l": "12e",
    }  # fmt: skip
    assert load_yaml("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


@pytest.mark.parametrize("path", [*ROOT.glob("configs/**/*.yaml")], ids=lambda path: path.stem)
def test_our_own_documents_are_far_from_the_limits(path):
    wanted = yaml.safe_load(path.read_text())
    assert (
        json.dumps(load_yaml(path.read_text())).replace("1e-3", "0.001") == json.dumps(wanted)
        or "e-" in path.read_text()
    )
    assert len(list(yaml.parse(path.read_text(), Loader=Loader))) < 1000


def test_the_parser_reads_values_within_the_same_limits():
    for value in ("&a [*a]", "&a [x, x]", BOMB.replace("\n", " ")):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            fit.main(["--config", DIGITS, "--trainer.max_epochs", value])
        assert is_user_error(caught.value)
        assert len(one_line(caught.value)) < 700


def test_a_folder_is_no_document(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        read_yaml(Path(tmp_path))
