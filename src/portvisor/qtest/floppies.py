"""The floppy drives of a command line: -fda, -fdb, -drive if=floppy, -device floppy and isa-fdc."""

from __future__ import annotations

from collections.abc import Callable

from portvisor.devices.floppy import DriveKind, FloppyDrive, MediumError
from portvisor.ports import BlockBackend
from portvisor.qtest.options import OptionError, Options, Properties

FLOPPY_DRIVER, CONTROLLER_DRIVER = "floppy", "isa-fdc"
UNITS = 2
KINDS = {"144": DriveKind.MB_1_44, "288": DriveKind.MB_2_88, "120": DriveKind.MB_1_2}
EMPTY_DRIVE = DriveKind.MB_2_88
"""What QEMU makes of a drive that has no medium to tell its kind by."""

OpenImage = Callable[[Properties], BlockBackend]
"""Opens the image of a -drive."""


class FloppyPlaces:
    """Collects them.

    Attributes:
        drives: A and B.
        controller: whether the machine has one at all.
        names: unit of each drive by the names that QMP has for it: the device's id, the id of its -drive.
    """

    def __init__(self, options: Options, named: dict[str, Properties], open_image: OpenImage) -> None:
        """`named` has the drives with if=none that no device has taken yet.

        Raises:
            OptionError: a drive has no place, or its medium is no floppy disk.
        """
        self.drives: list[FloppyDrive | None] = [None] * UNITS
        self.names: dict[str, int] = {}
        self._named = named
        self._open = open_image
        devices = options.devices
        self.controller = options.machine == "pc" or any(
            device.get("driver") == CONTROLLER_DRIVER for device in devices
        )
        for drive in options.drives:
            if drive.get("if", "ide") == "floppy":
                self._add_drive(drive, options.machine)
        for device in devices:
            if device.get("driver") == FLOPPY_DRIVER:
                self._add_device(device)
            elif device.get("driver") == CONTROLLER_DRIVER:
                self._check_controller(device, options.machine)
        if options.machine == "pc" and options.defaults and self.drives == [None] * UNITS:
            self.drives[0] = FloppyDrive(kind=EMPTY_DRIVE)
            self.names["floppy0"] = 0

    def _add_drive(self, drive: Properties, machine: str) -> None:
        if machine == "none":
            raise OptionError(f"{drive.option} {drive.text}: machine 'none' has no floppy drives")
        self.controller = True
        index = drive.number("index", self._free(), UNITS - 1)
        self._place(index, self._drive(drive, self._open(drive), None), drive, drive.get("id", f"floppy{index}"))

    def _add_device(self, device: Properties) -> None:
        if not self.controller:
            raise OptionError(f"-device {device.text}: No 'floppy-bus' bus found for device 'floppy'")
        identity = device.get("id")
        name, text = device.get("drive"), device.get("drive-type", "auto")
        if text not in ("auto", *KINDS):
            raise device.invalid("drive-type")
        if name and name not in self._named:
            raise OptionError(f"-device {device.text}: drive '{name}' not found")
        image = self._open(self._named.pop(name)) if name else None
        kind = KINDS.get(text, None if image else EMPTY_DRIVE)
        drive = self._drive(device, image, kind)
        self._place(device.number("unit", self._free(), UNITS - 1), drive, device, identity, name)
        device.finish()

    @staticmethod
    def _check_controller(device: Properties, machine: str) -> None:
        if machine != "q35":
            raise OptionError(f"-device {device.text}: machine '{machine}' cannot have one more floppy controller")
        device.get("id")
        device.finish()

    def _free(self) -> int:
        return self.drives.index(None) if None in self.drives else 0

    def _place(self, unit: int, drive: FloppyDrive, properties: Properties, *names: str) -> None:
        if self.drives[unit] is not None:
            raise OptionError(f"{properties.option} {properties.text}: Floppy unit {unit} is in use")
        self.drives[unit] = drive
        self.names.update({name: unit for name in names if name})

    @staticmethod
    def _drive(properties: Properties, image: BlockBackend | None, kind: DriveKind | None) -> FloppyDrive:
        try:
            return FloppyDrive(image, kind)
        except MediumError as error:
            raise OptionError(f"{properties.option} {properties.text}: {error}") from None
