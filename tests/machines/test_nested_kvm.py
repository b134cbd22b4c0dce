"""The server on the hardware engine, with a KVM that runs long mode: nested SVM inside QEMU."""

from __future__ import annotations

import pytest

from nested_kvm import run_nested
from portvisor.guest.seed import seed_listing
from portvisor.ports.ioports import Difference, diff, parse

pytestmark = [pytest.mark.slow, pytest.mark.nested, pytest.mark.qemu]

BOOT = """
import fcntl
from machines.server_support import Server, settled
from portvisor.guest.debian import PRINT_LISTING
from portvisor.kvm.select import open_engine

KVM_GET_TSC_KHZ = 0xAEA3
system = open_engine("kvm")
vm = system.create_vm()
khz = fcntl.ioctl(vm.create_vcpu(0).fileno(), KVM_GET_TSC_KHZ)
vm.close()
words = f"quiet loglevel=0 tsc_early_khz={khz} lpj={khz * 4}"
with Server(settled(PRINT_LISTING), engine="kvm", memory=256 << 20, words=words) as server:
    outcome = server.run(400)
    print("OUTCOME", outcome)
    print(server.second.sent.decode().replace("\\r", ""))
    if "listing" not in server.second.sent.decode():
        print(server.text[-3000:])
"""
"""Quiet and with a known TSC: an exit costs about a millisecond here, and calibration alone takes 31,000."""


def test_the_server_prints_the_same_listing_on_real_kvm() -> None:
    result = run_nested(BOOT, timeout=560)
    assert result.status == 0, result.console[-4000:]
    assert "OUTCOME powered off" in result.output, result.output[-3000:]
    body = result.output.partition("=== listing ===\n")[2].partition("=== end ===")[0]
    difference = diff(seed_listing(), parse(body, "guest"))
    assert difference.count(Difference.EQUAL) == 61
    assert difference.count(Difference.EXTRA) == 0


RING3 = """
from machines.test_guest_checks import report
from portvisor.kvm.select import open_engine
for name in ("ring3", "stringio"):
    for line in report(open_engine("kvm"), name):
        print(line)
"""
KVM_DEVIATIONS = (
    "ring 3: LOCK IN is no instruction",
    "ring 3: LOCK IN is none for a refused port either",
)
"""Checks of `ring3` that fail, by name: QEMU's CPU below executes a LOCKed IN (docs/kvm-deviations.md)."""


def test_port_permission_in_ring_3_and_vm86_on_real_kvm() -> None:
    result = run_nested(RING3, timeout=300)
    assert result.status == 0, result.console[-3000:]
    lines = result.output.splitlines()
    bad = [line.removeprefix("BAD").strip() for line in lines if line.startswith("BAD")]
    assert bad == list(KVM_DEVIATIONS), result.output
    assert "stringio: 22 good, 0 bad" in lines
