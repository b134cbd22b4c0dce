"""AHCI host bus adapters."""

from portvisor.devices.ahci.hba import Ahci, AhciAddress

__all__ = ["Ahci", "AhciAddress"]
