"""Debian's chromium without a window or a network, for tests of pages and for the pictures of the documentation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from support import require_program

LOAD_S = 60


@contextmanager
def open_browser(width: int = 1100, height: int = 900) -> Iterator[WebDriver]:
    """A browser with a log of its console and of every request, and with the network off."""
    chromium = require_program("chromium", "chromium")
    driver = require_program("chromedriver", "chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-extensions"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # chromium refuses to run as root otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(LOAD_S)
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        resize(browser, width, height)
        yield browser
    finally:
        browser.quit()


def resize(browser: WebDriver, width: int, height: int) -> None:
    """Set the size of the page's viewport."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(browser: WebDriver, scheme: str) -> None:
    """Light or dark, as the user's desktop would have it."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def show(browser: WebDriver, page: Path) -> None:
    """Open a page from a file."""
    browser.get(page.resolve().as_uri())
