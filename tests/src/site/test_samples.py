"""Samples on the pages of a site: shown where the licence of the data allows it and the data are there, small, and once."""

import io
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

import datamodules
from datamodules.clips import compose_dialpad
from datamodules.licences import is_open
from src.api import fit
from src.compare import main as compare
from src.report.records import Record
from src.runs.folder import Run
from src.site import samples
from src.site.media import SIDE
from tests.support.browser import WIDTHS, barriers, needs_browser, open_browser, requests, show

MAJORITY = {"class_path": "src.tasks.Trivial", "init_args": {"method": "majority"}}
# what is shown of open data, and data whose licence nobody stated
SHOWN = {
    "Digits": {"webp"},
    "FashionMNIST": {"webp"},
    "Dialpad": {"webp", "mp3"},
    "GarmentsSpoken": {"webp", "mp3"},
    "LanguageId": {"mp3"},
    "Emoji": {"webp"},
    "Icons": {"webp"},
}
CLOSED = ("DeclaredData", "ImageNet", "Tags", "Text")


def train(
    root: Path, tiny, data: str, cell: str = "majority", model: dict = MAJORITY, seed: int = 0, **changes
) -> Path:
    """A run on tiny data, which is there in a moment."""
    options = {"batch_size": 2, "num_workers": 0, **tiny.options(data), **changes}
    chosen = {"class_path": f"datamodules.{data}", "init_args": options}
    places = {"experiment": data.lower(), "cell": cell, "runs_dir": str(root), "seed_everything": seed}
    return fit("digits_perceiver", options={"data": chosen, "model": model, "trainer.max_epochs": 1, **places}).folder


def site_of(runs: Path, folder: Path) -> Path:
    compare([str(runs), "--site", str(folder)])
    return folder


def files(site: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (site / "samples").glob("*")}


def linked(page: Path) -> list[str]:
    return re.findall(r'src="\.\./samples/([^"]+)"', page.read_text())


@pytest.mark.parametrize("data", SHOWN)
def test_samples_of_open_data_are_shown_with_target_prediction_and_licence(data, tiny, tmp_path):
    run = train(tmp_path / "runs", tiny, data)
    site = site_of(tmp_path / "runs", tmp_path / "site")
    page = site / data.lower() / "majority.html"
    found = files(site)
    assert {name.partition(".")[2] for name in found} == SHOWN[data]
    assert set(linked(page)) == set(found)
    text = unescape(page.read_text())
    assert "true: <b>" in text
    assert len(re.findall(r"<li>", text)) <= samples.SHOWN
    made = getattr(datamodules, data)(**tiny.options(data))
    with np.load(run / "predictions.npz") as kept:
        key = str(kept["key"][0])
    assert is_open(made.licence_of(key))
    for part in (made.credit, made.licence_of(key)):
        assert str(part) in text
    for name, content in found.items():
        assert len(content) < 12_000
        if name.endswith("webp"):
            assert Image.open(io.BytesIO(content)).height <= SIDE
        else:
            sound, rate = soundfile.read(io.BytesIO(content))
            assert rate == 8000
            assert 0 < len(sound) <= 5.2 * rate


def test_a_picture_is_the_sample_itself(tiny, tmp_path):
    train(tmp_path / "runs", tiny, "Digits")
    site = site_of(tmp_path / "runs", tmp_path / "site")
    page = (site / "digits" / "majority.html").read_text()
    split = datamodules.Digits().split("test")
    shown = re.findall(r'samples/([^"]+)"[^>]*alt="image of ([^"]+)"', page)
    assert len(shown) == samples.SHOWN
    for name, key in shown:
        pixels = np.asarray(Image.open(site / "samples" / name).convert("RGB"))
        assert np.array_equal(pixels[..., 0], split.load(list(split.keys).index(key), None)["image"].numpy())


@pytest.mark.parametrize("data", CLOSED)
def test_samples_of_other_data_are_not(data, tiny, tmp_path):
    train(tmp_path / "runs", tiny, data)
    site = site_of(tmp_path / "runs", tmp_path / "site")
    assert not (site / "samples").exists()
    page = (site / data.lower() / "majority.html").read_text()
    assert f"The samples are not shown: {data} states no open licence." in page
    assert "Test samples with the lowest scores" in page


def test_without_the_data_or_with_others_the_page_says_so_and_is_there(tiny, tmp_path):
    folder = tmp_path / "dialpad"
    train(tmp_path / "runs", tiny, "Dialpad", data_dir=str(folder))
    page = tmp_path / "site" / "dialpad" / "majority.html"
    for change, said in (
        (lambda: shutil.rmtree(folder), "the data are not on the machine that made this page"),
        (lambda: datamodules.Dialpad(str(folder), clips=(6, 4, 4)).prepare_data(), None),
        (lambda: other_clips(folder), "the data on the machine that made this page are others"),
    ):
        change()
        site = site_of(tmp_path / "runs", tmp_path / "site")
        assert bool(files(site)) == (said is None)
        assert said is None or f"The samples are not shown: {said}." in page.read_text()


def other_clips(folder: Path) -> None:
    shutil.rmtree(folder)
    compose_dialpad.compose(folder, (6, 4, 4), seed=1, workers=1)


def test_variants_share_the_files_of_samples(tiny, tmp_path):
    runs = tmp_path / "runs"
    for cell, seeds in (("first", (0,)), ("second", (0, 1))):
        for seed in seeds:
            train(runs, tiny, "Digits", cell, seed=seed)
    train(tmp_path / "runs", tiny, "FashionMNIST")
    site = site_of(runs, tmp_path / "site")
    first, second = (linked(site / "digits" / f"{cell}.html") for cell in ("first", "second"))
    assert first == second
    assert set(first) | set(linked(site / "fashionmnist" / "majority.html")) == set(files(site))


def test_the_files_of_an_experiment_fit_into_their_room(tiny, tmp_path, monkeypatch):
    train(tmp_path / "runs", tiny, "Digits")
    whole = sum(map(len, files(site_of(tmp_path / "runs", tmp_path / "site")).values()))
    monkeypatch.setattr(samples, "MOST_BYTES", whole // 2)
    kept = sum(map(len, files(site_of(tmp_path / "runs", tmp_path / "site")).values()))
    assert 0 < kept <= whole // 2


def test_a_config_of_a_stranger_opens_no_other_data(tiny, tmp_path, monkeypatch):
    run = train(tmp_path / "runs", tiny, "Digits")
    asked = []
    monkeypatch.setattr("fsspec.filesystem", lambda *args, **options: asked.append(args))
    for path, options, said in (
        ("os.system", {"command": "touch x"}, "is no data set of ByteBench"),
        ("datamodules.core.datamodule.hashlib", {}, "is no data set of ByteBench"),
        ("datamodules.Dialpad", {"data_dir": "https://example.org/dialpad"}, "not on the machine"),
        ("datamodules.Dialpad", {"data_dir": "/", "surprise": [1]}, "not on the machine"),
    ):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["data"] = {"class_path": path, "init_args": options}
        record = Record.of(Run(run))
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        found = samples.open_samples(record)
        assert isinstance(found, str)
        assert said in found
    assert asked == []


@needs_browser
@pytest.mark.integration
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_pictures_sounds_and_texts_are_seen_and_played_from_the_disk(tiny, tmp_path, width, height):
    train(tmp_path / "runs", tiny, "Dialpad")
    train(tmp_path / "runs", tiny, "Emoji")
    site = site_of(tmp_path / "runs", tmp_path / "site")
    opened = open_browser()
    browser = next(opened)
    for page in ("dialpad", "emoji"):
        show(browser, site / page / "majority.html", width, height)
        browser.execute_script("document.querySelectorAll('img').forEach(each => { each.loading = 'eager'; })")
        loaded = "return [...document.images].map(each => each.decode().then(() => each.naturalWidth))"
        widths = browser.execute_script(f"return Promise.all((() => {{ {loaded} }})())")
        assert widths
        assert all(found > 0 for found in widths)
        assert barriers(browser) == []
        assert browser.get_log("browser") == []
        asked = [each for each in requests(browser) if not each.startswith(("file:", "data:"))]
        assert asked == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    show(browser, site / "dialpad" / "majority.html", width, height)
    script = """const done = arguments[0], sound = document.querySelector("audio");
        sound.onloadedmetadata = () => done(sound.duration); sound.onerror = () => done(String(sound.error.message));
        sound.load(); sound.preload = "auto";"""
    assert 1.0 < browser.execute_async_script(script) < 1.6
    opened.close()
