"""Emoji and tags: pictures with names, from packages of the form that npm has."""

import json
from pathlib import Path

import pytest
import torch

from datamodules import Emoji, Tags, UserError
from datamodules.drawings.emoji import GROUPS, style_of
from datamodules.drawings.tags import TAGS
from datamodules.prepare import main as prepare
from datamodules.storage import lint
from tests.support.icons import write_emoji


def text_of(batch, row: int) -> str:
    name = batch.inputs["name"]
    assert name.mask is not None
    return bytes(name.values[row].argmax(dim=1)[name.mask[row]].tolist()).decode()


def test_an_emoji_is_tested_in_a_style_that_was_not_trained_on(tiny):
    data = Emoji(str(tiny.folder("emoji")), test_style="noto")
    keys = {name: data.split(name).keys for name in ("train", "val", "test")}
    assert {style_of(key) for key in keys["test"]} == {"noto"}
    assert {style_of(key) for name in ("train", "val") for key in keys[name]} == {"emojione", "twemoji"}
    emoji = {name: {data.cluster(key) for key in found} for name, found in keys.items()}
    assert sum(map(len, emoji.values())) == len(set.union(*emoji.values())) == 24
    manifest = json.loads((tiny.folder("emoji") / "manifest.json").read_text())
    assert manifest["made_with"]["licences"] == {
        **dict.fromkeys(("emojione", "noto", "twemoji"), "MIT"),
        "names": "Unicode-3.0",
    }
    assert list(lint.findings(tiny.folder("emoji"))) == []


@pytest.mark.parametrize(("language", "names"), [("en", ("object", "animal")), ("sw", ("kitu", "mnyama"))])
def test_an_emoji_comes_with_its_name_in_the_language(tiny, language, names):
    data = Emoji(str(tiny.folder("emoji")), language=language, name_bytes=16, batch_size=8)
    batch = data.flatten(next(iter(data.loader("train"))))
    assert batch.inputs["picture"].values.shape == (8, 256, 12)
    assert batch.inputs["name"].values.shape == (8, 16, 256)
    for row, (key, target) in enumerate(zip(batch.keys, batch.target.tolist(), strict=True)):
        number = int(data.cluster(key), 16) - 0x1F400
        assert text_of(batch, row) == f"{names[number % 2]} {number}"
        assert GROUPS[target] == ("Objects", "Animals & Nature")[number % 2]


def test_icons_come_with_their_tags_and_those_of_one_word_together(tiny):
    data = Tags(str(tiny.folder("tags")), batch_size=4)
    keys = {name: data.split(name).keys for name in ("train", "val", "test")}
    assert sum(map(len, keys.values())) == 60  # neither the one without tags nor the deprecated one
    words = {name: {data.cluster(key) for key in found} for name, found in keys.items()}
    assert len(set.union(*words.values())) == sum(map(len, words.values())) == 30
    batch = data.flatten(next(iter(data.loader("train"))))
    for row, key in enumerate(batch.keys):
        assert text_of(batch, row) == key
        tags = [TAGS[number] for number in torch.where(batch.target[row] == 1)[0].tolist()]
        assert tags == (["Cloud", "Lock"] if key.endswith("-lock") else ["Cloud"])


def test_one_modality_alone_is_loaded_alone(tiny):
    data = Tags(str(tiny.folder("tags")), modalities=["name"])
    assert data.split("train").load(0, torch.Generator()).keys() == {"name", "target"}


def test_other_packages_and_choices_are_told_in_one_line(tiny, tmp_path: Path):
    with pytest.raises(UserError, match="language 'xx': choose one of en, sw"):
        Emoji(str(tiny.folder("emoji")), language="xx").split("train").load(0, torch.Generator())
    with pytest.raises(UserError, match="choose one of emojione, "):
        Emoji(test_style="noto-v3")
    with pytest.raises(UserError, match="choose from picture, name"):
        Tags(modalities=["pictures"])  # pyrefly: ignore
    write_emoji(tmp_path / "styles.tgz", tmp_path / "names.tgz")
    with pytest.raises(UserError, match="is not @mdi/svg"):
        prepare(["tags", "--source", str(tmp_path / "names.tgz"), "--out", str(tmp_path / "data")])
    swapped = ["--source", str(tmp_path / "names.tgz"), "--names", str(tmp_path / "styles.tgz")]
    with pytest.raises(UserError, match="is not @iconify/json"):
        prepare(["emoji", *swapped, "--out", str(tmp_path / "data")])
