"""Stock SeaBIOS from reset to "Booting from": software engine within 0.8 s, and `/dev/kvm` for comparison.

.venv/bin/python bench/seabios.py
"""

from __future__ import annotations

import statistics
import sys
import time

from portvisor.backends.image import MemoryImage
from portvisor.cli.run import stock_firmware
from portvisor.kvm.api import EngineError
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc import MIB, Pc, PcOptions

ROUNDS, LIMIT_S, GIVE_UP_S = 5, 0.8, 60.0
REACHED = b"Booting from"


def seconds_to_boot(engine_name: str) -> float:
    """From the first instruction to the text."""
    bios, vga = stock_firmware()
    system = open_engine(engine_name)
    log = bytearray()

    def on_debug(data: bytes) -> None:
        log.extend(data)
        if data == b"." and REACHED in log:
            machine.request_stop(Outcome(End.CONDITION))

    options = PcOptions(memory=64 * MIB, firmware=bios, vga_bios=vga, disks=[MemoryImage(MIB)], on_debug=on_debug)
    with Pc(system, options) as machine:
        start = time.perf_counter()
        outcome = machine.run(GIVE_UP_S)
        taken = time.perf_counter() - start
    system.close()
    if outcome.end is not End.CONDITION:
        raise SystemExit(f"SeaBIOS did not get there: {outcome}")
    return taken


def main() -> int:
    software = statistics.median(seconds_to_boot("software") for _ in range(ROUNDS))
    verdict = "PASS" if software <= LIMIT_S else "FAIL"
    print(f"software engine: {software:.2f} s (limit {LIMIT_S} s) {verdict}")
    try:
        print(f"/dev/kvm: {seconds_to_boot('kvm'):.2f} s")
    except EngineError as error:
        print(f"/dev/kvm: {error}")
    return verdict == "FAIL"


if __name__ == "__main__":
    sys.exit(main())
