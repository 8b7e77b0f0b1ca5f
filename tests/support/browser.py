"""Debian's chromium, driven by selenium, for tests that look at pages as their readers do."""

import json
import logging
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from selenium import webdriver

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium: `make debian` installs it")

WIDTHS = [(375, 740), (1280, 900)]  # a phone and a laptop


def open_browser() -> Iterator[webdriver.Chrome]:
    """A browser without a window that keeps what pages log and request."""
    logging.getLogger("selenium").setLevel(logging.WARNING)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    emulate(found, "light")
    yield found
    found.quit()


def emulate(browser, scheme: str) -> None:
    wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wanted.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def show(browser, page: Path, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())


def requests(browser: webdriver.Chrome) -> list[str]:
    """The addresses asked for since the last call or `show`."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def barriers(browser: webdriver.Chrome) -> list[str]:
    """What axe finds that keeps people from reading the page: serious or critical."""
    browser.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text())
    script = "const done = arguments[0]; axe.run().then(found => done(found.violations))"
    found = [each for each in browser.execute_async_script(script) if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]
