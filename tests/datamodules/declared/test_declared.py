"""Data that a config alone declares: every kind and every form of source, the splits, and what is wrong with them."""

import csv
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
import torch
import yaml
from PIL import Image
from pyarrow import parquet

import src.fit as fit
from datamodules import BadSampleError, DeclaredData, UserError
from datamodules.clips.media import encode_clip
from datamodules.points.meshes import cloud_to_bytes
from datamodules.prepare import run
from tests.support import ROOT
from tests.support.meshes import BOX, TETRAHEDRON

PAGE = ROOT / "docs/declare_your_data.md"
CONFIGS = dict(re.findall(r"```yaml\n# configs/(\w+)\.yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))


def picture(label: int, seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """Red or blue, with noise."""
    pixels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3))
    pixels[..., 2 * label] += 150
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
    return file.getvalue()


def sound(label: int, seed: int = 0, rate: int = 11_025, seconds: float = 0.6, channels: int = 2) -> bytes:
    """A low or a high tone."""
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (300 + 1200 * label) * time + seed)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(wave[:, None], channels, 1), rate, format="wav")
    return file.getvalue()


def video(label: int, seed: int = 0) -> bytes:
    frames = np.random.default_rng(seed).integers(0, 40, (20, 32, 32, 3))
    frames[..., 2 * label] += 180
    tone = (9000 * np.sin(np.arange(16_000) / (5 + 20 * label))).astype(np.int16)
    return encode_clip(frames.astype(np.uint8), 10, tone, 8000)


def cloud(label: int, seed: int = 0) -> bytes:
    points = torch.randn(80, 3, generator=torch.Generator().manual_seed(seed))
    return cloud_to_bytes(points * torch.tensor([1.0, 1.0, 0.1 + label]))


def mesh(label: int, seed: int = 0) -> bytes:
    return (TETRAHEDRON if label else BOX).encode()


def folders(root: Path, make: Callable[[int, int], bytes], suffix: str, count: int = 20) -> Path:
    for number in range(count):
        folder = root / ("high" if number % 2 else "low")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"n{number:03d}{suffix}").write_bytes(make(number % 2, number))
    return root


def write_posts(root: Path) -> None:
    (root / "media").mkdir(parents=True)
    with (root / "posts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", "caption", "topic", "author"])
        for number in range(40):
            (root / f"media/{number}.png").write_bytes(picture(number % 2, number))
            rows.writerow(
                [f"media/{number}.png", f'a "{number}", naïve', ["sea", "hill"][number % 2], f"ann{number // 4}"]
            )


def write_birds(root: Path) -> None:
    root.mkdir(parents=True)
    for part in range(4):
        with tarfile.open(root / f"birds-{part:06d}.tar", "w") as tar:
            for number in range(10 * part, 10 * part + 10):
                about = json.dumps(
                    {"species": ["wren", "crow"][number % 2], "place": f"wood{number // 2 % 8}"}
                ).encode()
                files = {"png": picture(number % 2, number), "wav": sound(number % 2, number), "json": about}
                for extension, data in files.items():
                    info = tarfile.TarInfo(f"{number:05d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    assert run(["adopt", f"{root}/birds-{{000000..000003}}.tar"]) == 0


WRITERS = {
    "own_sounds": lambda root: folders(root / "data/sounds", sound, ".wav"),
    "own_pictures": lambda root: folders(root / "data/pictures", picture, ".png"),
    "pictures_with_text": lambda root: write_posts(root / "data/posts"),
    "picture_and_sound": lambda root: write_birds(root / "data/birds"),
    "own_videos": lambda root: folders(root / "data/videos", video, ".mp4"),
    "own_models": lambda root: folders(root / "data/models", mesh, ".off"),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_of_the_page_is_short_and_trains(name, tmp_path, monkeypatch):
    assert len(CONFIGS[name].splitlines()) < 25
    WRITERS[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIGS[name])
    few = ["--trainer.max_epochs", "1", "--data.num_workers", "0", "--data.batch_size", "4"]
    done = fit.main(["--config", "config.yaml", *few])
    results = done.read("results.json")
    assert results["steps"] >= 4
    assert {split: results["metrics"][split]["samples"] > 1 for split in ("val", "test")} == {"val": True, "test": True}


def make(source: Path, modalities: dict, **options) -> DeclaredData:
    return DeclaredData(str(source), modalities, **{"num_workers": 0, "batch_size": 2, **options})


def first_batch(data: DeclaredData, split: str = "train"):
    return data.flatten(next(iter(data.loader(split))))


def test_videos_give_pictures_and_sound(tmp_path):
    folders(tmp_path, video, ".mp4", count=12)
    data = make(tmp_path, {"seen": {"kind": "video", "side": 32, "fps": 10}, "heard": {"kind": "sound", "rate": 8000}})
    assert data.spec.classes == ("high", "low")
    assert {name: m.kind for name, m in data.spec.modalities.items()} == {"seen": "video", "heard": "audio"}
    batch = first_batch(data)
    assert batch.inputs["seen"].values.shape == (2, 8 * 4 * 4, 2 * 8 * 8 * 3)
    colours = batch.inputs["seen"].values.unflatten(-1, (-1, 3)).mean((1, 2))
    assert ((colours[:, 2] > colours[:, 0]) == (batch.target == 0)).all()
    assert batch.inputs["heard"].values.std() > 0.5
    assert [key.endswith(".mp4") for key in batch.keys] == [True, True]


@pytest.mark.parametrize(("suffix", "content"), [(".npy", None), (".off", BOX), (".OFF", TETRAHEDRON)])
def test_clouds_and_meshes_are_points(tmp_path, suffix, content):
    folders(tmp_path, cloud if content is None else lambda label, seed: content.encode(), suffix, count=12)
    data = make(tmp_path, {"shape": {"kind": "points", "points": 64}})
    batch, again = first_batch(data, "test"), first_batch(data, "test")
    assert batch.inputs["shape"].values.shape == (2, 64, 3)
    assert torch.equal(batch.inputs["shape"].values, again.inputs["shape"].values)


def test_series_are_measured_padded_and_masked(tmp_path):
    random = np.random.default_rng(0)

    def rows(label: int, seed: int) -> bytes:
        lines = [f"{5 + 2 * a:.5f},{100 + 30 * b:.5f}" for a, b in random.normal(size=(20 + seed, 2))]
        lines[3] = ",".join([lines[3].partition(",")[0], ""])
        return ("\n".join(["time,height", *lines[:4], ",", *lines[5:]])).encode()

    folders(tmp_path, rows, ".csv", count=12)
    data = make(tmp_path, {"walk": "series"}, batch_size=8)
    spec = data.spec.modalities["walk"]
    longest = max(20 + int(key[-7:-4]) for key in data.split("train").keys)
    assert (spec.elements, spec.channels) == (longest, 2)
    array = first_batch(data).inputs["walk"]
    lengths = [20 + int(key[-7:-4]) for key in data.split("train").keys[:8]]
    assert array.mask.sum(1).tolist() == [length - 1 for length in lengths]  # one row is empty
    assert not array.values.isnan().any()
    real = array.values[array.mask]
    assert real.mean(0).abs().max() < 0.2
    assert (real.std(0) - 1).abs().max() < 0.2
    assert not array.mask[:, 4].any()


def rows_of(values: list[dict], path: Path) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(values), path)
    elif path.suffix == ".arrow":
        table = pyarrow.Table.from_pylist(values)
        with pyarrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, values)))
    elif path.suffix == ".json":
        path.write_text(json.dumps(values))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, values[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(values)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow"])
def test_tables_of_any_form_give_the_same_numbers_and_targets(tmp_path, suffix):
    values = [{"a": n, "b": 2.5 * n, "level": -n, "part": ["train", "dev", "test"][n % 3]} for n in range(30)]
    path = rows_of(values, tmp_path / f"table{suffix}")
    body = {"kind": "series", "column": ["a", "b"]}
    data = make(path, {"body": body}, target="level", task="regression", split="part", batch_size=10)
    assert data.spec.classes == ("level",)
    assert {split: len(data.split(split).keys) for split in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), 10
    )
    batch = first_batch(data, "val")
    assert batch.target[:, 0].tolist() == [-n for n in range(30) if n % 3 == 1]
    raw = next(iter(data.loader("val")))["body"]
    assert raw[:, :, 0].tolist() == [[n, 2.5 * n] for n in range(30) if n % 3 == 1]


def test_series_in_the_cells_of_a_parquet_file_keep_their_channels(tmp_path):
    values = [{"walk": [[n, t] for t in range(5 + n % 3)], "class": str(n % 2)} for n in range(30)]
    data = make(rows_of(values, tmp_path / "t.parquet"), {"walk": {"kind": "series", "patch": 2}})
    spec = data.spec.modalities["walk"]
    assert (spec.elements, spec.channels) == (4, 4)
    assert first_batch(data).inputs["walk"].mask.shape == (2, 4)


def test_hugging_faces_folders_are_read_as_they_are(tmp_path):
    (tmp_path / "parquet/data").mkdir(parents=True)
    for split, count in (("train", 12), ("test", 4)):
        values = [{"image": {"bytes": picture(n % 2, n), "path": None}, "label": n % 2} for n in range(count)]
        rows_of(values, tmp_path / f"parquet/data/{split}-00000-of-00001.parquet")
        folder = tmp_path / "metadata" / split
        folder.mkdir(parents=True)
        for n, value in enumerate(values):
            (folder / f"{n}.png").write_bytes(value["image"]["bytes"])
        rows_of([{"file_name": f"{n}.png", "label": n % 2} for n in range(count)], folder / "metadata.csv")
    found = [
        make(tmp_path / name, {"image": "image"}, target="label", batch_size=4) for name in ("parquet", "metadata")
    ]
    for data in found:
        assert data.spec.classes == ("0", "1")
        assert [len(data.split(split).keys) for split in ("train", "val", "test")] == [11, 1, 4]
    batches = [first_batch(data, "test") for data in found]
    assert torch.equal(batches[0].inputs["image"].values, batches[1].inputs["image"].values)
    assert batches[0].target.tolist() == [0, 1, 0, 1]


def test_pictures_are_square_and_upright_by_their_exif_data(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, 10:30] = 255  # the upper left of the square in the middle
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for orientation in range(1, 9):
        upright = Image.fromarray(pixels)
        stored = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, [])
        for turn in stored:
            upright = upright.transpose(Image.Transpose(turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        for folder in "ab":
            upright.save(tmp_path / folder / f"{orientation}.jpg", exif=exif, quality=95)
    data = make(tmp_path, {"image": {"kind": "image", "side": 16, "patch": 1}}, batch_size=1)
    for split in ("train", "val", "test"):
        for batch in data.loader(split):
            bright = batch["image"][0].float().mean(-1) > 127
            assert bright[:8, :8].float().mean() > 0.95, batch["key"]
            assert bright.float().mean() < 0.3


def groups_of(data: DeclaredData, path: Path) -> dict[str, set[str]]:
    values = data.rows.values("speaker")
    return {split: {values[row] for row in rows} for split, rows in data.row_numbers.items()}


def test_groups_are_never_divided_and_stay_when_rows_change_their_order(tmp_path):
    values = [{"text": f"t{n}", "speaker": f"s{n % 20}", "class": str(n % 2), "key": str(n)} for n in range(200)]
    text = {"text": "text"}
    first = make(rows_of(values, tmp_path / "t.csv"), text, group="speaker", held_out=(0.1, 0.2))
    parts = groups_of(first, tmp_path)
    assert {split: len(found) for split, found in parts.items()} == {"train": 14, "val": 2, "test": 4}
    assert set.union(*parts.values()) == {f"s{n}" for n in range(20)}
    other = make(rows_of(values[::-1], tmp_path / "t.csv"), text, cluster="speaker", held_out=(0.1, 0.2))
    assert groups_of(other, tmp_path) == parts
    assert other.cluster(other.split("test").keys[0]) in parts["test"]
    assert first.cluster("some key") == "some key"
    assert other.fingerprint() != first.fingerprint()


def test_windows_of_long_sounds_cover_them_and_are_one_sample(tmp_path):
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        for number in range(6):
            wave = np.linspace(-0.5, 0.5, 48_000)
            soundfile.write(folder / f"{number}.flac", wave, 16_000)
    heard = {"sound": {"kind": "sound", "seconds": 0.512, "patch": 64}}
    data = make(tmp_path, heard, windows=3, batch_size=3, cluster="class", group="file")
    (batch,) = list(data.loader("test"))[:1]
    assert [key[-3:] for key in batch["key"]] == ["@00", "@01", "@02"]
    levels = batch["sound"].float().mean(1) / 2**15
    assert levels.tolist() == pytest.approx([-0.4147, 0.0, 0.4147], abs=0.01)
    assert data.cluster(batch["key"][1]) == batch["key"][1][0]
    assert data.describe()["splits"]["test"]["samples"] == len(data.row_numbers["test"])


def test_the_fingerprint_changes_with_one_byte_of_one_file(tmp_path):
    folders(tmp_path, picture, ".png")
    before = make(tmp_path, {"image": "image"}).fingerprint()
    assert make(tmp_path, {"image": "image"}).fingerprint() == before
    path = tmp_path / "low/n004.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert make(tmp_path, {"image": "image"}).fingerprint() != before


def test_multi_label_targets_are_lists_or_texts(tmp_path):
    values = [
        {"text": "x", "tags": ["", "a", "b; a", "c"][n % 4], "split": ["train", "val", "test"][n % 3]}
        for n in range(12)
    ]
    data = make(rows_of(values, tmp_path / "t.csv"), {"text": "text"}, target="tags", task="multi_label", batch_size=4)
    assert data.spec.classes == ("a", "b", "c")
    assert next(iter(data.loader("train")))["target"].tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]]


def test_a_missing_or_broken_file_is_a_bad_sample_with_its_name(tmp_path):
    write_posts(tmp_path / "posts")
    table = tmp_path / "posts/posts.csv"
    data = make(table, {"picture": "image"}, target="topic", batch_size=40)
    key = data.rows.rows[data.row_numbers["train"][3]]["picture"]
    (table.parent / key).unlink()
    with pytest.raises(BadSampleError, match=rf"{key} cannot be read"):
        list(data.loader("train"))
    (table.parent / key).write_bytes(b"no picture")
    with pytest.raises(BadSampleError, match="picture cannot be decoded"):
        list(data.loader("train"))
    skipping = make(table, {"picture": "image"}, target="topic", batch_size=40, on_bad_sample="skip")
    (batch,) = skipping.loader("train")
    assert len(batch["bad"]) == 1
    assert batch["weight"].sum() == len(skipping.row_numbers["train"]) - 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modalities": {"x": "picture"}}, "kind 'picture': use one of image, sound"),
        ({"modalities": {"x": {"kind": "image", "size": 3}}}, "modality x, a image: .*size"),
        ({"modalities": {"x": {"kind": "image", "side": 30}}}, "does not divide into patches"),
        ({"modalities": {}}, "name at least one"),
        ({"target": "colour"}, "has no column 'colour', but author, caption, picture, topic"),
        ({"classes": ["sea", "sky"]}, "has the class 'hill', which is not in --data.classes"),
        ({"split": "topic"}, "the split 'sea' in .* is none of train"),
        ({"held_out": (0.5, 0.5)}, "leave some to train"),
        ({"source": "nowhere"}, "nowhere does not exist"),
        ({"group": "topic"}, "too few groups for train"),
        ({"task": "regression"}, "has no topic"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, options, words):
    write_posts(tmp_path / "posts")
    given = {"source": str(tmp_path / "posts/posts.csv"), "modalities": {"picture": "image"}, "target": "topic"}
    with pytest.raises(UserError, match=words) as error:
        DeclaredData(**given | options).split("train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "content"), [("t.jsonl", "{"), ("t.json", "{}"), ("t.parquet", "x"), ("t.txt", "x")])
def test_a_broken_table_is_refused_with_its_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        make(tmp_path / name, {"text": "text"})


def test_configs_of_the_page_name_every_kind_or_the_page_does():
    assert set(CONFIGS) == set(WRITERS)
    kinds = yaml.safe_dump([yaml.safe_load(text)["data"] for text in CONFIGS.values()]) + PAGE.read_text()
    assert all(f"`{kind}`" in kinds for kind in ("image", "sound", "video", "points", "text", "series"))
