"""The KVM interface on a software CPU: for hosts without `/dev/kvm`, and for exact, repeatable I/O."""

from portvisor.kvm.software.machine import SoftwareSystem, SoftwareVcpu, SoftwareVm, open_software
from portvisor.kvm.software.vendor import VendorOps

__all__ = ["SoftwareSystem", "SoftwareVcpu", "SoftwareVm", "VendorOps", "open_software"]
