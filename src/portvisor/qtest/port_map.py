"""The port maps of QEMU's boards and of ours, stretch by stretch: which chip answers where.

The names differ (`pit` there, `timer0` here), so a table says which of our rows models which of QEMU's regions.
Differences that are meant are listed with their reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from portvisor.ports.ioports import Resource
from portvisor.ports.range import PORT_COUNT
from portvisor.qtest.mtree import Region

MODELLED_BY: dict[str, frozenset[str]] = {
    region: frozenset(rows.split(","))
    for region, rows in {
        "dma-chan": "dma1,dma2",
        "dma-cont": "dma1,dma2",
        "pic": "pic1,pic2",
        "pit": "timer0",
        "i8042-data": "keyboard",
        "i8042-cmd": "keyboard",
        "pcspk": "port61",
        "rtc-index": "rtc0",
        "rtc": "rtc0",
        "ioport80": "dma page reg",
        "dma-page": "dma page reg",
        "port92": "port92",
        "apm-io": "apm",
        "ioportF0": "fpu",
        "isa-debug-exit": "debug-exit",
        "ide": "ide0,ide1",
        "vbe": "vbe",
        "parallel": "parallel",
        "vga": "vga+,vga+ mono",
        "fdc": "floppy",
        "serial": "serial",
        "isa-debugcon": "debugcon",
        "ib700": "ib700",
        "elcr": "elcr",
        "pvpanic": "pvpanic",
        "fwcfg": "fw_cfg",
        "fwcfg.dma": "fw_cfg dma",
        "ipmi-kcs": "ipmi kcs",
        "pci-conf-idx": "PCI conf1",
        "pci-conf-data": "PCI conf1",
        "piix3-reset-control": "reset control",
        "lpc-reset-control": "reset control",
    }.items()
}
"""Names of our rows by QEMU's region."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ports `start` to `end` (inclusive) with one owner on each side; "" is nobody."""

    start: int
    end: int
    theirs: str
    ours: str

    @property
    def same(self) -> bool:
        """Whether the same chip answers, or nobody."""
        return self.ours in MODELLED_BY.get(self.theirs, ()) if self.theirs else not self.ours

    @property
    def reason(self) -> str | None:
        """Why the two differ, if that is meant; None if not."""
        return next((known.reason for known in KNOWN if known.covers(self)), None)

    @property
    def ports(self) -> int:
        """How many."""
        return self.end - self.start + 1

    def __str__(self) -> str:
        return f"{self.start:04x}-{self.end:04x} {self.theirs or '-'} / {self.ours or '-'}"


@dataclass(frozen=True, slots=True)
class KnownDifference:
    """A difference that is meant: the ports, who answers them there and here, and the reason."""

    start: int
    end: int
    theirs: str
    ours: str
    reason: str

    def covers(self, stretch: Stretch) -> bool:
        """Whether this is it."""
        return (
            self.start <= stretch.start
            and stretch.end <= self.end
            and (self.theirs, self.ours) == (stretch.theirs, stretch.ours)
        )


_PARAVIRTUAL = "paravirtual, on no real board"
_RESERVED_PAGES = "reserved page registers of PIIX3 and ICH9"
_IB700 = "no register there; QEMU takes the block"
_NO_PIIX4 = "our pc has no PIIX4 function 3"
KNOWN = (
    KnownDifference(0x72, 0x73, "", "rtc0", "extended CMOS bank of PIIX4 and ICH9"),
    KnownDifference(0x7E, 0x7F, "kvmvapic", "", _PARAVIRTUAL),
    KnownDifference(0x84, 0x86, "", "dma page reg", _RESERVED_PAGES),
    KnownDifference(0x88, 0x88, "", "dma page reg", _RESERVED_PAGES),
    KnownDifference(0x8C, 0x8E, "", "dma page reg", _RESERVED_PAGES),
    KnownDifference(0x1D1, 0x1D1, "vbe", "", "QEMU's alias of the data register"),
    KnownDifference(0x378, 0x37F, "parallel", "", "no isa-parallel in portvisor-system-x86_64"),
    KnownDifference(0x3C0, 0x3DF, "", "vga+", "our VGA answers its whole block"),
    KnownDifference(0x442, 0x442, "ib700", "", _IB700),
    KnownDifference(0x444, 0x444, "ib700", "", _IB700),
    KnownDifference(0xCC0, 0xCD7, "acpi-pci-hotplug", "", _PARAVIRTUAL),
    KnownDifference(0xCD8, 0xCF7, "acpi-cpu-hotplug", "", _PARAVIRTUAL),
    KnownDifference(0x5658, 0x5658, "vmport", "", "VMware's back door, on no real board"),
    KnownDifference(0xAE00, 0xAE17, "acpi-pci-hotplug", "", _PARAVIRTUAL),
    KnownDifference(0xAF00, 0xAF1F, "acpi-cpu-hotplug", "", _PARAVIRTUAL),
    KnownDifference(0xAFE0, 0xAFE3, "acpi-gpe0", "", _PARAVIRTUAL),
    KnownDifference(0xB100, 0xB13F, "pm-smbus", "", _NO_PIIX4),
)
"""Every difference that is meant, on the boards `pc` and `q35` and with the devices that both have."""


def _owner_of_regions(regions: Iterable[Region]) -> list[str]:
    owners = [""] * PORT_COUNT
    for region in regions:
        owners[region.start : region.end + 1] = [region.name] * (region.end + 1 - region.start)
    return owners


def _owner_of_rows(tree: Resource) -> list[str]:
    """Rows further in come later and win."""
    owners = [""] * PORT_COUNT
    for row in tree.walk():
        owners[row.start : row.end + 1] = [row.name] * (row.end + 1 - row.start)
    return owners


def compare(regions: Iterable[Region], tree: Resource) -> list[Stretch]:
    """Every stretch that somebody owns, in order of the ports."""
    return list(_stretches(_owner_of_regions(regions), _owner_of_rows(tree)))


def _stretches(theirs: Sequence[str], ours: Sequence[str]) -> Iterator[Stretch]:
    port = 0
    for (their, our), group in groupby(zip(theirs, ours, strict=True)):
        length = sum(1 for _ in group)
        if their or our:
            yield Stretch(port, port + length - 1, their, our)
        port += length
