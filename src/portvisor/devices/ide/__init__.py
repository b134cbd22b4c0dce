"""ATA: drives, and the legacy channel that puts them on ports 1F0 and 170."""

from portvisor.devices.ide.ata_disk import DISK_IDENTITY, AtaDisk
from portvisor.devices.ide.atapi_cd import CD_IDENTITY, AtapiCd
from portvisor.devices.ide.channel import PRIMARY, SECONDARY, ChannelAddress, IdeChannel
from portvisor.devices.ide.drive import Drive, DriveState, Transport
from portvisor.devices.ide.identify import Identity

__all__ = [
    "CD_IDENTITY",
    "DISK_IDENTITY",
    "PRIMARY",
    "SECONDARY",
    "AtaDisk",
    "AtapiCd",
    "ChannelAddress",
    "Drive",
    "DriveState",
    "IdeChannel",
    "Identity",
    "Transport",
]
