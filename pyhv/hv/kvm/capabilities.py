"""KVM's capabilities by name (Documentation/virt/kvm/api.rst, KVM_CHECK_EXTENSION)."""

from __future__ import annotations

from pyhv._builtin import Mapping
from pyhv._types import TYPE_CHECKING
from pyhv.hv.kvm.native import lib

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS: dict[str, int] = {
    "IRQCHIP": 0,
    "HLT": 1,
    "MMU_SHADOW_CACHE_CONTROL": 2,
    "USER_MEMORY": 3,
    "SET_TSS_ADDR": 4,
    "VAPIC": 6,
    "EXT_CPUID": 7,
    "CLOCKSOURCE": 8,
    "NR_VCPUS": 9,
    "NR_MEMSLOTS": 10,
    "PIT": 11,
    "NOP_IO_DELAY": 12,
    "PV_MMU": 13,
    "MP_STATE": 14,
    "COALESCED_MMIO": 15,
    "SYNC_MMU": 16,
    "IOMMU": 18,
    "DESTROY_MEMORY_REGION_WORKS": 21,
    "USER_NMI": 22,
    "SET_GUEST_DEBUG": 23,
    "REINJECT_CONTROL": 24,
    "IRQ_ROUTING": 25,
    "IRQ_INJECT_STATUS": 26,
    "ASSIGN_DEV_IRQ": 29,
    "JOIN_MEMORY_REGIONS_WORKS": 30,
    "MCE": 31,
    "IRQFD": 32,
    "PIT2": 33,
    "SET_BOOT_CPU_ID": 34,
    "PIT_STATE2": 35,
    "IOEVENTFD": 36,
    "SET_IDENTITY_MAP_ADDR": 37,
    "XEN_HVM": 38,
    "ADJUST_CLOCK": 39,
    "INTERNAL_ERROR_DATA": 40,
    "VCPU_EVENTS": 41,
    "HYPERV": 44,
    "HYPERV_VAPIC": 45,
    "HYPERV_SPIN": 46,
    "PCI_SEGMENT": 47,
    "INTR_SHADOW": 49,
    "DEBUGREGS": 50,
    "X86_ROBUST_SINGLESTEP": 51,
    "ENABLE_CAP": 54,
    "XSAVE": 55,
    "XCRS": 56,
    "ASYNC_PF": 59,
    "TSC_CONTROL": 60,
    "GET_TSC_KHZ": 61,
    "MAX_VCPUS": 66,
    "SW_TLB": 69,
    "ONE_REG": 70,
    "TSC_DEADLINE_TIMER": 72,
    "SYNC_REGS": 74,
    "PCI_2_3": 75,
    "KVMCLOCK_CTRL": 76,
    "SIGNAL_MSI": 77,
    "READONLY_MEM": 81,
    "IRQFD_RESAMPLE": 82,
    "DEVICE_CTRL": 89,
    "EXT_EMUL_CPUID": 95,
    "HYPERV_TIME": 96,
    "IOAPIC_POLARITY_IGNORED": 97,
    "ENABLE_CAP_VM": 98,
    "IOEVENTFD_NO_LENGTH": 100,
    "VM_ATTRIBUTES": 101,
    "CHECK_EXTENSION_VM": 105,
    "DISABLE_QUIRKS": 116,
    "X86_SMM": 117,
    "MULTI_ADDRESS_SPACE": 118,
    "GUEST_DEBUG_HW_BPS": 119,
    "GUEST_DEBUG_HW_WPS": 120,
    "SPLIT_IRQCHIP": 121,
    "IOEVENTFD_ANY_LENGTH": 122,
    "HYPERV_SYNIC": 123,
    "VCPU_ATTRIBUTES": 127,
    "MAX_VCPU_ID": 128,
    "X2APIC_API": 129,
    "MSI_DEVID": 131,
    "IMMEDIATE_EXIT": 136,
    "X86_DISABLE_EXITS": 143,
    "HYPERV_SYNIC2": 148,
    "HYPERV_VP_INDEX": 149,
    "GET_MSR_FEATURES": 153,
    "HYPERV_EVENTFD": 154,
    "HYPERV_TLBFLUSH": 155,
    "NESTED_STATE": 157,
    "MSR_PLATFORM_INFO": 159,
    "HYPERV_SEND_IPI": 161,
    "COALESCED_PIO": 162,
    "HYPERV_ENLIGHTENED_VMCS": 163,
    "EXCEPTION_PAYLOAD": 164,
    "MANUAL_DIRTY_LOG_PROTECT": 166,
    "HYPERV_CPUID": 167,
    "MANUAL_DIRTY_LOG_PROTECT2": 168,
    "PMU_EVENT_FILTER": 173,
    "HYPERV_DIRECT_TLBFLUSH": 175,
    "HALT_POLL": 182,
    "ASYNC_PF_INT": 183,
    "LAST_CPU": 184,
    "SMALLER_MAXPHYADDR": 185,
    "STEAL_TIME": 187,
    "X86_USER_SPACE_MSR": 188,
    "X86_MSR_FILTER": 189,
    "ENFORCE_PV_FEATURE_CPUID": 190,
    "SYS_HYPERV_CPUID": 191,
    "DIRTY_LOG_RING": 192,
    "X86_BUS_LOCK_EXIT": 193,
    "SET_GUEST_DEBUG2": 195,
    "SGX_ATTRIBUTE": 196,
    "VM_COPY_ENC_CONTEXT_FROM": 197,
    "PTP_KVM": 198,
    "HYPERV_ENFORCE_CPUID": 199,
    "SREGS2": 200,
    "EXIT_HYPERCALL": 201,
    "BINARY_STATS_FD": 203,
    "EXIT_ON_EMULATION_FAILURE": 204,
    "VM_MOVE_ENC_CONTEXT_FROM": 206,
    "VM_GPA_BITS": 207,
    "XSAVE2": 208,
    "SYS_ATTRIBUTES": 209,
    "PMU_CAPABILITY": 212,
    "DISABLE_QUIRKS2": 213,
    "VM_TSC_CONTROL": 214,
    "SYSTEM_EVENT_DATA": 215,
    "X86_TRIPLE_FAULT_EVENT": 218,
    "X86_NOTIFY_VMEXIT": 219,
    "VM_DISABLE_NX_HUGE_PAGES": 220,
    "DIRTY_LOG_RING_ACQ_REL": 223,
    "DIRTY_LOG_RING_WITH_BITMAP": 225,
    "PMU_EVENT_MASKED_EVENTS": 226,
    "USER_MEMORY2": 231,
    "MEMORY_FAULT_INFO": 232,
    "MEMORY_ATTRIBUTES": 233,
    "GUEST_MEMFD": 234,
    "VM_TYPES": 235,
    "PRE_FAULT_MEMORY": 236,
    "X86_APIC_BUS_CYCLES_NS": 237,
    "X86_GUEST_MODE": 238,
    "GUEST_MEMFD_FLAGS": 244,
}
"""Those of x86 and of every architecture; others cannot occur here."""


class Extensions(Mapping[str, int]):
    """Every capability's value on one descriptor, asked for when first needed; 0 means absent."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._values: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        value = self._values.get(name)
        if value is None:
            value = max(0, lib.pyhv_ioctl_value(self._fd, lib.KVM_CHECK_EXTENSION, NUMBERS[name]))
            self._values[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(NUMBERS)

    def __len__(self) -> int:
        return len(NUMBERS)
