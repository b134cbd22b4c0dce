"""`/dev/kvm` itself: opening it, what it can do, and virtual machines."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import struct
from fcntl import ioctl

from portvisor.kvm import abi
from portvisor.kvm.abi import CpuidEntry
from portvisor.kvm.api import EngineError
from portvisor.kvm.hardware import calls
from portvisor.kvm.hardware.abilities import Abilities
from portvisor.kvm.hardware.vm import HardwareVm

DEVICE = "/dev/kvm"
REQUIRED = {
    "KVM_CAP_USER_MEMORY": abi.KVM_CAP_USER_MEMORY,
    "KVM_CAP_SET_TSS_ADDR": abi.KVM_CAP_SET_TSS_ADDR,
    "KVM_CAP_EXT_CPUID": abi.KVM_CAP_EXT_CPUID,
    "KVM_CAP_SET_IDENTITY_MAP_ADDR": abi.KVM_CAP_SET_IDENTITY_MAP_ADDR,
    "KVM_CAP_IMMEDIATE_EXIT": abi.KVM_CAP_IMMEDIATE_EXIT,
}
"""What this engine cannot do without; all of it is in Linux 4.13 and later."""
TSS_ADDRESS = 0xFEFFD000
IDENTITY_MAP_ADDRESS = 0xFEFFC000
"""Four pages that KVM on old Intel CPUs needs in guest-physical space; below the PC's firmware, above RAM."""
CPUID_ENTRIES = 128
CPUID_ENTRIES_MAX = 1 << 14


def open_hardware(path: str = DEVICE) -> HardwareSystem:
    """Open KVM.

    Raises:
        EngineError: it is missing, may not be opened, or is not the KVM that is needed; one line says why.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise EngineError(_cannot_open(path, error)) from error
    try:
        _check(fd, path)
        return HardwareSystem(fd)
    except EngineError:
        os.close(fd)
        raise


def _cannot_open(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return (
            f"{path}: {error.strerror}: KVM is not there; load kvm_intel or kvm_amd, "
            "and have virtualization enabled in the firmware"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path}: {error.strerror}: {_missing_right(path)}"
    return f"{path}: {error.strerror}"


def _missing_right(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "no right to look it up"
    owner, group = _user_name(status.st_uid), _group_name(status.st_gid)
    if stat.S_IMODE(status.st_mode) & 0o060 == 0o060:
        return f'be a member of group {group} ("usermod -aG {group} USER", then log in again)'
    return f"only {owner} has read and write access (mode {stat.filemode(status.st_mode)})"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _check(fd: int, path: str) -> None:
    try:
        version = ioctl(fd, abi.KVM_GET_API_VERSION)
    except OSError as error:
        raise EngineError(f"{path}: not a KVM device ({error.strerror})") from error
    if version != abi.KVM_API_VERSION:
        raise EngineError(f"{path}: KVM API version {version}, need {abi.KVM_API_VERSION}")
    for name, capability in REQUIRED.items():
        if ioctl(fd, abi.KVM_CHECK_EXTENSION, capability) <= 0:
            raise EngineError(f"{path}: this kernel's KVM lacks {name}; need Linux 4.13 or later")


class HardwareSystem:
    """An open `/dev/kvm`."""

    name = "kvm"

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._abilities = Abilities.of(fd)

    def check_extension(self, capability: int) -> int:
        return calls.call(self._fd, abi.KVM_CHECK_EXTENSION, capability, what="KVM_CHECK_EXTENSION")

    def create_vm(self) -> HardwareVm:
        fd = calls.call(self._fd, abi.KVM_CREATE_VM, what="KVM_CREATE_VM")
        try:
            identity = struct.pack("<Q", IDENTITY_MAP_ADDRESS)
            calls.call(fd, abi.KVM_SET_IDENTITY_MAP_ADDR, identity, what="KVM_SET_IDENTITY_MAP_ADDR")
            calls.call(fd, abi.KVM_SET_TSS_ADDR, TSS_ADDRESS, what="KVM_SET_TSS_ADDR")
            return HardwareVm(fd, self._abilities)
        except BaseException:
            os.close(fd)
            raise

    def get_supported_cpuid(self) -> list[CpuidEntry]:
        count = CPUID_ENTRIES
        while True:
            table = bytearray(8 + count * CpuidEntry.LAYOUT.size)
            struct.pack_into("<I", table, 0, count)
            try:
                ioctl(self._fd, abi.KVM_GET_SUPPORTED_CPUID, table, True)
                break
            except OSError as error:
                if error.errno != errno.E2BIG or count >= CPUID_ENTRIES_MAX:
                    raise EngineError(f"KVM_GET_SUPPORTED_CPUID: {error.strerror}") from error
                count *= 2
        (found,) = struct.unpack_from("<I", table)
        return [CpuidEntry.unpack(table, 8 + index * CpuidEntry.LAYOUT.size) for index in range(found)]

    def close(self) -> None:
        calls.close(self._fd)
        self._fd = -1
