"""AML and the fixed tables: against the specification's encodings, and against iasl's reading of them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from portvisor.guest.acpi import aml, tables
from portvisor.guest.acpi.loader import LOADER_FILE, RSDP_FILE, TABLES_FILE, Tables
from support import require_program


@pytest.mark.parametrize(
    ("size", "encoding"),
    [(0, "01"), (62, "3f"), (63, "4104"), (4093, "4fff"), (4094, "810001"), (1 << 20, "c4000001")],
)
def test_package_length_takes_the_fewest_bytes_and_counts_itself(size: int, encoding: str) -> None:
    assert aml.package_length(bytes(size))[: len(encoding) // 2].hex() == encoding


def test_a_package_beyond_2_to_the_28_is_refused() -> None:
    with pytest.raises(aml.AmlError, match="AML allows"):
        aml.package_length(bytes(1 << 28))


@pytest.mark.parametrize(
    ("path", "encoding"),
    [
        ("_HID", b"_HID"),
        ("PCI0", b"PCI0"),
        ("_SB", b"_SB_"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("^PCI0", b"^PCI0"),
        ("\\", b"\\\0"),
        ("\\_SB.PCI0.LPC0", b"\\\x2f\x03_SB_PCI0LPC0"),
    ],
)
def test_name_strings(path: str, encoding: bytes) -> None:
    assert aml.name(path) == encoding


@pytest.mark.parametrize("path", ["pci0", "TOOLONG", "1ABC", "A..B"])
def test_a_bad_name_is_refused(path: str) -> None:
    with pytest.raises(aml.AmlError, match="no AML name"):
        aml.name(path)


def test_integers_take_the_shortest_form() -> None:
    values = {0: "00", 1: "01", 2: "0a02", 0x100: "0b0001", 0x10000: "0c00000100", 1 << 32: "0e0000000001000000"}
    assert {value: aml.integer(value).hex() for value in values} == values


def test_eisa_id_of_the_specifications_example() -> None:
    assert aml.eisa_id("PNP0303") == b"\x0c\x41\xd0\x03\x03"


def test_checksums_and_pointers_of_a_placed_blob() -> None:
    blob = tables.Blob()
    target = blob.add(tables.table(b"TEST", 1, b"abc"))
    content, pointers = tables.rsdt([target])
    root = blob.add(content, pointers)
    placed = blob.placed(0x100000)
    for offset in (target, root):
        length = struct.unpack_from("<I", placed, offset + 4)[0]
        assert sum(placed[offset : offset + length]) & 0xFF == 0
    assert struct.unpack_from("<I", placed, root + tables.HEADER.size)[0] == 0x100000 + target


def run_loader(files: dict[str, bytes], base: int) -> tuple[bytes, bytes]:
    """What firmware does with the loader script: an independent reading of its format."""
    memory = {TABLES_FILE: bytearray(files[TABLES_FILE]), RSDP_FILE: bytearray(files[RSDP_FILE])}
    places = {TABLES_FILE: base, RSDP_FILE: 0xF5000}
    script = files[LOADER_FILE]
    for start in range(0, len(script), 128):
        kind = struct.unpack_from("<I", script, start)[0]
        first = script[start + 4 : start + 60].rstrip(b"\0").decode()
        if kind == 2:
            source = script[start + 60 : start + 116].rstrip(b"\0").decode()
            offset, size = struct.unpack_from("<IB", script, start + 116)
            field = memory[first][offset : offset + size]
            value = int.from_bytes(field, "little") + places[source]
            memory[first][offset : offset + size] = value.to_bytes(size, "little")
        elif kind == 3:
            place, begin, length = struct.unpack_from("<III", script, start + 60)
            total = sum(memory[first][begin : begin + length])
            memory[first][place] = (memory[first][place] - total) & 0xFF
    return bytes(memory[TABLES_FILE]), bytes(memory[RSDP_FILE])


def test_firmware_loader_and_direct_placement_give_the_same_tables() -> None:
    blob = tables.Blob()
    one = blob.add(tables.table(b"TEST", 1, b"abcd"))
    content, pointers = tables.rsdt([one])
    built = Tables(blob, blob.add(content, pointers))
    assert run_loader(built.fw_cfg_files(), 0x7FE0000) == built.placed(0x7FE0000)


def every_construct() -> bytes:
    crs = aml.resources(
        [
            aml.word_space(aml.SpaceType.BUS_NUMBER, 0, 0x7F),
            aml.word_space(aml.SpaceType.IO, 0, 0x3BB),
            aml.dword_memory(0xE0000000, 0xFEBFFFFF),
            aml.io(0xCF8, 8),
            aml.irq_no_flags(8),
            aml.irq_no_flags(),
            aml.irq_level(10, 11),
            aml.dma(4),
            aml.memory32_fixed(0xFED1C000, 0x4000),
        ]
    )
    device = aml.device(
        "PCI0",
        aml.assign("_HID", aml.hardware_id("PNP0A08")),
        aml.assign("_CID", aml.hardware_id("IPI0001")),
        aml.assign("_CRS", crs),
        aml.assign("_PRT", aml.package(aml.package(*map(aml.integer, (0x1FFFFF, 0, 0, 16))))),
        aml.method("_STA", aml.returns(aml.integer(0xF))),
    )
    return (
        aml.scope("\\_PR", aml.processor("CPU0", 0, 0x410, 6))
        + aml.scope("\\_SB", device)
        + aml.assign("\\_S5", aml.package(*map(aml.integer, (7, 7, 0, 0))))
    )


def test_iasl_disassembles_and_recompiles_every_construct(tmp_path: Path) -> None:
    require_program("iasl", "acpica-tools")
    blob = tables.Blob()
    blob.add(tables.table(b"DSDT", 2, every_construct()))
    (tmp_path / "dsdt.aml").write_bytes(blob.placed(0))
    run = subprocess.run(
        ["iasl", "-d", "dsdt.aml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "dsdt.dsl").read_text()
    for words in ("Processor (CPU0, 0x00, 0x00000410, 0x06)", 'EisaId ("PNP0A08")', "WordBusNumber", "IRQNoFlags"):
        assert words in text
    run = subprocess.run(
        ["iasl", "-oa", "-p", "again", "dsdt.dsl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "0 Errors" in run.stdout
    again, first = (tmp_path / "again.aml").read_bytes(), (tmp_path / "dsdt.aml").read_bytes()
    assert again[tables.HEADER.size :] == first[tables.HEADER.size :]


def test_iasl_reads_the_fixed_tables_without_complaint(tmp_path: Path) -> None:
    require_program("iasl", "acpica-tools")
    hardware = tables.FixedHardware(
        pm1a_event=tables.Block(0x400, 4),
        pm1a_control=tables.Block(0x404, 2),
        pm2_control=tables.Block(0x450, 1),
        pm_timer=tables.Block(0x408, 4),
        gpe0=tables.Block(0x420, 16),
    )
    register = tables.Gas(tables.SYSTEM_MEMORY, 64, 0x100)
    contents = {
        "facp": tables.fadt(hardware, 0x40, 0x80)[0],
        "apic": tables.madt(1),
        "erst": tables.erst([tables.ErstEntry(0, 3, register)])[0],
        "rsdt": tables.rsdt([0x40])[0],
    }
    for name, content in contents.items():
        blob = tables.Blob()
        blob.add(content)
        (tmp_path / f"{name}.aml").write_bytes(blob.placed(0))
        run = subprocess.run(
            ["iasl", "-d", f"{name}.aml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        listing = (tmp_path / f"{name}.dsl").read_text()
        assert "Invalid" not in listing, listing
        assert "incorrect checksum" not in run.stderr.lower(), run.stderr
    fadt_text = (tmp_path / "facp.dsl").read_text()
    assert "Reset Register Supported (V2) : 1" in fadt_text
    assert shutil.which("iasl")
