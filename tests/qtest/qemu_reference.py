"""A stock QEMU as the other side of a comparison, with the qtest accelerator compiled for it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from portvisor.qtest.client import STOPPED_CPU, QtestClient
from support import missing, require_program

SOURCE = Path(__file__).with_name("accelerator.c")
VERSION = "7.2"
"""The accelerator module knows the structures of this version only."""
STAMP = re.compile(rb"qemu_stamp_[0-9a-f]+")


@cache
def _module_folder() -> TemporaryDirectory[str]:
    """A folder with the module; it lives as long as the test process."""
    program = require_program("qemu-system-x86_64", "qemu-system-x86")
    compiler = require_program("cc", "gcc")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if f"version {VERSION}." not in version:
        missing(f"needs QEMU {VERSION} (Debian 12: qemu-system-x86), found {version.splitlines()[0]}")
    stamp = STAMP.search(Path(program).read_bytes())
    assert stamp, "the binary takes no modules"
    folder = TemporaryDirectory(prefix="qtest-accelerator-")
    target = Path(folder.name) / "accel-qtest-x86_64.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", f"-DSTAMP={stamp[0].decode()}", str(SOURCE), "-o", str(target)],
        check=True,
        timeout=60,
    )
    return folder


def stopped_qemu(*arguments: str) -> QtestClient:
    """A client of any QEMU, to be entered; its clock stands."""
    program = require_program("qemu-system-x86_64", "qemu-system-x86")
    return QtestClient(arguments, program=(program,), accelerator=STOPPED_CPU)


def qemu_client(arguments: Sequence[str]) -> QtestClient:
    """A client of QEMU with a virtual clock, to be entered."""
    environment = {**os.environ, "QEMU_MODULE_DIR": _module_folder().name}
    return QtestClient(arguments, program=("qemu-system-x86_64",), environment=environment)
