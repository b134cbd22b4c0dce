"""What -device, -drive and -serial put into a machine, by QEMU's driver and property names."""

from __future__ import annotations

from collections.abc import Callable

from portvisor.backends.char import FileChar, HostChar, NullChar
from portvisor.backends.image import CD_SECTOR_SIZE, FileImage, ImageMode
from portvisor.devices.bmc import Bmc
from portvisor.devices.debug_exit import DebugExit
from portvisor.devices.debugcon import PRESENT, DebugConsole
from portvisor.devices.ib700 import Ib700
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.atapi_cd import AtapiCd
from portvisor.devices.ide.drive import Drive, Transport
from portvisor.devices.ipmi_kcs import IpmiKcs
from portvisor.devices.pc_testdev import MEMORY_BASE, MEMORY_LENGTH, PcTestdev
from portvisor.devices.pvpanic import CRASH_LOADED, PANICKED, PORT, PvPanic
from portvisor.devices.uart16550 import Uart16550
from portvisor.machines.legacy import COM_PORTS, ISA_IRQS
from portvisor.machines.outcome import End, Outcome
from portvisor.ports import CharBackend, Device, IrqLine, PortConflictError
from portvisor.ports.range import PortRangeError
from portvisor.qtest.boards import VGA_DRIVER, Board
from portvisor.qtest.floppies import CONTROLLER_DRIVER, FLOPPY_DRIVER, FloppyPlaces
from portvisor.qtest.options import OptionError, Options, Properties

IDE_PLACES, SATA_PLACES = 4, 6
DRIVE_DRIVERS = ("ide-hd", "ide-cd")
BUILT_BEFORE = (*DRIVE_DRIVERS, FLOPPY_DRIVER, CONTROLLER_DRIVER)
"""Drivers whose devices the board is made with."""


class Builder:
    """Builds the machine of a command line. `board` is there once `build` has returned."""

    def __init__(self, options: Options, on_panic: Callable[[int], None]) -> None:
        """`on_panic` is told the events of pvpanic."""
        self._options = options
        self._on_panic = on_panic
        self._bmcs: dict[str, Bmc] = {}
        self._streams: dict[str, HostChar] = {}
        self._serials = 0
        self._closing: list[Callable[[], None]] = []
        self._makers: dict[str, Callable[[Properties], None]] = {
            "isa-debug-exit": self._debug_exit,
            "isa-debugcon": self._debugcon,
            "isa-serial": self._serial,
            "pvpanic": self._pvpanic,
            "ib700": self._ib700,
            "pc-testdev": self._testdev,
            VGA_DRIVER: lambda properties: None,  # the board has been built with it
            "ipmi-bmc-sim": self._bmc,
            "isa-ipmi-kcs": self._kcs,
        }

    def build(self) -> Board:
        """The machine.

        Raises:
            OptionError: a device is unknown, or cannot be had as it is asked for.
            ImageError: a disk image cannot be used.
            BackendError: a stream cannot be opened.
            GuestFileError: the memory size does not fit the board.
        """
        options = self._options
        if options.serial not in ([], ["none"], ["null"]):
            raise OptionError(f"-serial {options.serial[0]}: only none and null are possible")
        named = self._named_drives()
        places = self._places(named)
        floppies = self._floppies = FloppyPlaces(options, named, self._image)
        has_ide = options.machine == "pc"
        ide = places if has_ide else (None,) * IDE_PLACES
        self.board = Board(options, ide, places, floppies.drives if floppies.controller else None)
        if options.serial == ["null"]:
            self._serial(Properties("isa-serial", "-serial", "driver"))
        for properties in options.devices:
            if properties.get("driver") not in BUILT_BEFORE:
                self._add(properties)
        for name, properties in options.chardevs.items():
            if name not in self._streams:
                self._open_stream(properties)
        self.board.machine.reset()
        return self.board

    def close(self) -> None:
        """Give images and streams back."""
        for close in self._closing:
            close()

    def _add(self, properties: Properties) -> None:
        driver = properties.get("driver")
        properties.get("id")
        maker = self._makers.get(driver)
        if maker is None:
            raise OptionError(f"-device {properties.text}: '{driver}' is not a valid device model name")
        if self.board.pc is None:
            raise OptionError(f"-device {properties.text}: No 'ISA' bus found for device '{driver}'")
        try:
            maker(properties)
        except PortRangeError as error:
            raise OptionError(f"-device {properties.text}: {error}") from None
        properties.finish()

    def _attach(self, device: Device, properties: Properties) -> None:
        try:
            self.board.machine.attach(device)
        except PortConflictError as error:
            raise OptionError(f"{properties.option} {properties.text}: {error}") from None

    def _irq(self, properties: Properties, default: int) -> IrqLine:
        number = properties.number("irq", default, 15)
        if number == 2:
            raise properties.invalid("irq")
        assert self.board.pc
        return self.board.pc.chips.irq(number)

    # --- streams ----------------------------------------------------------------------------------------

    def _stream(self, properties: Properties) -> HostChar | None:
        """The stream that the property `chardev` names; None without it."""
        name = properties.get("chardev")
        if not name:
            return None
        if name not in self._options.chardevs:
            raise OptionError(f"{properties.option} {properties.text}: chardev '{name}' not found")
        if name in self._streams:
            raise OptionError(f"{properties.option} {properties.text}: chardev '{name}' is in use")
        return self._open_stream(self._options.chardevs[name])

    def _open_stream(self, chardev: Properties) -> HostChar:
        name, backend = chardev.need("id"), chardev.get("backend")
        if backend == "null":
            stream: HostChar = NullChar()
        elif backend == "file":
            stream = FileChar(chardev.need("path"), append=chardev.flag("append", False))
        else:
            raise chardev.invalid("backend")
        chardev.finish()
        self._streams[name] = stream
        self._closing.append(stream.close)
        return stream

    # --- devices ----------------------------------------------------------------------------------------

    def _debug_exit(self, properties: Properties) -> None:
        def leave(status: int) -> None:
            self.board.machine.request_stop(Outcome(End.GUEST_EXIT, status))

        base, length = properties.number("iobase", 0x501), properties.number("iosize", 2, 4)
        self._attach(DebugExit(leave, base=base, length=length or 2), properties)

    def _debugcon(self, properties: Properties) -> None:
        stream = self._stream(properties) or NullChar()
        if properties.number("readback", PRESENT, 0xFF) != PRESENT:
            raise properties.invalid("readback")
        self._attach(DebugConsole(stream.send, base=properties.number("iobase", PRESENT)), properties)

    def _serial(self, properties: Properties) -> None:
        index = properties.number("index", self._serials, len(COM_PORTS) - 1)
        base, irq = COM_PORTS[index]
        self._serials = index + 1
        backend: CharBackend | None = self._stream(properties)
        line = self._irq(properties, irq)
        uart = Uart16550(
            line,
            self.board.clock,
            backend,
            base=properties.number("iobase", base),
            name=f"serial{index}",
        )
        self._attach(uart, properties)

    def _pvpanic(self, properties: Properties) -> None:
        events = properties.number("events", PANICKED | CRASH_LOADED, PANICKED | CRASH_LOADED)
        base = properties.number("ioport", PORT)
        self._attach(PvPanic(self._on_panic, base=base, events=events), properties)

    def _ib700(self, properties: Properties) -> None:
        self._attach(Ib700(self.board.clock, self.board.machine.watchdog_fired), properties)

    def _testdev(self, properties: Properties) -> None:
        assert self.board.pc
        device = PcTestdev({irq: self.board.pc.chips.irq(irq) for irq in ISA_IRQS})
        self._attach(device, properties)
        self.board.machine.mmio.attach(MEMORY_BASE, MEMORY_LENGTH, device, device.name)

    def _bmc(self, properties: Properties) -> None:
        name = properties.need("id")
        bmc = Bmc(self.board.clock, int(self._options.base_time), self._chassis)
        self._attach(bmc, properties)
        self._bmcs[name] = bmc

    def _chassis(self, action: str) -> None:
        machine = self.board.machine
        if action in ("power down", "soft off"):
            machine.request_stop(Outcome(End.POWER_OFF, detail="by the BMC"))
        elif action in ("reset", "power cycle"):
            machine.request_reset(f"BMC {action}")

    def _kcs(self, properties: Properties) -> None:
        name = properties.need("bmc")
        if name not in self._bmcs:
            raise OptionError(f"-device {properties.text}: there is no BMC '{name}'")
        bmc = self._bmcs[name]
        irq = self._irq(properties, 5) if properties.number("irq", 5, 15) else None
        kcs = IpmiKcs(bmc.execute, irq, base=properties.number("ioport", 0xCA2))
        bmc.on_attention = kcs.set_attention
        self._attach(kcs, properties)

    # --- drives -----------------------------------------------------------------------------------------

    def _named_drives(self) -> dict[str, Properties]:
        """Those of a -drive with if=none."""
        drives = self._options.drives
        return {drive.need("id"): drive for drive in drives if drive.get("if", "ide") == "none"}

    def _places(self, named: dict[str, Properties]) -> list[Drive | None]:
        """Drives by place: primary master, primary slave, secondary master ... or SATA port."""
        count = SATA_PLACES if self._options.machine == "q35" else IDE_PLACES
        places: list[Drive | None] = [None] * count
        for drive in self._options.drives:
            interface = drive.get("if", "ide")
            if interface == "ide":
                default = 2 if drive.get("media") == "cdrom" else self._free(places)
                index = drive.number("index", default, count - 1)
                self._place(places, index, self._drive(drive, drive.get("media") == "cdrom"), drive)
            elif interface not in ("none", "floppy"):
                raise drive.invalid("if")
        for device in self._options.devices:
            if device.get("driver") in DRIVE_DRIVERS:
                self._place_device(places, device, named)
        return places

    @staticmethod
    def _free(places: list[Drive | None]) -> int:
        return places.index(None) if None in places else 0

    def _place(self, places: list[Drive | None], index: int, drive: Drive, properties: Properties) -> None:
        if self._options.machine == "none":
            raise OptionError(f"{properties.option} {properties.text}: machine 'none' has no IDE bus")
        if places[index] is not None:
            raise OptionError(f"{properties.option} {properties.text}: place {index} has a drive already")
        places[index] = drive

    def _place_device(self, places: list[Drive | None], device: Properties, named: dict[str, Properties]) -> None:
        device.get("id")
        is_cd = device.get("driver") == "ide-cd"
        name = device.get("drive")
        if name and name not in named:
            raise OptionError(f"-device {device.text}: drive '{name}' not found")
        if not name and not is_cd:
            raise OptionError(f"-device {device.text}: drive property not set")
        drive = self._drive(named.pop(name), is_cd) if name else AtapiCd(None, transport=self._transport())
        self._place(places, self._index(places, device), drive, device)
        device.finish()

    def _index(self, places: list[Drive | None], device: Properties) -> int:
        """ide.N and the unit: two units a channel on `pc`, one a port on `q35`."""
        bus = device.get("bus")
        if not bus:
            return self._free(places)
        units = 1 if self._options.machine == "q35" else 2
        kind, _, number = bus.partition(".")
        if kind != "ide" or not number.isdigit() or int(number) >= len(places) // units:
            raise device.invalid("bus")
        first = int(number) * units
        default = next((unit for unit in range(units) if places[first + unit] is None), 0)
        return first + device.number("unit", default, units - 1)

    def _transport(self) -> Transport:
        return Transport.SATA if self._options.machine == "q35" else Transport.PIO

    def change_floppy(self, name: str, path: str | None, *, read_only: bool = False) -> None:
        """Put another medium into a floppy drive, or none. The drive is empty if that fails.

        Raises:
            LookupError: there is no such drive.
            ValueError: the file cannot be used, or does not fit the drive.
        """
        unit = self._floppies.names[name]
        controller, drive = self.board.floppy, self._floppies.drives[unit]
        assert controller
        assert drive
        old = drive.image
        controller.insert(unit, None)
        if isinstance(old, FileImage):
            old.close()
        if path is not None:
            image = FileImage(path, ImageMode.READ_ONLY if read_only else ImageMode.WRITE_THROUGH)
            self._closing.append(image.close)
            controller.insert(unit, image)

    def _drive(self, drive: Properties, is_cd: bool) -> Drive:
        """A drive with the image of a -drive."""
        transport = self._transport()
        image = self._image(drive, is_cd)
        return AtapiCd(image, transport=transport) if is_cd else AtaDisk(image, transport=transport)

    def _image(self, drive: Properties, is_cd: bool = False) -> FileImage:
        """The image of a -drive."""
        for name in ("id", "if", "index"):
            drive.get(name)
        if drive.get("format", "raw") != "raw":
            raise drive.invalid("format")
        if drive.get("media", "disk") not in ("disk", "cdrom"):
            raise drive.invalid("media")
        mode = ImageMode.COPY_ON_WRITE if drive.flag("snapshot", False) else ImageMode.WRITE_THROUGH
        if drive.flag("readonly", is_cd):
            mode = ImageMode.READ_ONLY
        path = drive.need("file")
        drive.finish()
        image = FileImage(path, mode, sector_size=CD_SECTOR_SIZE if is_cd else 512)
        self._closing.append(image.close)
        return image
