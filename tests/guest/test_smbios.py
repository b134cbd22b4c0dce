"""DSP0134, 5.2.1 and chapter 7; the rule is in each test's docstring."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.guest import smbios
from support import require_program

ADDRESS = 0xF0000
STRUCTURES = (
    smbios.bios("1.0", "01/01/2026"),
    smbios.system("PowerEdge-like server", "PV000001"),
    smbios.ipmi(0xCA8, 4),
)


def walk(table: bytes) -> list[tuple[int, int, bytes, list[str]]]:
    """6.1.1, 6.1.3: (type, handle, formatted area, strings) of every structure, as software steps through them."""
    found, place = [], 0
    while place < len(table):
        kind, length = table[place], table[place + 1]
        handle = int.from_bytes(table[place + 2 : place + 4], "little")
        end = table.index(b"\0\0", place + length)
        strings = table[place + length : end].split(b"\0") if end > place + length else []
        found.append((kind, handle, table[place : place + length], [one.decode() for one in strings]))
        place = end + 2
    return found


def table_of(image: bytes) -> bytes:
    start = int.from_bytes(image[0x18:0x1C], "little") - ADDRESS
    return image[start : start + int.from_bytes(image[0x16:0x18], "little")]


# --- entry point ---------------------------------------------------------------------------------------------


def test_entry_point() -> None:
    """Table 1: anchors, length, version, intermediate anchor; both checksums."""
    entry = smbios.build(STRUCTURES, ADDRESS)[:0x1F]
    assert (entry[:4], entry[5], entry[6:8]) == (b"_SM_", 0x1F, b"\x02\x08")
    assert entry[0x0A] == 0
    assert entry[0x10:0x15] == b"_DMI_"
    assert entry[0x1E] == 0x28
    assert sum(entry) % 256 == 0
    assert sum(entry[0x10:]) % 256 == 0


def test_entry_point_describes_the_table() -> None:
    """Table 1: largest structure, table length and address, number of structures."""
    image = smbios.build(STRUCTURES, ADDRESS)
    table = table_of(image)
    structures = walk(table)
    assert int.from_bytes(image[0x1C:0x1E], "little") == len(structures) == 4
    sizes = [
        len(area) + sum(len(text) + 1 for text in texts) + (1 if texts else 2) for _, _, area, texts in structures
    ]
    assert int.from_bytes(image[8:10], "little") == max(sizes)
    assert sum(sizes) == len(table)
    assert image.endswith(table)


def test_ends_with_type_127() -> None:
    """7.45: end of table; handles are all different."""
    structures = walk(table_of(smbios.build(STRUCTURES, ADDRESS)))
    assert [kind for kind, *_ in structures] == [0, 1, 38, 127]
    assert len({handle for _, handle, *_ in structures}) == 4
    assert structures[-1][2][1] == 4


@pytest.mark.parametrize("address", [0xF0008, 0xEFFF0, 0x100000, 0])
def test_places_where_nobody_looks(address: int) -> None:
    """5.2.1: on a 16-byte boundary in F0000-FFFFF."""
    with pytest.raises(ValueError, match=r"SMBIOS entry point at 0x"):
        smbios.build(STRUCTURES, address)


def test_a_table_that_leaves_the_segment() -> None:
    with pytest.raises(ValueError, match="leave the segment"):
        smbios.build(STRUCTURES, 0xFFFE0)


# --- structures ----------------------------------------------------------------------------------------------


def area_of(structure: smbios.Structure) -> tuple[bytes, list[str]]:
    ((_, _, area, strings),) = walk(structure.pack(0x1234))
    return area, strings


def test_bios_information() -> None:
    """7.1: length for 2.4 and later, strings, PCI and selectable boot, ACPI, virtual machine."""
    area, strings = area_of(smbios.bios("1.0", "01/01/2026"))
    assert area[1] == len(area) == 0x18
    assert [strings[area[place] - 1] for place in (4, 5, 8)] == ["portvisor", "1.0", "01/01/2026"]
    assert int.from_bytes(area[6:8], "little") == 0xF000
    assert int.from_bytes(area[0x0A:0x12], "little") == 1 << 7 | 1 << 16
    assert area[0x12:0x14] == bytes((1 << 0, 1 << 4))
    assert area[0x16:0x18] == b"\xff\xff"


def test_system_information() -> None:
    """7.2: manufacturer, product, version, serial number; no UUID; wake-up by the power switch."""
    area, strings = area_of(smbios.system("server", "SN42"))
    assert area[1] == len(area) == 0x1B
    assert [strings[area[place] - 1] for place in range(4, 8)] == ["portvisor", "server", "1.0", "SN42"]
    assert area[8:24] == bytes(16)
    assert area[24:27] == bytes((6, 0, 0))


@pytest.mark.parametrize(
    ("base", "spacing", "address", "modifier"),
    [(0xCA8, 4, 0xCA9, 0x40), (0xCA2, 1, 0xCA3, 0x00), (0xCA3, 1, 0xCA3, 0x10), (0xE00, 16, 0xE01, 0x80)],
)
def test_ipmi_device(base: int, spacing: int, address: int, modifier: int) -> None:
    """7.39: KCS, IPMI 2.0; bit 0 of the address is "I/O", its own bit 0 is modifier bit 4; spacing in 7:6."""
    area, strings = area_of(smbios.ipmi(base, spacing))
    assert area[1] == len(area) == 0x12
    assert strings == []
    assert area[4:8] == bytes((1, 0x20, 0x20, 0xFF))
    assert int.from_bytes(area[8:16], "little") == address
    assert area[16:18] == bytes((modifier, 0))


def test_a_spacing_that_has_no_code() -> None:
    with pytest.raises(ValueError, match="2 bytes apart"):
        smbios.ipmi(0xCA2, 2)


@pytest.mark.parametrize("text", ["", "gr\u00fcn", "a\0b", "tab\t"])
def test_strings_that_would_break_the_set(text: str) -> None:
    """6.1.3: a string set ends at the first empty string."""
    with pytest.raises(ValueError, match="SMBIOS string"):
        smbios.system(text, "serial")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            smbios.Structure,
            st.integers(128, 255),
            st.binary(max_size=100).map(lambda body: body + b"\1"),
            st.lists(
                st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20), max_size=4
            ),
        ),
        max_size=6,
    )
)
def test_software_finds_every_structure(structures: list[smbios.Structure]) -> None:
    """6.1.3: the walk from structure to structure gives back what went in."""
    found = walk(table_of(smbios.build(structures, ADDRESS)))
    assert [(kind, area[4:], strings) for kind, _, area, strings in found[:-1]] == [
        (one.kind, one.body, list(one.strings)) for one in structures
    ]


def test_dmidecode_reads_it(tmp_path: Path) -> None:
    """An independent reader."""
    program = require_program("dmidecode", "dmidecode")
    image = smbios.build(STRUCTURES, ADDRESS)
    table = table_of(image)
    entry = bytearray(image[:0x1F])
    entry[0x18:0x1C] = (0x20).to_bytes(4, "little")
    entry[0x15] = (entry[0x15] - sum(entry[0x10:])) & 0xFF
    entry[0x04] = (entry[0x04] - sum(entry)) & 0xFF
    dump = tmp_path / "dump"
    dump.write_bytes(bytes(entry).ljust(0x20, b"\0") + table)
    shown = subprocess.run(
        [program, "--from-dump", str(dump)], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    assert "SMBIOS 2.8 present." in shown
    for line in (
        "Version: 1.0", "Release Date: 01/01/2026", "ACPI is supported", "System is a virtual machine",
        "Product Name: PowerEdge-like server", "Serial Number: PV000001", "Wake-up Type: Power Switch",
        r"Interface Type: KCS \(Keyboard Control Style\)", r"Specification Version: 2\.0",
        r"Base Address: 0x0000000000000CA8 \(I/O\)", r"Register Spacing: 32-bit Boundaries",
    ):  # fmt: skip
        assert re.search(line, shown), line
    assert not re.search("bad|invalid|wrong|truncated|broken", shown, re.IGNORECASE)
