"""An unmodified Debian kernel on the seed's server: its drivers bind to our devices, and the devices work."""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from pathlib import Path

import pytest

from machines.boot_support import stock_bios
from machines.server_support import COMMAND_LINE, MIB, Server, compile_static, kernel, settled
from portvisor.backends.image import MemoryImage
from portvisor.backends.records import FileRecords
from portvisor.guest.debian import LOAD, LOAD_IPMI, MODULES, PRINT_LISTING, SETTLE, SPARE_MODULES, build_initramfs
from portvisor.guest.initramfs import InitramfsPlan
from portvisor.guest.linux import LinuxGuest
from portvisor.guest.linux_disk import linux_disk
from portvisor.guest.seed import seed_listing
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End
from portvisor.machines.poweredge import TABLES_ADDRESS, PowerEdge, PowerEdgeOptions
from portvisor.machines.poweredge_acpi import Variant
from portvisor.machines.snapshot import restore, take
from portvisor.ports import BufferedChar
from portvisor.ports.ioports import Diff, Difference, diff, parse

pytestmark = [pytest.mark.slow, pytest.mark.guest]

EXPECTED = {Variant.HONEST: 61, Variant.EXACT: 63}


def listing_of(port: BufferedChar) -> Diff:
    text = port.sent.decode().replace("\r", "")
    body = text.partition("=== listing ===\n")[2].partition("=== end ===")[0]
    return diff(seed_listing(), parse(body, "guest"))


@pytest.mark.parametrize("variant", list(Variant), ids=lambda variant: variant.value)
def test_the_kernel_prints_the_seeds_listing(variant: Variant) -> None:
    words = "acpica_no_return_repair" if variant is Variant.EXACT else ""
    early = "load ipmi_si\n" if variant is Variant.EXACT else ""
    with Server(early + settled(PRINT_LISTING), variant=variant, words=words) as server:
        outcome = server.run()
        difference = listing_of(server.second)
    assert outcome.end is End.POWER_OFF
    assert difference.count(Difference.EQUAL) == EXPECTED[variant]
    assert difference.count(Difference.EXTRA) == 0


def test_stock_seabios_and_grub_start_the_kernel_with_the_same_listing() -> None:
    """Nothing is placed in memory by us: tables and memory map come through fw_cfg, the kernel from AHCI."""
    bios, vga = stock_bios()
    plan = InitramfsPlan(MODULES, SPARE_MODULES, LOAD + settled(PRINT_LISTING) + "poweroff -f\n")
    guest = LinuxGuest(kernel().image.read_bytes(), build_initramfs(kernel(), plan), COMMAND_LINE)
    console, second = BufferedChar(), BufferedChar()
    system = open_engine("software")
    options = PowerEdgeOptions(
        memory=256 * MIB,
        firmware=bios,
        vga_bios=vga,
        serial=(console, second),
        sata=[MemoryImage(linux_disk(guest))],
    )
    with PowerEdge(system, options) as machine:
        outcome = machine.run(300)
        assert not machine.failures
    system.close()
    assert outcome.end is End.POWER_OFF, bytes(console.sent[-2000:])
    difference = listing_of(second)
    assert difference.count(Difference.EQUAL) == EXPECTED[Variant.HONEST]
    assert difference.count(Difference.EXTRA) == 0


def test_devices_answer_the_guests_own_tools(tmp_path: Path) -> None:
    """One boot: the clock, the BMC, the ACPI tables and both UARTs."""
    script = settled(
        LOAD_IPMI
        + """
cat /sys/class/rtc/rtc0/since_epoch | sed 's/^/EPOCH /'
/bin/ipmi_id
for t in DSDT FACP APIC ERST; do echo "TABLE $t $(sha256sum < /sys/firmware/acpi/tables/$t)"; done
stty -F /dev/ttyS1 raw -echo
exec 4<> /dev/ttyS1
echo LISTEN
read -t 20 line <&4
echo "SECOND $line"
i=0; while [ $i -lt 20 ]; do echo "second $i" >&4; echo "first $i"; i=$((i+1)); done
grep ttyS /proc/interrupts | sed 's/^/IRQ /'
"""
    )
    files = {"bin/ipmi_id": compile_static("ipmi_id.c", tmp_path)}
    with Server(script, files=files) as server:
        assert server.run_until_says("LISTEN").end is End.CONDITION, server.text[-2000:]
        server.second.type(b"hello from the host\n")
        now = time.time()
        assert server.run().end is End.POWER_OFF
        text = server.text
        placed = server.machine.tables.blob.placed(TABLES_ADDRESS)
    epoch = int(re.findall(r"^EPOCH (\d+)", text, re.MULTILINE)[0])
    assert 0 <= now - epoch < 20
    assert "IPMI 00 20 01 02 10 02 8f" in text
    for signature in ("DSDT", "FACP", "APIC", "ERST"):
        start = placed.index(signature.encode())
        length = int.from_bytes(placed[start + 4 : start + 8], "little")
        digest = hashlib.sha256(placed[start : start + length]).hexdigest()
        assert f"TABLE {signature} {digest}" in text
    assert "SECOND hello from the host" in text
    assert [f"first {n}" in text for n in range(20)] == [True] * 20
    assert b"second 19" in server.second.sent
    assert len(re.findall(r"^IRQ +[34]: +[1-9]\d*", text, re.MULTILINE)) == 2


def test_the_guests_clock_agrees_with_the_hosts_to_a_second() -> None:
    script = settled("sleep 1; echo HWCLOCK $(hwclock -u -r); echo NOW $(date +%s); echo READ; sleep 1")
    with Server(script) as server:
        assert server.run_until_says("READ").end is End.CONDITION, server.text[-2000:]
        host = time.time()
        assert server.run().end is End.POWER_OFF, server.text[-2000:]
        system = int(re.findall(r"^NOW (\d+)", server.text, re.MULTILINE)[0])
        shown = re.findall(r"^HWCLOCK \w+ (\w+ +\d+ [\d:]+ \d{4})", server.text, re.MULTILINE)[0]
    rtc = calendar.timegm(time.strptime(shown, "%b %d %H:%M:%S %Y"))
    assert abs(rtc - host) <= 1.5
    assert abs(system - host) <= 1.5


def test_keys_reach_the_console_of_the_guest() -> None:
    script = settled("echo TYPE; read -t 30 line < /dev/tty1; echo KEYS $line")
    with Server(script) as server:
        server.run_until_says("TYPE")
        server.machine.keyboard.type_text("Hello, i8042!\n")
        server.run()
        assert "KEYS Hello, i8042!" in server.text


def test_disks_on_both_controllers_are_partitioned_written_and_read_back() -> None:
    script = settled(
        """
for d in sda sdb; do
  n=0; while [ ! -b /dev/$d ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
  printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk /dev/$d > /dev/null 2>&1
  sleep 1; mdev -s 2>/dev/null
  mkdosfs /dev/${d}1
done
load fat vfat nls_cp437 nls_ascii
for d in sda sdb; do
  mkdir -p /mnt/$d; mount -t vfat -o iocharset=ascii /dev/${d}1 /mnt/$d || echo MOUNT-FAILED
  dd if=/dev/urandom of=/mnt/$d/file bs=64k count=40 2>/dev/null
  sync; umount /mnt/$d; echo 3 > /proc/sys/vm/drop_caches
  mount -t vfat -o iocharset=ascii /dev/${d}1 /mnt/$d
  echo "FILE $d $(sha256sum < /mnt/$d/file)"; umount /mnt/$d
  echo "DISK $d $(sha256sum < /dev/$d)"
done
"""
    )
    images = {"ssata": MemoryImage(8 * MIB), "sata": MemoryImage(16 * MIB)}
    with Server(script, sata=[images["sata"]], ssata=[images["ssata"]]) as server:
        server.run()
        text = server.text
    assert "MOUNT-FAILED" not in text
    digests = dict(re.findall(r"^DISK (sd[ab]) ([0-9a-f]{64})", text, re.MULTILINE))
    contents = [image.read(0, image.sectors) for image in images.values()]
    assert sorted(digests.values()) == sorted(hashlib.sha256(content).hexdigest() for content in contents)
    files = re.findall(r"^FILE sd[ab] ([0-9a-f]{64})", text, re.MULTILINE)
    assert len(set(files)) == 2
    assert all(content[510:512] == b"\x55\xaa" for content in contents)


WATCHDOG = "exec 3> /dev/watchdog; echo 4 > /sys/class/watchdog/watchdog0/timeout 2>/dev/null; "


def test_a_watchdog_left_alone_resets_the_machine() -> None:
    script = SETTLE + "insmod_args=1; rmmod iTCO_wdt; insmod /lib/modules/iTCO_wdt.ko heartbeat=4; sleep 0.3\n"
    script += "exec 3> /dev/watchdog; echo ARMED; sleep 60; echo SURVIVED"
    with Server(script) as server:
        server.machine.reset_limit = 0
        server.run_until_says("ARMED")
        outcome = server.run(60)
        assert "SURVIVED" not in server.text
    assert (outcome.end, outcome.detail) == (End.RESET, "TCO watchdog")


def test_a_watchdog_kept_alive_does_not() -> None:
    script = SETTLE + "rmmod iTCO_wdt; insmod /lib/modules/iTCO_wdt.ko heartbeat=4; sleep 0.3\n"
    script += "exec 3> /dev/watchdog; i=0; while [ $i -lt 12 ]; do echo . >&3; sleep 1; i=$((i+1)); done\n"
    script += "echo V >&3; exec 3>&-; echo SURVIVED"
    with Server(script) as server:
        server.machine.reset_limit = 0
        outcome = server.run()
        assert "SURVIVED" in server.text
    assert outcome.end is End.POWER_OFF


def test_a_panic_is_in_pstore_after_the_reboot(tmp_path: Path) -> None:
    script = settled(
        """
mount -t pstore pstore /sys/fs/pstore 2>/dev/null
if ls /sys/fs/pstore | grep -q dmesg-erst; then
  echo FOUND $(ls /sys/fs/pstore | head -1)
  grep -h -o "sysrq triggered crash" /sys/fs/pstore/dmesg-erst-* | head -1
  rm /sys/fs/pstore/*; poweroff -f
fi
echo c > /proc/sysrq-trigger
"""
    )
    store = FileRecords(tmp_path / "records")
    with Server(script, words="panic=1", records=store) as server:
        server.machine.reset_limit = 1
        outcome = server.run_until_says("Rebooting in 1 seconds")
        server.run_until(lambda: server.machine.resets == 1)
        kept = FileRecords(tmp_path / "records").records
        outcome = server.run()
        text = server.text
    assert outcome.end is End.POWER_OFF, text[-3000:]
    assert kept
    assert "FOUND dmesg-erst" in text
    assert "sysrq triggered crash" in text
    assert not FileRecords(tmp_path / "records").records


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("k", "keyboard controller"),
        ("t", "triple fault"),
        ("a", "reset control (system)"),
        ("p", "reset control (power cycle)"),
    ],
)
def test_reboot_works_through(how: str, reason: str) -> None:
    with Server("reboot -f", words=f"reboot={how}") as server:
        server.machine.reset_limit = 0
        outcome = server.run()
    assert outcome.end in (End.RESET, End.SHUTDOWN)
    if outcome.end is End.RESET:
        assert outcome.detail == reason


def test_the_power_button_is_an_acpi_event() -> None:
    script = settled("cat /sys/firmware/acpi/interrupts/ff_pwr_btn; echo WAIT; sleep 2; "
                     "sed 's/^/BUTTON /' /sys/firmware/acpi/interrupts/ff_pwr_btn")  # fmt: skip
    with Server("load button\n" + script) as server:
        server.run_until_says("WAIT")
        server.machine.pm.press_power_button()
        server.run()
        assert re.search(r"^BUTTON +1 ", server.text, re.MULTILINE), server.text[-1500:]


COMPLAINTS = re.compile(
    r"clocksource.*unstable|PM-Timer running at invalid|time went backwards|irq \d+: nobody cared|"
    r"ACPI (BIOS )?Error|ACPI Warning|firmware bug|timed out|hung|WARNING:|BUG:|Oops|spurious",
    re.IGNORECASE,
)
KNOWN_COMPLAINTS = (
    "disabling VPD access",  # Linux says so of every controller with this PCI id
    "fail to add MMCONFIG information",  # there is no MCFG table: config mechanism 1 is all the board has
)


def test_dmesg_has_no_complaint_about_the_hardware() -> None:
    with Server(settled("dmesg | grep -v ' Command line'; echo DONE")) as server:
        server.run()
        lines = [line for line in server.text.splitlines() if COMPLAINTS.search(line)]
    assert [line for line in lines if not any(known in line for known in KNOWN_COMPLAINTS)] == []


def test_a_snapshot_in_mid_boot_has_the_same_future() -> None:
    """At three points of one boot: go on, go back, go on again; the listing is the same each time."""
    points = ("Linux version", "PCI: Using configuration type", "Run /init as init process")
    with Server(settled(PRINT_LISTING), memory=192 * MIB) as server:
        saved = []
        for point in points:
            assert server.run_until_says(point).end is End.CONDITION
            saved.append(take(server.machine))
        assert server.run().end is End.POWER_OFF
        first = listing_of(server.second)
        for snapshot in reversed(saved):
            server.second.sent.clear()
            restore(server.machine, snapshot)
            again = take(server.machine)
            assert again.devices == snapshot.devices
            assert server.run().end is End.POWER_OFF
            assert listing_of(server.second) == first
    assert first.count(Difference.EQUAL) == EXPECTED[Variant.HONEST]
