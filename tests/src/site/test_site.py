"""The site of several experiments: what it holds, offers and refuses, and that everybody can read it without a network."""

import shutil
import tarfile
from pathlib import Path

import pytest

from datamodules import UserError
from src.compare import main as compare
from src.site.build import file_names
from tests.support.browser import WIDTHS, barriers, needs_browser, open_browser, requests, show
from tests.support.run_folders import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    suite = {"name": "digits", "source": "made up", "position": 0, "published": {}, "claims": ["good > bad"]}
    for cell, quality in (("good", 0.9), ("bad", 0.6)):
        for seed in range(3):
            make_run(root, cell, seed, quality, experiment="digits", results={"suite": suite}, samples=200)
    make_run(root, "<alone> & only", 0, experiment="labels", task="multi_label")
    return root


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "site"
    compare([str(runs), "--site", str(folder)])
    return folder


def test_every_experiment_and_variant_has_a_page_that_is_linked(site):
    assert 'href="digits/index.html">digits</a>' in (site / "index.html").read_text()
    assert "1 of 1 shown" in (site / "index.html").read_text()
    assert 'href="good.html">good</a>' in (site / "digits" / "index.html").read_text()
    page = (site / "digits" / "good.html").read_text()
    for text in ("verified", "python -m src.fit", "a" * 64, "good &gt; bad", "batch_size: 64", "Test samples"):
        assert text in page
    (alone,) = (site / "labels").glob("alone*.html")
    assert "&lt;alone&gt; &amp; only" in alone.read_text()
    assert "<alone>" not in alone.read_text()


def test_the_runs_that_a_page_offers_can_be_compared_again(site, runs, tmp_path):
    for name in ("good", "bad"):
        with tarfile.open(site / "digits" / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
    first, again = (compare([str(place / "digits")]).frame() for place in (runs, tmp_path))
    assert first["top1"].tolist() == again["top1"].tolist()
    assert len(again) == 2


def test_a_site_replaces_an_older_one_and_nothing_else(site, runs, tmp_path):
    compare([str(runs), "--site", str(site)])
    assert not list(site.parent.glob("*.part"))
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        compare([str(runs), "--site", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_links_in_a_run_are_not_followed_into_what_is_offered_and_unfinished_runs_are_told(runs, tmp_path, capsys):
    shutil.copytree(runs / "digits", tmp_path / "runs")
    linked, unfinished = tmp_path / "runs" / "good" / "seed0", tmp_path / "runs" / "bad" / "seed0"
    shutil.move(linked / "predictions.npz", tmp_path / "elsewhere.npz")
    (linked / "predictions.npz").symlink_to(tmp_path / "elsewhere.npz")
    (unfinished / "results.json").unlink()
    compare([str(tmp_path / "runs"), "--site", str(tmp_path / "site")])
    with tarfile.open(tmp_path / "site" / "digits" / "good.tar.xz") as archive:
        offered = [name for name in archive.getnames() if name.endswith("predictions.npz")]
    assert [name.split("/")[-2] for name in offered] == ["seed1", "seed2"]
    assert "seed0 (unfinished" in " ".join(capsys.readouterr().out.split())


def test_file_names_are_safe_and_differ():
    names = file_names(["a/b", "a b", "A_b", "..", "index", "x" * 300])
    assert len({name.casefold() for name in names}) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzAB_0123456789") for name in names)
    assert "index" not in names


@needs_browser
@pytest.mark.integration
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_pages_have_no_errors_ask_no_network_and_are_read_by_everybody(site, width, height):
    opened = open_browser()
    browser = next(opened)
    for page in site.rglob("*.html"):
        show(browser, page, width, height)
        browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert barriers(browser) == []
        assert browser.get_log("browser") == []
        assert all(address.startswith("file://") for address in requests(browser))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    opened.close()
