"""The page of a comparison in a real browser: no errors, no requests, readable on a phone, quick with 60 runs."""

import json
import os
import re
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from src.report.comparison import compare_runs
from src.report.html import html_page
from src.runs.folder import find_runs
from tests.support.browser import WIDTHS, barriers, emulate, needs_browser, open_browser, requests, show
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
        assert browser.find_element(By.ID, chart).find_elements(By.CSS_SELECTOR, "svg[role=group]")
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
@pytest.mark.parametrize("name", ["many", "labels", "one"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_the_page(browser, pages, name, scheme):
    emulate(browser, scheme)
    show(browser, pages[name], 1280, 900)
    browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert barriers(browser) == []
    emulate(browser, "light")


@needs_browser
def test_the_table_is_sorted_searched_and_pinned_and_the_charts_follow(browser, pages):
    show(browser, pages["many"], 1280, 900)

    def names() -> list[str]:
        rows = browser.find_elements(By.CSS_SELECTOR, "#variants tbody tr")
        return [
            re.search(r"cell_\d+", row.find_element(By.CSS_SELECTOR, "th").text)[0]
            for row in rows
            if row.is_displayed()
        ]

    best_first = names()
    assert (best_first[0], best_first[-1]) == ("cell_19", "cell_0")
    heading = browser.find_element(By.CSS_SELECTOR, "#variants th:nth-child(4) button")
    heading.click()
    assert names() == best_first
    heading.click()
    assert names() == best_first[::-1]
    browser.find_element(By.CSS_SELECTOR, "#variants tr[data-row='7'] .pin").click()
    assert names()[0] == "cell_7"
    browser.find_element(By.ID, "search").send_keys("cell_1")
    assert names() == ["cell_7", "cell_1", *(f"cell_{n}" for n in range(10, 20))]
    assert browser.find_element(By.ID, "count").text == "12 of 20"
    assert len(browser.find_elements(By.CSS_SELECTOR, "#spread-chart text.name")) == 12
    assert browser.get_log("browser") == []


@needs_browser
def test_marks_are_reached_by_arrow_keys_and_charts_are_tables_too(browser, pages):
    show(browser, pages["many"], 1280, 900)
    first = browser.find_element(By.CSS_SELECTOR, "#spread-chart .mark[tabindex='0']")
    browser.execute_script("arguments[0].focus()", first)
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.get_attribute("aria-label") in browser.find_element(By.ID, "tip").text
    assert browser.switch_to.active_element != first
    browser.find_element(By.CSS_SELECTOR, "#cost .values summary").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#cost .values tbody tr")) == 20


@needs_browser
def test_every_variant_has_a_mark_of_its_own(browser, pages):
    show(browser, pages["many"], 1280, 900)
    marks = browser.execute_script("return [...Array(64).keys()].map(i => symbol(i, 0, 0, 4) + dash(i))")
    assert len(set(marks)) == 64


@needs_browser
def test_on_paper_charts_fit_and_have_their_keys(browser, pages):
    show(browser, pages["many"], 1280, 900)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    wide = "return [...document.querySelectorAll('svg')].filter(e => e.getBoundingClientRect().right > 700).length"
    assert browser.execute_script(wide) == 0
    keys = browser.find_elements(By.CSS_SELECTOR, "#training .keys li")
    assert len(keys) == 20
    assert all(key.is_displayed() for key in keys)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
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
    first = browser.find_element(By.CSS_SELECTOR, "td[data-row='1'][data-kind='difference']")
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
