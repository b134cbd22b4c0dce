"""How the tables reach the guest: SeaBIOS's table-loader script through fw_cfg, or placed by the VMM.

Script format: 128-byte commands, as SeaBIOS reads them from `etc/table-loader`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from portvisor.guest.acpi.tables import RSDP_CHECKSUM, RSDP_LENGTH, RSDP_RSDT, Blob, rsdp

TABLES_FILE = "etc/acpi/tables"
RSDP_FILE = "etc/acpi/rsdp"
LOADER_FILE = "etc/table-loader"
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
ZONE_HIGH, ZONE_FSEG = 1, 2
COMMAND_LENGTH = 128


def _command(kind: int, body: bytes) -> bytes:
    return (struct.pack("<I", kind) + body).ljust(COMMAND_LENGTH, b"\0")


def _file(name: str) -> bytes:
    return name.encode().ljust(56, b"\0")


def _allocate(name: str, align: int, zone: int) -> bytes:
    return _command(ALLOCATE, _file(name) + struct.pack("<IB", align, zone))


def _pointer(target: str, source: str, offset: int, size: int) -> bytes:
    return _command(ADD_POINTER, _file(target) + _file(source) + struct.pack("<IB", offset, size))


def _sum(name: str, place: int, start: int, length: int) -> bytes:
    return _command(ADD_CHECKSUM, _file(name) + struct.pack("<III", place, start, length))


@dataclass(frozen=True, slots=True)
class Tables:
    """All ACPI tables of a machine: the blob and the place of its RSDT."""

    blob: Blob
    rsdt: int

    def fw_cfg_files(self) -> dict[str, bytes]:
        """The three files that make SeaBIOS install the tables."""
        script = [_allocate(RSDP_FILE, 16, ZONE_FSEG), _allocate(TABLES_FILE, 4096, ZONE_HIGH)]
        script += [_pointer(TABLES_FILE, TABLES_FILE, one.offset, one.size) for one in self.blob.pointers]
        script += [_sum(TABLES_FILE, one.field, one.start, one.length) for one in self.blob.checksums]
        script.append(_pointer(RSDP_FILE, TABLES_FILE, RSDP_RSDT, 4))
        script.append(_sum(RSDP_FILE, RSDP_CHECKSUM, 0, RSDP_LENGTH))
        unsummed = bytearray(rsdp(self.rsdt))
        unsummed[RSDP_CHECKSUM] = 0
        return {
            TABLES_FILE: bytes(self.blob.data),
            RSDP_FILE: bytes(unsummed),
            LOADER_FILE: b"".join(script),
        }

    def placed(self, base: int) -> tuple[bytes, bytes]:
        """(tables, RSDP) for tables that lie at guest-physical `base`."""
        return self.blob.placed(base), rsdp(base + self.rsdt)
