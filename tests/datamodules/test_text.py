"""Text as bytes: every byte arrives, padding is masked, and what is not UTF-8 is named."""

import csv
from pathlib import Path

import pytest
import torch

from datamodules import BadSampleError, UserError
from datamodules.text import PADDING, Text, TextModality
from tests.support.texts import TEXTS, write_folder

ELEMENTS = 12


def write_tables(folder: Path) -> Path:
    for split, copies in (("train", 4), ("test", 1)):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["label", "source", "text"])
            rows.writerows(
                ["ru" if name == "ru" else "en", "me", t] for name, texts in TEXTS.items() for t in texts * copies
            )
    return folder


@pytest.fixture(params=[write_folder, write_tables], ids=["folder", "csv"])
def folder(request, tmp_path) -> Path:
    return request.param(tmp_path)


def make(folder: Path, **options) -> Text:
    return Text(str(folder), **{"classes": ["en", "ru"], "elements": ELEMENTS, "bands": 3, "batch_size": 3, **options})


def load(data: Text, index: int) -> dict:
    return data.split("test").load(index, torch.Generator())


def test_every_byte_arrives_and_padding_is_masked(folder):
    data = make(folder)
    seen = []
    for compact in data.loader("test"):
        assert (compact["text"].dtype, compact["text"].shape) == (torch.int16, (3, ELEMENTS))
        batch = data.flatten(compact)
        array, spec = batch.inputs["text"], data.spec.modalities["text"]
        assert array.values.shape == (3, spec.elements, spec.channels)
        assert array.positions.shape == (spec.elements, spec.position_channels)
        assert array.grid == spec.grid
        assert array.mask is not None
        assert torch.equal(array.values.sum(-1), array.mask.float())  # one-hot where real, nothing behind
        for row, mask, label in zip(array.values, array.mask, batch.target.tolist(), strict=True):
            length = int(mask.sum())
            assert mask[:length].all()
            seen.append((data.spec.classes[label], bytes(row.argmax(-1)[:length].tolist())))
    assert seen == [(name, text.encode()[:ELEMENTS]) for name, texts in TEXTS.items() for text in texts]


def test_a_tenth_of_each_class_is_held_out_of_training(folder):
    data = make(folder)
    keys = {name: data.split(name).keys for name in ("train", "val", "test")}
    assert {name: len(k) for name, k in keys.items()} == {"train": 21, "val": 3, "test": 6}
    assert len(set().union(*keys.values())) == 30
    assert set(make(folder, seed=7).split("val").keys) == set(keys["val"])


def test_positions_are_those_of_the_byte_whatever_the_length():
    modality = TextModality(ELEMENTS, bands=3)
    raw = torch.full((2, ELEMENTS), PADDING, dtype=torch.int16)
    raw[0, :3], raw[1, :] = 65, 66
    array = modality(raw)
    assert array.positions.dim() == 2  # shared
    assert array.positions[0, 0] == -1
    assert array.positions[-1, 0] == 1


def test_empty_text_is_a_sample_with_everything_masked(folder):
    data = make(folder)
    empty = load(data, 5)
    assert (empty["text"] == PADDING).all()
    array = data.flatten.modalities["text"](empty["text"][None])
    assert not array.mask.any()
    assert not array.values.any()


def test_text_that_is_not_utf8_is_named_with_its_offset(tmp_path):
    data = make(write_folder(tmp_path))
    (tmp_path / "test/en/01.txt").write_bytes("caf\xe9 noir, far too long".encode("latin-1"))
    with pytest.raises(BadSampleError, match=r"test/en/01.txt is not UTF-8: byte 0xe9 at offset 3"):
        load(data, 1)
    loader = make(tmp_path, on_bad_sample="skip").loader("test")
    first = next(iter(loader))
    assert first["weight"].tolist() == [1, 0, 1]
    assert list(first["bad"]) == ["test/en/01.txt"]


def test_a_csv_row_that_is_not_utf8_is_named_and_the_others_stay(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "test.csv").write_bytes(b'text,label\nbread,en\nna\xefve,en\n"two\nlines",ru\n')
    data = make(tmp_path)
    assert bytes(load(data, 0)["text"][:5].tolist()) == b"bread"
    with pytest.raises(BadSampleError, match=r"test.csv/0000002 is not UTF-8: byte 0xef at offset 2"):
        load(data, 1)
    assert bytes(load(data, 2)["text"][:9].tolist()) == b"two\nlines"


def test_text_is_judged_whole_even_where_it_is_cut(tmp_path):
    data = make(write_folder(tmp_path))
    (tmp_path / "test/en/00.txt").write_bytes(b"x" * ELEMENTS + b"\xff")
    with pytest.raises(BadSampleError, match=f"offset {ELEMENTS}"):
        load(data, 0)
    (tmp_path / "test/en/00.txt").write_bytes(("x" * (ELEMENTS - 1) + "\u00e9").encode())  # cut inside a character
    assert (load(data, 0)["text"] >= 0).all()


def test_equal_texts_have_equal_fingerprints(folder):
    first = make(folder).fingerprint()
    assert make(folder).fingerprint() == first
    path = folder / "test.csv"
    path = path if path.is_file() else folder / "test/en/00.txt"
    path.write_bytes(path.read_bytes().replace(b"butter", b"botter"))
    assert make(folder).fingerprint() != first


def test_a_long_csv_field_is_read(tmp_path):
    write_tables(tmp_path)
    (tmp_path / "test.csv").write_text("text,label\n" + "y" * 200_000 + ",en\n")
    assert (load(make(tmp_path), 0)["text"] == ord("y")).all()


def test_what_does_not_fit_the_classes_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"neither train\.csv nor a folder train"):
        make(tmp_path).split("train")
    with pytest.raises(UserError, match="at least two different classes"):
        make(tmp_path, classes=["en"])
    write_folder(tmp_path)
    with pytest.raises(UserError, match=r"has the folders \['en', 'ru'\], but --data.classes is \['de', 'en'\]"):
        make(tmp_path, classes=["en", "de"]).split("train")
    (tmp_path / "test.csv").write_text("text,label\nhola,es\n")
    with pytest.raises(UserError, match=r"test.csv, row 1: .* the label 'es' is not in --data.classes"):
        make(tmp_path).split("test")
    (tmp_path / "test.csv").write_text("words,label\nhola,es\n")
    with pytest.raises(UserError, match="it needs text and label"):
        make(tmp_path).split("test")
