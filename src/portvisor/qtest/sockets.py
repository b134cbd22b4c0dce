"""Time limits of sockets that the kernel keeps: `socket.settimeout` costs a poll for each call."""

from __future__ import annotations

import socket
import struct


def set_timeout(link: socket.socket, direction: int, seconds: float) -> None:
    """Limit what a blocking call may wait; it raises BlockingIOError then.

    Args:
        link: a socket that is blocking, as all are at first.
        direction: socket.SO_RCVTIMEO or socket.SO_SNDTIMEO.
        seconds: the limit.
    """
    whole = int(seconds)
    link.setsockopt(socket.SOL_SOCKET, direction, struct.pack("@ll", whole, round((seconds - whole) * 1e6)))
