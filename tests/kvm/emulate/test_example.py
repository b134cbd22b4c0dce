"""The example in the documentation runs and prints what it should."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "emulate_example.py"

EXPECTED = """\
memory at 2000: b'a sector of data' EDI = 0x2200 ECX = 0
exit: port 0x80, size 1, data 42
in al, dx in protected32 mode, CPL 3, IOPL 0
  decode     in al, dx: opcode ec; 8-bit operand
  permission CPL 3 > IOPL 0: TSS byte 0x74 = fe ff: the bitmap allows it
  port       1 x 1 bytes from port 0x60: served in the kernel
  done       rIP = 0x1001
  register   rax: 0x0 -> 0x1c
  register   rip: 0x1000 -> 0x1001
in al, dx in protected32 mode, CPL 3, IOPL 0
  decode     in al, dx: opcode ec; 8-bit operand
  permission CPL 3 > IOPL 0: TSS byte 0x74 = fe ff: bits 0x0002 of map word 0xfffe are not all clear
  fault      #GP(0): rIP stays at the instruction
  register   rflags: 0x2 -> 0x10002
"""


def test_example(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out == EXPECTED
