"""The documentation site: it builds without a warning and reads well on a phone and on a laptop, without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.browser import WIDTHS, emulate, needs_browser, open_browser, requests, show

pytestmark = pytest.mark.integration

WIDE = """
const wide = [...document.querySelectorAll("article *")].filter((e) => {
    const box = e.getBoundingClientRect();
    let inside = e.parentElement;
    while (inside && getComputedStyle(inside).overflowX === "visible") inside = inside.parentElement;
    return box.width > 0 && box.right > document.documentElement.clientWidth + 1 && (!inside || inside.tagName === "HTML");
});
return wide.map((e) => e.outerHTML.slice(0, 120));
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Its notebooks are not executed: `make notebooks` does that."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-D", "nb_execution_mode=off"]
    command += ["-d", str(folder / "doctrees"), "docs", str(folder / "html")]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def browser():
    yield from open_browser()


@needs_browser
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_no_page_has_errors_asks_a_network_or_scrolls_sideways(browser, site, width, height):
    pages = sorted(page for page in site.rglob("*.html") if "_modules" not in page.parts)
    assert len(pages) > 20
    wrong = {}
    for page in pages:
        show(browser, page, width, height)
        errors = [entry["message"] for entry in browser.get_log("browser")]
        errors += [address for address in requests(browser) if not address.startswith(("file://", "data:"))]
        if browser.execute_script("return document.documentElement.scrollWidth") > width:
            errors += ["scrolls sideways", *browser.execute_script(WIDE)]
        if errors:
            wrong[page.relative_to(site).as_posix()] = errors
        if folder := os.environ.get("SCREENSHOTS"):
            whole = browser.execute_script("return document.documentElement.scrollHeight")
            for scheme in ("light", "dark") if page.stem in ("index", "results") else ("light",):
                emulate(browser, scheme)
                show(browser, page, width, min(whole, 6000))
                browser.save_screenshot(f"{folder}/site_{page.stem}_{width}_{scheme}.png")
            emulate(browser, "light")
    assert wrong == {}


@needs_browser
def test_search_finds_a_class(browser, site):
    show(browser, site / "search.html", 1280, 900)
    browser.get((site / "search.html").as_uri() + "?q=LambdaLayer")
    found = "return document.querySelectorAll('#search-results li a').length"
    browser.set_script_timeout(30)
    waiting = (
        "const done = arguments[0]; const look = () => {FOUND ? done(FOUND) : requestAnimationFrame(look)}; look();"
    )
    assert browser.execute_async_script(waiting.replace("FOUND", found.removeprefix("return "))) > 0
