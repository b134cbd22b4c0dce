"""Where running machines put their sockets: a directory that only this user can enter."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from portvisor.live.errors import LiveError

FOLDER, SUFFIX = "portvisor", ".sock"
PRIVATE = 0o700


def folders() -> list[Path]:
    """Where sockets may lie, the preferred place first: the user's runtime directory, else one in /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime, FOLDER)] if runtime.startswith("/") and Path(runtime).is_dir() else []
    return [*places, Path(tempfile.gettempdir(), f"{FOLDER}-{os.geteuid()}")]


def default_path() -> Path:
    """Where this process offers its socket; the directory is made.

    Raises:
        LiveError: no directory, or one that others can enter.
    """
    failures = []
    for folder in folders():
        try:
            folder.mkdir(PRIVATE, exist_ok=True)
        except OSError as error:
            failures.append(f"{folder}: {error.strerror}")
            continue
        if is_private(folder):
            return folder / f"{os.getpid()}{SUFFIX}"
        failures.append(f"{folder}: is not a directory of this user alone (mode 0700)")
    raise LiveError(f"no place for the socket: {'; '.join(failures)}")


def is_private(folder: Path) -> bool:
    """Whether only this user can enter."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    mine = status.st_uid == os.geteuid()
    return mine and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077


def sockets() -> list[Path]:
    """All sockets in the places above that are private."""
    found = [path for folder in folders() if is_private(folder) for path in folder.glob(f"*{SUFFIX}")]
    return sorted(path for path in found if path.is_socket())


def socket_of(pid: int) -> Path | None:
    """The socket that this process offers."""
    return next((path for path in sockets() if path.name == f"{pid}{SUFFIX}"), None)
