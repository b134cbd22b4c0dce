"""Makes the pictures of `portvisor top` from a real run: Debian on the server, its shell kept busy.

    python docs/pictures/top.py [FOLDER]

Writes top.svg, top-devices.svg and top-port.svg, by default next to this file. They load nothing from anywhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from portvisor.live.client import Connection
from portvisor.live.screen import TopApp

SIZE = (124, 30)
LOOKS = 45
"""Seconds until the curves have something to show."""
WORK = """
i=0; while :; do i=$((i+1))
cat /proc/driver/rtc >/dev/null; cat /sys/class/rtc/rtc0/time
for f in /sys/bus/pci/devices/*/config; do cat $f >/dev/null; done
[ $((i % 20)) = 0 ] && dd if=/dev/zero of=/dev/null bs=64k count=$((500 + i % 7 * 500)) 2>/dev/null
done
"""
FONT_FACE = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)


def start_guest(runtime: Path) -> subprocess.Popen[bytes]:
    """Debian with a shell whose input is ours."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "portvisor", "boot", "--shell", "--engine", "software",
            "--live",
        ],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_shell(guest: subprocess.Popen[bytes]) -> None:
    """Read the guest's output up to its prompt.

    Raises:
        EOFError: it ended before.
    """
    assert guest.stdout is not None
    seen = b""
    while b"/ # " not in seen:
        data = os.read(guest.stdout.fileno(), 1 << 16)
        if not data:
            raise EOFError("the guest ended before its shell")
        seen = (seen + data)[-4096:]


def self_contained(svg: str) -> str:
    """Without fonts from the network: any monospaced one does."""
    return FONT_FACE.sub("", svg).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, DejaVu Sans Mono, monospace"
    )


async def take_pictures(socket: Path, folder: Path) -> list[Path]:
    """Look on for a while, then save what each table shows."""
    written = []
    with Connection(socket) as connection:
        app = TopApp(connection)

        def save(name: str) -> None:
            path = folder / name
            path.write_text(self_contained(app.export_screenshot(title="portvisor top")))
            written.append(path)

        async with app.run_test(size=SIZE) as pilot:
            await asyncio.sleep(LOOKS)
            await pilot.pause()
            save("top.svg")
            await pilot.press("tab")
            await pilot.pause()
            save("top-devices.svg")
            await pilot.press("tab", "slash", *"0x71", "enter", "enter")
            await asyncio.sleep(8)
            save("top-port.svg")
    return written


async def run(socket: Path, folder: Path, guest: subprocess.Popen[bytes]) -> list[Path]:
    """The same, while the guest's output is kept from filling its pipe."""
    loop = asyncio.get_running_loop()
    assert guest.stdout is not None
    loop.add_reader(guest.stdout.fileno(), os.read, guest.stdout.fileno(), 1 << 16)
    try:
        return await take_pictures(socket, folder)
    finally:
        loop.remove_reader(guest.stdout.fileno())


def main() -> None:
    """Run the guest and take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    with tempfile.TemporaryDirectory() as place:
        guest = start_guest(Path(place))
        socket = Path(place, "portvisor", f"{guest.pid}.sock")
        try:
            wait_for_shell(guest)
            assert guest.stdin is not None
            guest.stdin.write(WORK.strip().replace("\n", "; ").replace("do; ", "do ").encode() + b"\n")
            guest.stdin.flush()
            time.sleep(1)
            for path in asyncio.run(run(socket, folder, guest)):
                print(path)
        finally:
            guest.kill()
            guest.wait()


if __name__ == "__main__":
    main()
