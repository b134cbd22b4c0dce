"""Opening /dev/kvm, and the lines a user gets when that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from portvisor.kvm import abi
from portvisor.kvm.api import EngineError, System
from portvisor.kvm.hardware import HardwareSystem, open_hardware, system
from support import require_kvm


def refusal(path: str) -> str:
    with pytest.raises(EngineError) as caught:
        open_hardware(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text


def deny(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, _flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)


def test_a_missing_device_names_the_modules(tmp_path: Path) -> None:
    text = refusal(str(tmp_path / "kvm"))
    assert "No such file" in text
    assert "kvm_intel or kvm_amd" in text


def test_a_missing_right_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o660)
    group = system._group_name(device.stat().st_gid)
    deny(monkeypatch)
    assert f"usermod -aG {group} USER" in refusal(str(device))


def test_a_device_without_group_access_names_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o600)
    owner = system._user_name(device.stat().st_uid)
    deny(monkeypatch)
    assert f"only {owner} has read and write access (mode -rw-------)" in refusal(str(device))


def test_another_device_is_told_apart() -> None:
    assert "not a KVM device" in refusal("/dev/null")


def test_another_api_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "ioctl", lambda _fd, _request, _argument=0: 11)
    assert "KVM API version 11, need 12" in refusal("/dev/null")


def test_a_missing_capability_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_kvm(_fd: int, request: int, argument: int = 0) -> int:
        if request == abi.KVM_GET_API_VERSION:
            return abi.KVM_API_VERSION
        return argument != abi.KVM_CAP_IMMEDIATE_EXIT

    monkeypatch.setattr(system, "ioctl", old_kvm)
    assert "lacks KVM_CAP_IMMEDIATE_EXIT; need Linux 4.13" in refusal("/dev/null")


def test_nothing_stays_open_after_a_refusal() -> None:
    before = os.listdir("/proc/self/fd")
    refusal("/dev/null")
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.kvm
def test_it_is_a_system(kvm: HardwareSystem) -> None:
    engine: System = kvm
    assert engine.name == "kvm"
    assert engine.check_extension(abi.KVM_CAP_USER_MEMORY) > 0
    assert engine.check_extension(0xFFFF) == 0


@pytest.mark.kvm
def test_supported_cpuid_has_the_basic_leaves(kvm: HardwareSystem) -> None:
    entries = kvm.get_supported_cpuid()
    leaves = {entry.function: entry for entry in entries}
    assert leaves[0].eax >= 1
    assert leaves[1].edx & 1 << 4, "TSC"
    assert 0x40000000 in leaves


@pytest.mark.kvm
def test_a_table_that_is_too_small_grows(kvm: HardwareSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = kvm.get_supported_cpuid()
    monkeypatch.setattr(system, "CPUID_ENTRIES", 1)
    assert len(kvm.get_supported_cpuid()) == len(expected)


@pytest.mark.kvm
def test_closing_gives_every_descriptor_back(kvm: HardwareSystem) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    vm = kvm.create_vm()
    vm.create_vcpu(0)
    vm.close()
    vm.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.kvm
def test_vms_outlive_the_system() -> None:
    require_kvm()
    engine = open_hardware()
    vm = engine.create_vm()
    engine.close()
    engine.close()
    vm.create_vcpu(0).close()
    vm.close()
