"""Unix sockets that only this user can connect to, bound in place of those whose program is no more."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct

CREDENTIALS = struct.Struct("iII")
"""struct ucred: pid, uid, gid."""


def remove_stale(path: str) -> None:
    """Remove the socket of a program that is no more.

    Raises:
        OSError: something else is there, or somebody answers.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "is in use by another program")


def bind_private(listener: socket.socket, path: str) -> None:
    """Bind so that the file has mode 0600 from the start."""
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)


def file_identity(path: str) -> tuple[int, int] | None:
    """Which file a path names; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def peer_user(connection: socket.socket) -> int:
    """The user at the other end, as the kernel noted it at connection.

    Raises:
        OSError: the connection is gone.
    """
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(found)[1])
