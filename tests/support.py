"""What tests need from the host: skipped with advice on a user's machine, a failure in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI", "").lower() == "true"


def missing(what: str) -> None:
    """Skip the test and say what to install; in CI fail instead."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


def require_program(program: str, package: str) -> str:
    """Path of a host program; `package` is the Debian package that has it."""
    path = shutil.which(program)
    if path is None:
        missing(f"needs {program}: apt-get install {package}")
    assert path is not None
    return path


def require_kvm() -> None:
    """Skip or fail unless /dev/kvm can be opened."""
    device = Path("/dev/kvm")
    if not device.exists():
        missing("needs /dev/kvm: a host with virtualization enabled")
    if not os.access(device, os.R_OK | os.W_OK):
        missing("needs the right to open /dev/kvm: join the group kvm")
