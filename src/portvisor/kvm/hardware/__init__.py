"""The hardware engine: `/dev/kvm` through its ioctls, nothing else needed."""

from portvisor.kvm.hardware.system import HardwareSystem, open_hardware
from portvisor.kvm.hardware.vcpu import HardwareVcpu
from portvisor.kvm.hardware.vm import HardwareVm

__all__ = ["HardwareSystem", "HardwareVcpu", "HardwareVm", "open_hardware"]
