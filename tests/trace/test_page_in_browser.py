"""The report's page in a real browser: offline, without errors, by keyboard, light and dark, narrow and wide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import open_browser, prefer, resize, show
from portvisor.kvm.select import open_soft
from portvisor.ports import Device, PortRange, PortSpace
from portvisor.trace.page import SECTIONS, write_page
from portvisor.trace.reader import Trace
from portvisor.trace.schema import Metadata
from portvisor.trace.summary import summarise
from portvisor.trace.writer import TraceWriter
from trace_support import SpaceRecording, record_seabios

pytestmark = pytest.mark.browser
CONTRAST_MIN = 4.5
"""WCAG 2.1, 1.4.3, for text."""
LARGE = 300_000


class Answering(Device):
    """A register at every port of a range."""

    name = "answering"
    ports = (PortRange(0x1000, 0x4000, (1, 2, 4), "answering"),)
    REGISTERS = {offset: f"R{offset:04X} with a rather long name" for offset in range(0x4000)}  # noqa: RUF012


def write_trace(path: Path, accesses: int) -> None:
    """So many accesses, spread over the 64 Ki ports."""
    space = PortSpace()
    space.attach(Answering())
    recording = SpaceRecording(space)
    for number in range(accesses):
        recording.clock.advance(10_000)
        if number & 1:
            space.write(0x1000 + number * 7 % 0x4000, 1, number & 0xFF)
        else:
            space.read(number * 31 % 0x10000, 1)
    rows = recording.recorder
    rows.flush()
    with TraceWriter(path, Metadata(machine="pc", engine="software")) as writer:
        for batch in recording.batches:
            writer.write(batch)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    system = open_soft()
    record_seabios(system, folder / "seabios.parquet")
    system.close()
    for name, accesses in (("empty", 0), ("one", 1), ("large", LARGE)):
        write_trace(folder / f"{name}.parquet", accesses)
    found = {}
    for name in ("seabios", "empty", "one", "large"):
        found[name] = folder / f"{name}.html"
        write_page(summarise(Trace(folder / f"{name}.parquet")), found[name])
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def usual_window(browser: WebDriver) -> None:
    resize(browser, 1100, 900)
    prefer(browser, "light")


def run(browser: WebDriver, script: str, *arguments: Any) -> Any:
    return browser.execute_script(script, *arguments)


ALL = pytest.mark.parametrize("name", ["seabios", "empty", "one", "large"])


@ALL
def test_it_loads_without_an_error_or_a_request(name: str, browser: WebDriver, pages: dict[str, Path]) -> None:
    browser.get_log("performance")
    browser.get_log("browser")
    show(browser, pages[name])
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    wanted = {one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"}
    assert wanted == {pages[name].resolve().as_uri()}


@ALL
def test_every_section_is_there_and_says_something(name: str, browser: WebDriver, pages: dict[str, Path]) -> None:
    show(browser, pages[name])
    for key, title, _ in SECTIONS:
        section = browser.find_element(By.ID, key)
        assert section.find_element(By.TAG_NAME, "h2").text == title
        content = run(
            browser, "return [...arguments[0].children].slice(1).map(e => e.textContent).join('')", section
        )
        assert content.strip(), key
        assert section.size["height"] > 40


def test_a_boot_fills_every_section(browser: WebDriver, pages: dict[str, Path]) -> None:
    show(browser, pages["seabios"])
    least = {"timeline": 50, "map": 50, "latency": 4, "interrupts": 2}
    for key, count in least.items():
        bars = [one for one in browser.find_elements(By.CSS_SELECTOR, f"#{key} rect") if one.size["height"] > 0]
        assert len(bars) >= count, key
    for key in ("budget", "registers", "interrupts", "unassigned"):
        assert len(browser.find_elements(By.CSS_SELECTOR, f"#{key} tbody tr")) >= 3, key


CONTRAST = """
const luminance = text => {
  const part = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
};
const paper = luminance(getComputedStyle(document.body).backgroundColor);
const worst = {};
for (const selector of ['h1', 'h2', 'td', 'th', 'a', 'p.note']) {
  const one = document.querySelector(selector);
  if (!one) continue;
  const ink = luminance(getComputedStyle(one).color);
  worst[selector] = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}
return [paper, worst];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme_with_enough_contrast(
    scheme: str, browser: WebDriver, pages: dict[str, Path]
) -> None:
    prefer(browser, scheme)
    show(browser, pages["seabios"])
    paper, contrasts = run(browser, CONTRAST)
    assert (paper > 0.5) == (scheme == "light")
    assert len(contrasts) == 6
    assert min(contrasts.values()) >= CONTRAST_MIN, contrasts


FOCUS = """
const e = document.activeElement, style = getComputedStyle(e);
return [e.tagName, e.getAttribute('href') || e.getAttribute('aria-label') || e.textContent,
  style.outlineStyle, parseFloat(style.outlineWidth)];
"""


def test_tab_goes_through_links_charts_numbers_and_tables_in_order(
    browser: WebDriver, pages: dict[str, Path]
) -> None:
    """Each stop shows an outline; the order is that of the page."""
    show(browser, pages["seabios"])
    body = browser.find_element(By.TAG_NAME, "body")
    stops = []
    for _ in range(20):
        body.send_keys(Keys.TAB)
        tag, what, style, width = run(browser, FOCUS)
        if tag == "BODY":
            break
        assert style not in ("none", ""), what
        assert width >= 1, what
        stops.append((tag, what))
        body = browser.switch_to.active_element
    links = [("A", f"#{key}") for key, _, _ in SECTIONS]
    assert stops[: len(links)] == links
    assert stops[len(links) :] == [
        ("SUMMARY", "Numbers"), ("DIV", "Exit budget"), ("DIV", "Where in the guest"), ("DIV", "Busiest registers"),
        ("DIV", "Interrupts"), ("DIV", "Unassigned ports"),
    ]  # fmt: skip


def test_keys_follow_links_open_numbers_and_scroll_tables(browser: WebDriver, pages: dict[str, Path]) -> None:
    show(browser, pages["large"])
    browser.find_element(By.CSS_SELECTOR, 'nav a[href="#latency"]').send_keys(Keys.ENTER)
    assert abs(run(browser, "return document.getElementById('latency').getBoundingClientRect().top")) < 900
    assert browser.current_url.endswith("#latency")
    summary = browser.find_element(By.TAG_NAME, "summary")
    summary.send_keys(Keys.ENTER)
    assert browser.find_element(By.TAG_NAME, "details").get_attribute("open")
    table = browser.find_element(By.CSS_SELECTOR, '[aria-label="Unassigned ports"]')
    table.send_keys(Keys.END)
    browser.implicitly_wait(0)
    for _ in range(50):
        if run(browser, "return arguments[0].scrollTop", table) > 0:
            break
        run(browser, "return new Promise(done => setTimeout(done, 50))")
    assert run(browser, "return arguments[0].scrollTop", table) > 0


@ALL
@pytest.mark.parametrize("width", [320, 480, 1600])
def test_it_never_scrolls_sideways(width: int, name: str, browser: WebDriver, pages: dict[str, Path]) -> None:
    resize(browser, width, 800)
    show(browser, pages[name])
    run(browser, "for (const e of document.querySelectorAll('details')) e.open = true")
    assert run(browser, "return document.documentElement.scrollWidth") <= width


def test_a_large_trace_is_a_small_page(pages: dict[str, Path]) -> None:
    assert pages["large"].stat().st_size < 4 << 20
