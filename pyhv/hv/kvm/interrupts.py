"""Interrupt controllers in the kernel: local APICs alone (split) or all of them, GSI routes, messages and irqfds."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, KvmError
from pyhv.hv.kvm import host
from pyhv.hv.kvm.native import ffi, lib, request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyhv.hv.kvm.vm import KvmVm
    from pyhv.irq import Msi

IOAPIC_PINS = 24
MAX_GSI = 4095
"""KVM_MAX_IRQ_ROUTES is 4096."""
CHIPS = 3
"""PIC master, PIC slave, I/O APIC."""
_XAPIC_IDS = 255
_EINVAL = 22


class Interrupts:
    """A part of KvmVm."""

    def __init__(self, vm: KvmVm) -> None:
        self._vm = vm
        self._routes: dict[int, Msi] | None = None
        self._initial: tuple[tuple[bytes, ...], bytes] | None = None

    def create_irqchip(self) -> None:
        """What the VM's configuration asks for; before any vCPU."""
        vm, kind = self._vm, self._vm.config.irqchip
        if kind == "split":
            vm.enable_capability("SPLIT_IRQCHIP", IOAPIC_PINS)
        elif kind == "kernel":
            request(vm.fd, "KVM_CREATE_IRQCHIP")
            request(vm.fd, "KVM_CREATE_PIT2", ffi.new("struct kvm_pit_config *", {"flags": lib.KVM_PIT_SPEAKER_DUMMY}))
            # In its re-injecting mode the PIT would keep AVIC off.
            control = ffi.new("struct kvm_reinject_control *")
            request(vm.fd, "KVM_REINJECT_CONTROL", control)
            self._initial = tuple(self.get_chip(chip) for chip in range(CHIPS)), self.get_pit()
            self.set_routes({})
        if kind != "none" and vm.config.vcpus > _XAPIC_IDS:
            flags = lib.KVM_X2APIC_API_USE_32BIT_IDS | lib.KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK
            vm.enable_capability("X2APIC_API", flags)

    def reset(self) -> None:
        """The controllers and the PIT of the kernel as they were at first."""
        if self._initial is not None:
            chips, pit = self._initial
            for chip, state in enumerate(chips):
                self.set_chip(chip, state)
            self.set_pit(pit)

    def signal_msi(self, message: Msi) -> None:
        """Deliver a message. One that no local APIC accepts is lost, as on hardware."""
        msi = ffi.new("struct kvm_msi *")
        msi.address_lo = message.address & 0xFFFFFFFF
        msi.address_hi = message.address >> 32 & 0xFFFFFFFF
        msi.data = message.data & 0xFFFFFFFF
        code = lib.pyhv_ioctl(self._vm.fd, lib.KVM_SIGNAL_MSI, msi)
        if code < 0 and code not in (-1, -_EINVAL):
            raise KvmError("KVM_SIGNAL_MSI", -code)

    def set_line(self, gsi: int, level: bool) -> None:
        if self._vm.config.irqchip != "kernel":
            raise ConfigError(f"GSI {gsi}: only irqchip 'kernel' has interrupt lines in the backend")
        request(self._vm.fd, "KVM_IRQ_LINE", ffi.new("struct kvm_irq_level *", {"irq": gsi, "level": level}))

    def set_routes(self, routes: Mapping[int, Msi]) -> None:
        """Replace the message routes; with irqchip "kernel" they come on top of the controllers' own pins."""
        if any(not 0 <= gsi <= MAX_GSI for gsi in routes):
            raise ConfigError(f"GSI routes: numbers must be in 0 to {MAX_GSI}")
        if dict(routes) == self._routes:
            return
        entries: list[dict[str, object]] = []
        if self._vm.config.irqchip == "kernel":
            for pin in range(IOAPIC_PINS):
                if pin in routes:
                    continue
                if pin < 16:
                    chip = lib.KVM_IRQCHIP_PIC_MASTER if pin < 8 else lib.KVM_IRQCHIP_PIC_SLAVE
                    entries.append(_pin_route(pin, chip, pin % 8))
                # The PIT's GSI 0 reaches the I/O APIC at pin 2, as the MADT's override says.
                if pin != 2:
                    entries.append(_pin_route(pin, lib.KVM_IRQCHIP_IOAPIC, pin or 2))
        for gsi, message in sorted(routes.items()):
            msi = {
                "address_lo": message.address & 0xFFFFFFFF,
                "address_hi": message.address >> 32 & 0xFFFFFFFF,
                "data": message.data & 0xFFFFFFFF,
            }
            entries.append({"gsi": gsi, "type": lib.KVM_IRQ_ROUTING_MSI, "u": {"msi": msi}})
        table = ffi.new("struct kvm_irq_routing *", {"nr": len(entries), "entries": entries})
        request(self._vm.fd, "KVM_SET_GSI_ROUTING", table)
        self._routes = dict(routes)

    def add_irqfd(self, fd: int, gsi: int, *, resample: int | None = None) -> None:
        """Raise the GSI whenever the eventfd is signalled; with `resample`, level-triggered until that eventfd is."""
        self._irqfd({"fd": fd, "gsi": gsi}, resample)

    def remove_irqfd(self, fd: int, gsi: int) -> None:
        self._irqfd({"fd": fd, "gsi": gsi, "flags": lib.KVM_IRQFD_FLAG_DEASSIGN}, None)

    def _irqfd(self, fields: dict[str, int], resample: int | None) -> None:
        if not self._vm.hypervisor.capabilities.irqfd:
            raise CapabilityMissing("this host's KVM has no irqfd")
        if resample is not None:
            fields = {**fields, "flags": lib.KVM_IRQFD_FLAG_RESAMPLE, "resamplefd": resample}
        request(self._vm.fd, "KVM_IRQFD", ffi.new("struct kvm_irqfd *", fields))

    def get_chip(self, chip: int) -> bytes:
        """An in-kernel controller's state: 0 and 1 the PICs, 2 the I/O APIC."""
        state = ffi.new("struct kvm_irqchip *", {"chip_id": chip})
        request(self._vm.fd, "KVM_GET_IRQCHIP", state)
        return bytes(ffi.buffer(state.chip))

    def set_chip(self, chip: int, state: bytes) -> None:
        """The counterpart of `get_chip`."""
        table = ffi.new("struct kvm_irqchip *", {"chip_id": chip})
        ffi.buffer(table.chip)[: len(state)] = state
        request(self._vm.fd, "KVM_SET_IRQCHIP", table)

    def get_pit(self) -> bytes:
        """The in-kernel PIT's state, a `struct kvm_pit_state2`."""
        state = ffi.new("struct kvm_pit_state2 *")
        request(self._vm.fd, "KVM_GET_PIT2", state)
        return bytes(ffi.buffer(state))

    def set_pit(self, state: bytes) -> None:
        """The counterpart of `get_pit`."""
        if len(state) != ffi.sizeof("struct kvm_pit_state2"):
            raise ConfigError(f"PIT state: {ffi.sizeof('struct kvm_pit_state2')} bytes are needed, not {len(state)}")
        request(self._vm.fd, "KVM_SET_PIT2", ffi.from_buffer(state))

    def avic(self) -> tuple[bool | None, str]:
        """See `pyhv.hv.api.VmHandle.avic`."""
        module = self._vm.hypervisor.module
        if module != "kvm_amd":
            return False, f"KVM here is {module or 'built in'}, not kvm_amd"
        value = host.loaded_module()[1].get("avic")
        if value is None:
            return None, "kvm_amd does not show its avic parameter"
        if value not in ("Y", "1"):
            return (
                False,
                f"kvm_amd's avic parameter is {value}: modprobe -r kvm_amd; modprobe kvm_amd avic=1 (Zen CPUs)",
            )
        if self._vm.config.irqchip == "none":
            return False, "the VM has no local APIC in the kernel"
        return True, f"kvm_amd has avic={value}, and irqchip {self._vm.config.irqchip!r} does not inhibit it"


def _pin_route(gsi: int, chip: int, pin: int) -> dict[str, object]:
    return {"gsi": gsi, "type": lib.KVM_IRQ_ROUTING_IRQCHIP, "u": {"irqchip": {"irqchip": chip, "pin": pin}}}
