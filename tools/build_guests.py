#!/usr/bin/env python3
"""Assemble the guest programs: every NAME.S beside its NAME.bin, with GNU as, ld and objcopy.

Usage: build_guests.py [--check]
With --check nothing is written; exit status 1 says that a .bin is not what its source gives.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
INCLUDES = PROJECT / "src" / "portvisor" / "guest" / "data"
DIRECTORIES = (INCLUDES, PROJECT / "tests" / "guests")
ORIGIN = "0x7c00"


def sources() -> list[Path]:
    """All programs."""
    return sorted(source for directory in DIRECTORIES for source in directory.glob("*.S"))


def assemble(source: Path) -> bytes:
    """The flat binary of a program."""
    with tempfile.TemporaryDirectory() as place:
        object_file, linked, flat = (Path(place) / name for name in ("guest.o", "guest.elf", "guest.bin"))
        _run("as", "--32", "--fatal-warnings", "-I", INCLUDES, "-o", object_file, source)
        _run("ld", "-m", "elf_i386", "-Ttext", ORIGIN, "-e", "start", "-o", linked, object_file)
        _run("objcopy", "-O", "binary", "-j", ".text", linked, flat)
        return flat.read_bytes()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def main(arguments: list[str]) -> int:
    """Build or check everything."""
    stale = 0
    for source in sources():
        binary = source.with_suffix(".bin")
        image = assemble(source)
        if binary.exists() and binary.read_bytes() == image:
            continue
        stale = 1
        print(f"{binary.relative_to(PROJECT)}: {len(image)} bytes")
        if "--check" not in arguments:
            binary.write_bytes(image)
    return stale if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
