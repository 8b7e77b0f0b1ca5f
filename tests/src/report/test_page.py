"""The page of a comparison in a real browser: no errors, no requests, readable on a phone, quick with 60 runs."""

import json
import os
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from src.report.comparison import compare_runs
from src.report.html import html_page
from src.runs.folder import find_runs
from tests.support.browser import WIDTHS, emulate, needs_browser, open_browser, requests, show
from tests.support.run_folders import make_run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A page of 60 runs with 1,500 rows of curves each, one of multi-label runs, one of a single run without predictions."""
    root = tmp_path_factory.mktemp("pages")
    for number in range(20):
        for seed in range(3):
            make_run(root / "many", f"cell_{number}", seed, quality=0.5 + number / 50, rows=1500, steps=15_000)
    for number in (0, 1):  # made elsewhere
        path = root / "many" / "made_up" / f"cell_{number}" / "seed0" / "environment.json"
        where = json.loads(path.read_text())
        path.write_text(json.dumps({**where, "packages": {**where["packages"], "numpy": f"1.{number}"}}))
    make_run(root / "many", "other_data", 0, data={"fingerprint": "b" * 64})
    for cell, quality in (("audio", 0.6), ("audio_and_video", 0.9)):
        for seed in range(3):
            make_run(root / "labels", cell, seed, quality, task="multi_label")
    (make_run(root / "one", "<alone> & only", 0) / "predictions.npz").unlink()
    found = {}
    for name in ("many", "labels", "one"):
        found[name] = root / f"{name}.html"
        found[name].write_text(html_page(compare_runs(find_runs([root / name]))))
    return found


@pytest.fixture(scope="module")
def browser():
    yield from open_browser()


@needs_browser
@pytest.mark.parametrize(("width", "height"), WIDTHS)
@pytest.mark.parametrize("name", ["many", "labels", "one"])
def test_page_has_no_errors_no_requests_and_does_not_scroll_sideways(browser, pages, name, width, height):
    show(browser, pages[name], width, height)
    assert browser.get_log("browser") == []
    assert all(address.startswith("file://") for address in requests(browser))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for chart in ("spread-chart", "curve-chart", "cost-chart"):
        assert browser.find_element(By.ID, chart).find_elements(By.CSS_SELECTOR, "svg[role=img]")
    # all text inside its box, none below 11 pixels
    assert browser.execute_script(
        "return [...document.querySelectorAll('body *')].every(e => parseFloat(getComputedStyle(e).fontSize) >= 11)"
    )
    if folder := os.environ.get("SCREENSHOTS"):
        whole = browser.execute_script("return document.documentElement.scrollHeight")
        for scheme in ("light", "dark"):
            emulate(browser, scheme)
            show(browser, pages[name], width, min(whole, 6000))
            browser.save_screenshot(f"{folder}/{name}_{width}_{scheme}.png")
        emulate(browser, "light")


@needs_browser
def test_page_of_60_runs_opens_in_under_2_seconds_and_is_under_3_mb(browser, pages, capsys):
    size = pages["many"].stat().st_size
    show(browser, pages["many"], 1280, 900)
    loaded = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    with capsys.disabled():
        print(f"\n60 runs: {size / 1e6:.2f} MB, loaded in {loaded:.0f} ms")
    assert size < 3e6
    assert 0 < loaded < 2000


@needs_browser
def test_choices_redraw_the_page(browser, pages):
    show(browser, pages["many"], 1280, 900)
    first = browser.find_element(By.CSS_SELECTOR, "[data-row='1'][data-kind='difference']")
    assert "±" in first.text
    browser.find_element(By.CSS_SELECTOR, "#reference option[value='1']").click()
    assert first.text == "-"
    before = browser.find_element(By.ID, "curve-chart").get_attribute("innerHTML")
    browser.find_element(By.CSS_SELECTOR, "#curve option[value='train/loss']").click()
    assert browser.find_element(By.ID, "curve-chart").get_attribute("innerHTML") != before
    dots = "#spread-chart .mark"
    count = len(browser.find_elements(By.CSS_SELECTOR, dots))
    browser.find_element(By.CSS_SELECTOR, "#legend button").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, dots)) == count - 4  # three seeds and their mean
    browser.execute_script("document.querySelector('#cost-chart .mark').focus()")
    assert "95 %" in browser.find_element(By.ID, "tip").text
    assert browser.get_log("browser") == []


def test_places_that_differ_stand_side_by_side(pages):
    text = pages["many"].read_text()
    assert '<tr><th scope="row">package numpy</th><td>1.0</td><td>2.3.0</td><td>1.1</td></tr>' in text
    assert "All runs were made in the same environment" in pages["labels"].read_text()


def test_names_are_escaped_and_the_left_out_are_told_with_their_reason(pages):
    assert "&lt;alone&gt; &amp; only" in pages["one"].read_text()
    assert "<alone>" not in pages["one"].read_text()
    assert "bytes with fingerprint bbbbbbbb, not aaaaaaaa" in pages["many"].read_text()
