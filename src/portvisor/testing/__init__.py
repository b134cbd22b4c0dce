"""For tests of device models: the suite that every device class must pass."""

from portvisor.testing.device_suite import DeviceSuite

__all__ = ["DeviceSuite"]
