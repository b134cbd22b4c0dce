"""Archives in the `newc` format, which the kernel unpacks as an initramfs.

Source: Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGN = 4


@dataclass(frozen=True, slots=True)
class Node:
    """One file of the archive; `mode` includes the file type."""

    path: str
    mode: int
    data: bytes = b""
    major: int = 0
    minor: int = 0


class Archive:
    """Files in the order they were added; parents are made as needed, a later file replaces an earlier."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and its parents."""
        self._add(Node(path, stat.S_IFDIR | mode))

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(Node(path, stat.S_IFREG | mode, data))

    def symlink(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(Node(path, stat.S_IFLNK | 0o777, target.encode()))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._add(Node(path, stat.S_IFCHR | mode, b"", major, minor))

    def _add(self, node: Node) -> None:
        path = node.path.strip("/")
        parent = path.rpartition("/")[0]
        if parent and parent not in self._nodes:
            self.directory(parent)
        if stat.S_ISDIR(node.mode) and path in self._nodes:
            return
        self._nodes[path] = Node(path, node.mode, node.data, node.major, node.minor)

    def build(self) -> bytes:
        """The archive; the same files in the same order give the same bytes."""
        out = bytearray()
        for inode, node in enumerate(self._nodes.values(), start=1):
            out += _entry(node, inode)
        out += _entry(Node(TRAILER, 0), 0)
        return bytes(out)


def _entry(node: Node, inode: int) -> bytes:
    name = node.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (inode, node.mode, 0, 0, links, 0, len(node.data), 0, 0, node.major, node.minor, len(name), 0)
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(node.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGN)
