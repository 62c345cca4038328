"""The device: is it there, may it be opened, does it run code?"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.doctor.finding import NO, YES, Finding
from pyhv.errors import HostError, PyhvError

if TYPE_CHECKING:
    from pyhv.doctor.host import Host

DEVICE = "/dev/kvm"


def device(host: Host) -> Finding:
    """KVM itself, by a self-test."""
    if not host.exists(DEVICE):
        return _absent(host)
    if not host.accessible(DEVICE):
        return Finding("KVM", NO, f"{DEVICE} is there, but the user {host.user} may not open it", _join(host, DEVICE))
    try:
        host.check_kvm()
    except HostError as error:
        return Finding("KVM", NO, str(error), _module_fix(host) if not host.module else "")
    except PyhvError as error:
        return Finding("KVM", NO, f"the self-test failed: {error}")
    by = f" ({host.module})" if host.module else ""
    return Finding("KVM", YES, f"{DEVICE} works{by}: API version 12, self-test passed")


def _absent(host: Host) -> Finding:
    if host.flags & {"svm", "vmx"}:
        return Finding("KVM", NO, f"there is no {DEVICE}: KVM's module is not loaded", _module_fix(host))
    return Finding("KVM", NO, f"there is no {DEVICE}, and the CPU shows neither SVM nor VMX", no_hardware_fix(host))


def _module_fix(host: Host) -> str:
    return host.sudo(f"modprobe {'kvm_amd' if host.amd or not host.vendor else 'kvm_intel'}")


def no_hardware_fix(host: Host) -> str:
    """What gives a host that shows no virtualisation to its kernel some."""
    if host.virtual:
        module = "kvm_amd" if host.amd else "kvm_intel"
        return (
            f"where this virtual machine runs: modprobe -r {module} && modprobe {module} nested=1, and start the machine "
            "with -cpu host (QEMU) or nested virtualisation switched on"
        )
    return f"in the firmware setup switch {'SVM mode (AMD-V)' if host.amd else 'VT-x'} on; then {_module_fix(host)}"


def group_rule(host: Host, path: str) -> str:
    """The command that gives a device to the group kvm, for good."""
    name = path.removeprefix("/dev/")
    rule = f'KERNEL=="{name}", GROUP="kvm", MODE="0660"'
    return (
        f"echo '{rule}' | {host.sudo(f'tee /etc/udev/rules.d/65-pyhv-{name}.rules')} && "
        f"{host.sudo('udevadm control --reload')} && {host.sudo('udevadm trigger ' + path)}"
    )


def _join(host: Host, path: str) -> str:
    group = host.group(path)
    if group in ("", "root", "0"):
        return f"{group_rule(host, path)}; then {host.sudo(f'usermod -aG kvm {host.user}')}"
    if host.in_group_file(group):
        return f"{host.user} is in group {group} since the last login: log in again, or: newgrp {group}"
    return f"{host.sudo(f'usermod -aG {group} {host.user}')}, then log in again"


def permissions(host: Host) -> Finding:
    """Who may open the devices."""
    there = [path for path in (DEVICE, "/dev/sev") if host.exists(path)]
    if not there:
        return Finding("permissions", NO, f"there is no {DEVICE} to open", device(host).fix)
    closed = [path for path in there if not host.accessible(path)]
    if not closed:
        shown = ", ".join(f"{path} ({host.mode(path)})" for path in there)
        return Finding("permissions", YES, f"the user {host.user} may open {shown}")
    shown = ", ".join(f"{path} ({host.mode(path)})" for path in closed)
    return Finding("permissions", NO, f"the user {host.user} may not open {shown}", _join(host, closed[0]))
