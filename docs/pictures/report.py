"""Makes the pictures of `portvisor report` in this folder, from a Debian boot on the machine poweredge.

    python docs/pictures/report.py [TRACE]

Without TRACE the boot is recorded first, which takes a minute on the software engine. Needs the packages chromium
and chromium-driver, and the development dependencies.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parent.parent
sys.path[:0] = [str(TOP / "src"), str(TOP / "tests")]

from rich.console import Console  # noqa: E402

from browser import open_browser, prefer, show  # noqa: E402
from portvisor.trace.page import write_page  # noqa: E402
from portvisor.trace.reader import Trace  # noqa: E402
from portvisor.trace.summary import Summary, summarise  # noqa: E402
from portvisor.trace.terminal import print_report  # noqa: E402

COLUMNS, ROWS = 124, 8
WIDTH, HEIGHT = 1000, 1240
BOOT_S = 600


def record(path: Path) -> None:
    """A boot of Debian's kernel up to its listing."""
    main = "from portvisor.cli.main import main; main()"
    command = [sys.executable, "-c", main, "boot", "--engine", "software", "--trace", str(path)]
    subprocess.run(
        command, check=True, timeout=BOOT_S, env={"PYTHONPATH": str(TOP / "src"), "PATH": "/usr/bin:/bin"}
    )


def terminal(summary: Summary) -> None:
    """The report in a terminal, as SVG."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    print_report(console, summary, ROWS)
    console.save_svg(str(HERE / "report-terminal.svg"), title="portvisor report boot.parquet")


def pages(summary: Summary, folder: Path) -> None:
    """The beginning of the page in both colour schemes, and its end."""
    page = folder / "boot.html"
    write_page(summary, page)
    with open_browser(WIDTH, HEIGHT) as browser:
        for scheme in ("light", "dark"):
            prefer(browser, scheme)
            show(browser, page)
            browser.save_screenshot(str(HERE / f"report-{scheme}.png"))
        browser.execute_script("document.getElementById('latency').scrollIntoView()")
        browser.save_screenshot(str(HERE / "report-dark-end.png"))


def main() -> None:
    """Record, summarise, draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else folder / "boot.parquet"
        if len(sys.argv) < 2:
            record(path)
        summary = summarise(Trace(path))
        summary.path = "boot.parquet"
        terminal(summary)
        pages(summary, folder)


if __name__ == "__main__":
    main()
