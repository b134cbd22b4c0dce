"""The floppy disk controller, its drives and their media."""

from portvisor.devices.floppy.controller import FloppyController, HostMode
from portvisor.devices.floppy.drive import FloppyDrive
from portvisor.devices.floppy.media import DriveKind, MediumError

__all__ = ["DriveKind", "FloppyController", "FloppyDrive", "HostMode", "MediumError"]
