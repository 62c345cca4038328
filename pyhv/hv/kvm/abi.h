/* The KVM userspace ABI for x86-64, as this project uses it.
 *
 * Declared here and not taken from <linux/kvm.h>: distributions ship headers older than the kernels that run. The same
 * text is read by the C compiler and by cffi. Facts: Documentation/virt/kvm/api.rst. A request number encodes the size
 * of its argument (bits 29:16); tests/hv/kvm/test_abi.py holds every structure against it.
 */

/* System requests (/dev/kvm). */
#define KVM_GET_API_VERSION 0xAE00
#define KVM_CREATE_VM 0xAE01
#define KVM_GET_MSR_INDEX_LIST 0xC004AE02
#define KVM_CHECK_EXTENSION 0xAE03
#define KVM_GET_VCPU_MMAP_SIZE 0xAE04
#define KVM_GET_SUPPORTED_CPUID 0xC008AE05
#define KVM_GET_EMULATED_CPUID 0xC008AE09
#define KVM_GET_MSR_FEATURE_INDEX_LIST 0xC004AE0A

/* VM requests. */
#define KVM_CREATE_VCPU 0xAE41
#define KVM_GET_DIRTY_LOG 0x4010AE42
#define KVM_SET_USER_MEMORY_REGION 0x4020AE46
#define KVM_SET_TSS_ADDR 0xAE47
#define KVM_SET_IDENTITY_MAP_ADDR 0x4008AE48
#define KVM_SET_USER_MEMORY_REGION2 0x40A0AE49
#define KVM_CREATE_IRQCHIP 0xAE60
#define KVM_IRQ_LINE 0x4008AE61
#define KVM_GET_IRQCHIP 0xC208AE62
#define KVM_SET_IRQCHIP 0x8208AE63
#define KVM_IRQ_LINE_STATUS 0xC008AE67
#define KVM_REGISTER_COALESCED_MMIO 0x4010AE67
#define KVM_UNREGISTER_COALESCED_MMIO 0x4010AE68
#define KVM_SET_GSI_ROUTING 0x4008AE6A
#define KVM_REINJECT_CONTROL 0xAE71
#define KVM_IRQFD 0x4020AE76
#define KVM_CREATE_PIT2 0x4040AE77
#define KVM_SET_BOOT_CPU_ID 0xAE78
#define KVM_IOEVENTFD 0x4040AE79
#define KVM_SET_CLOCK 0x4030AE7B
#define KVM_GET_CLOCK 0x8030AE7C
#define KVM_GET_PIT2 0x8070AE9F
#define KVM_SET_PIT2 0x4070AEA0
#define KVM_ENABLE_CAP 0x4068AEA3
#define KVM_SIGNAL_MSI 0x4020AEA5
#define KVM_CLEAR_DIRTY_LOG 0xC018AEC0
#define KVM_X86_SET_MSR_FILTER 0x4188AEC6
#define KVM_RESET_DIRTY_RINGS 0xAEC7
#define KVM_SET_MEMORY_ATTRIBUTES 0x4020AED2
#define KVM_CREATE_GUEST_MEMFD 0xC040AED4
#define KVM_CREATE_DEVICE 0xC00CAEE0

/* vCPU requests; those with a device attribute also exist on VM and device descriptors. */
#define KVM_RUN 0xAE80
#define KVM_GET_REGS 0x8090AE81
#define KVM_SET_REGS 0x4090AE82
#define KVM_GET_SREGS 0x8138AE83
#define KVM_SET_SREGS 0x4138AE84
#define KVM_TRANSLATE 0xC018AE85
#define KVM_INTERRUPT 0x4004AE86
#define KVM_GET_MSRS 0xC008AE88
#define KVM_SET_MSRS 0x4008AE89
#define KVM_GET_FPU 0x81A0AE8C
#define KVM_SET_FPU 0x41A0AE8D
#define KVM_GET_LAPIC 0x8400AE8E
#define KVM_SET_LAPIC 0x4400AE8F
#define KVM_SET_CPUID2 0x4008AE90
#define KVM_GET_CPUID2 0xC008AE91
#define KVM_GET_MP_STATE 0x8004AE98
#define KVM_SET_MP_STATE 0x4004AE99
#define KVM_NMI 0xAE9A
#define KVM_SET_GUEST_DEBUG 0x4048AE9B
#define KVM_GET_VCPU_EVENTS 0x8040AE9F
#define KVM_SET_VCPU_EVENTS 0x4040AEA0
#define KVM_GET_DEBUGREGS 0x8080AEA1
#define KVM_SET_DEBUGREGS 0x4080AEA2
#define KVM_SET_TSC_KHZ 0xAEA2
#define KVM_GET_TSC_KHZ 0xAEA3
#define KVM_GET_XSAVE 0x9000AEA4
#define KVM_SET_XSAVE 0x5000AEA5
#define KVM_GET_XCRS 0x8188AEA6
#define KVM_SET_XCRS 0x4188AEA7
#define KVM_KVMCLOCK_CTRL 0xAEAD
#define KVM_SMI 0xAEB7
#define KVM_GET_SREGS2 0x8140AECC
#define KVM_SET_SREGS2 0x4140AECD
#define KVM_GET_STATS_FD 0xAECE
#define KVM_GET_XSAVE2 0x9000AECF
#define KVM_SET_DEVICE_ATTR 0x4018AEE1
#define KVM_GET_DEVICE_ATTR 0x4018AEE2
#define KVM_HAS_DEVICE_ATTR 0x4018AEE3

/* Exit reasons. */
#define KVM_EXIT_UNKNOWN 0
#define KVM_EXIT_EXCEPTION 1
#define KVM_EXIT_IO 2
#define KVM_EXIT_HYPERCALL 3
#define KVM_EXIT_DEBUG 4
#define KVM_EXIT_HLT 5
#define KVM_EXIT_MMIO 6
#define KVM_EXIT_IRQ_WINDOW_OPEN 7
#define KVM_EXIT_SHUTDOWN 8
#define KVM_EXIT_FAIL_ENTRY 9
#define KVM_EXIT_INTR 10
#define KVM_EXIT_SET_TPR 11
#define KVM_EXIT_TPR_ACCESS 12
#define KVM_EXIT_NMI 16
#define KVM_EXIT_INTERNAL_ERROR 17
#define KVM_EXIT_SYSTEM_EVENT 24
#define KVM_EXIT_IOAPIC_EOI 26
#define KVM_EXIT_HYPERV 27
#define KVM_EXIT_X86_RDMSR 29
#define KVM_EXIT_X86_WRMSR 30
#define KVM_EXIT_DIRTY_RING_FULL 31
#define KVM_EXIT_AP_RESET_HOLD 32
#define KVM_EXIT_X86_BUS_LOCK 33
#define KVM_EXIT_XEN 34
#define KVM_EXIT_NOTIFY 37
#define KVM_EXIT_MEMORY_FAULT 39

#define KVM_EXIT_IO_IN 0
#define KVM_EXIT_IO_OUT 1

/* Offsets in the vCPU's mapping, in pages. */
#define KVM_PIO_PAGE_OFFSET 1
#define KVM_COALESCED_MMIO_PAGE_OFFSET 2
#define KVM_DIRTY_LOG_PAGE_OFFSET 64

/* Memory slots. */
#define KVM_MEM_LOG_DIRTY_PAGES 1
#define KVM_MEM_READONLY 2
#define KVM_MEM_GUEST_MEMFD 4
#define GUEST_MEMFD_FLAG_MMAP 1
#define GUEST_MEMFD_FLAG_INIT_SHARED 2
#define KVM_MEMORY_ATTRIBUTE_PRIVATE 8
#define KVM_MEMORY_EXIT_FLAG_PRIVATE 8
#define KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE 1
#define KVM_DIRTY_LOG_INITIALLY_SET 2
#define KVM_DIRTY_GFN_F_DIRTY 1
#define KVM_DIRTY_GFN_F_RESET 2

/* Interrupts and eventfds. */
#define KVM_IRQCHIP_PIC_MASTER 0
#define KVM_IRQCHIP_PIC_SLAVE 1
#define KVM_IRQCHIP_IOAPIC 2
#define KVM_IRQ_ROUTING_IRQCHIP 1
#define KVM_IRQ_ROUTING_MSI 2
#define KVM_IRQFD_FLAG_DEASSIGN 1
#define KVM_IRQFD_FLAG_RESAMPLE 2
#define KVM_IOEVENTFD_FLAG_DATAMATCH 1
#define KVM_IOEVENTFD_FLAG_PIO 2
#define KVM_IOEVENTFD_FLAG_DEASSIGN 4
#define KVM_X2APIC_API_USE_32BIT_IDS 1
#define KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK 2

/* Clocks. */
#define KVM_CLOCK_TSC_STABLE 2
#define KVM_CLOCK_REALTIME 4
#define KVM_CLOCK_HOST_TSC 8
#define KVM_VCPU_TSC_CTRL 0
#define KVM_VCPU_TSC_OFFSET 0

/* Registers. */
#define KVM_SYNC_X86_REGS 1
#define KVM_SYNC_X86_SREGS 2
#define KVM_SYNC_X86_EVENTS 4
#define KVM_SREGS2_FLAGS_PDPTRS_VALID 1
#define KVM_CPUID_FLAG_SIGNIFCANT_INDEX 1
#define KVM_VCPUEVENT_VALID_NMI_PENDING 0x01
#define KVM_VCPUEVENT_VALID_SIPI_VECTOR 0x02
#define KVM_VCPUEVENT_VALID_SHADOW 0x04
#define KVM_VCPUEVENT_VALID_SMM 0x08
#define KVM_VCPUEVENT_VALID_PAYLOAD 0x10
#define KVM_VCPUEVENT_VALID_TRIPLE_FAULT 0x20
#define KVM_GUESTDBG_ENABLE 0x00001
#define KVM_GUESTDBG_SINGLESTEP 0x00002
#define KVM_GUESTDBG_USE_SW_BP 0x10000
#define KVM_GUESTDBG_USE_HW_BP 0x20000
#define KVM_GUESTDBG_BLOCKIRQ 0x100000
#define KVM_MSR_EXIT_REASON_INVAL 1
#define KVM_MSR_EXIT_REASON_UNKNOWN 2
#define KVM_MSR_EXIT_REASON_FILTER 4
#define KVM_MSR_FILTER_READ 1
#define KVM_MSR_FILTER_WRITE 2
#define KVM_MSR_FILTER_DEFAULT_ALLOW 0
#define KVM_MSR_FILTER_MAX_BITMAP_SIZE 0x600

struct kvm_enable_cap {
    uint32_t cap, flags;
    uint64_t args[4];
    uint8_t pad[64];
};

struct kvm_userspace_memory_region {
    uint32_t slot, flags;
    uint64_t guest_phys_addr, memory_size, userspace_addr;
};

struct kvm_userspace_memory_region2 {
    uint32_t slot, flags;
    uint64_t guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset;
    uint32_t guest_memfd, pad1;
    uint64_t pad2[14];
};

struct kvm_create_guest_memfd {
    uint64_t size, flags, reserved[6];
};

struct kvm_memory_attributes {
    uint64_t address, size, attributes, flags;
};

struct kvm_dirty_log {
    uint32_t slot, padding1;
    void *dirty_bitmap;
};

struct kvm_clear_dirty_log {
    uint32_t slot, num_pages;
    uint64_t first_page;
    void *dirty_bitmap;
};

struct kvm_dirty_gfn {
    uint32_t flags, slot;
    uint64_t offset;
};

struct kvm_irq_level {
    uint32_t irq, level;
};

struct kvm_irqchip {
    uint32_t chip_id, pad;
    uint8_t chip[512];
};

struct kvm_irq_routing_entry {
    uint32_t gsi, type, flags, pad;
    union {
        struct { uint32_t irqchip, pin; } irqchip;
        struct { uint32_t address_lo, address_hi, data, devid; } msi;
        uint32_t pad[8];
    } u;
};

struct kvm_irq_routing {
    uint32_t nr, flags;
    struct kvm_irq_routing_entry entries[];
};

struct kvm_irqfd {
    uint32_t fd, gsi, flags, resamplefd;
    uint8_t pad[16];
};

struct kvm_ioeventfd {
    uint64_t datamatch, addr;
    uint32_t len;
    int32_t fd;
    uint32_t flags;
    uint8_t pad[36];
};

struct kvm_msi {
    uint32_t address_lo, address_hi, data, flags, devid;
    uint8_t pad[12];
};

#define KVM_PIT_SPEAKER_DUMMY 0x1 /* port 0x61 is the kernel's too */
struct kvm_pit_config {
    uint32_t flags, pad[15];
};

struct kvm_pit_channel_state {
    uint32_t count;
    uint16_t latched_count;
    uint8_t count_latched, status_latched, status, read_state, write_state, write_latch, rw_mode, mode, bcd, gate;
    int64_t count_load_time;
};

struct kvm_pit_state2 {
    struct kvm_pit_channel_state channels[3];
    uint32_t flags, reserved[9];
};

struct kvm_reinject_control {
    uint8_t pit_reinject, reserved[31];
};

struct kvm_coalesced_mmio_zone {
    uint64_t addr;
    uint32_t size, pio;
};

struct kvm_coalesced_mmio {
    uint64_t phys_addr;
    uint32_t len, pio;
    uint8_t data[8];
};

struct kvm_coalesced_mmio_ring {
    uint32_t first, last;
    struct kvm_coalesced_mmio coalesced_mmio[];
};

struct kvm_clock_data {
    uint64_t clock;
    uint32_t flags, pad0;
    uint64_t realtime, host_tsc;
    uint32_t pad[4];
};

struct kvm_create_device {
    uint32_t type, fd, flags;
};

struct kvm_device_attr {
    uint32_t flags, group;
    uint64_t attr, addr;
};

struct kvm_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags;
};

struct kvm_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl, unusable, padding;
};

struct kvm_dtable {
    uint64_t base;
    uint16_t limit, padding[3];
};

struct kvm_sregs {
    struct kvm_segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint64_t interrupt_bitmap[4];
};

struct kvm_sregs2 {
    struct kvm_segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint64_t flags, pdptrs[4];
};

struct kvm_fpu {
    uint8_t fpr[8][16];
    uint16_t fcw, fsw;
    uint8_t ftwx, pad1;
    uint16_t last_opcode;
    uint64_t last_ip, last_dp;
    uint8_t xmm[16][16];
    uint32_t mxcsr, pad2;
};

struct kvm_xsave {
    uint32_t region[1024];
};

struct kvm_xcr {
    uint32_t xcr, reserved;
    uint64_t value;
};

struct kvm_xcrs {
    uint32_t nr_xcrs, flags;
    struct kvm_xcr xcrs[16];
    uint64_t padding[16];
};

struct kvm_lapic_state {
    uint8_t regs[1024];
};

struct kvm_mp_state {
    uint32_t mp_state;
};

struct kvm_interrupt {
    uint32_t irq;
};

struct kvm_translation {
    uint64_t linear_address, physical_address;
    uint8_t valid, writeable, usermode, pad[5];
};

struct kvm_msr_entry {
    uint32_t index, reserved;
    uint64_t data;
};

struct kvm_msrs {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entries[];
};

struct kvm_msr_list {
    uint32_t nmsrs;
    uint32_t indices[];
};

struct kvm_msr_filter_range {
    uint32_t flags, nmsrs, base;
    uint8_t *bitmap;
};

struct kvm_msr_filter {
    uint32_t flags;
    struct kvm_msr_filter_range ranges[16];
};

struct kvm_cpuid_entry2 {
    uint32_t function, index, flags, eax, ebx, ecx, edx, padding[3];
};

struct kvm_cpuid2 {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entries[];
};

struct kvm_vcpu_events {
    struct { uint8_t injected, nr, has_error_code, pending; uint32_t error_code; } exception;
    struct { uint8_t injected, nr, soft, shadow; } interrupt;
    struct { uint8_t injected, pending, masked, pad; } nmi;
    uint32_t sipi_vector, flags;
    struct { uint8_t smm, pending, smm_inside_nmi, latched_init; } smi;
    struct { uint8_t pending; } triple_fault;
    uint8_t reserved[26];
    uint8_t exception_has_payload;
    uint64_t exception_payload;
};

struct kvm_debugregs {
    uint64_t db[4], dr6, dr7, flags, reserved[9];
};

struct kvm_guest_debug {
    uint32_t control, pad;
    uint64_t debugreg[8];
};

struct kvm_stats_header {
    uint32_t flags, name_size, num_desc, id_offset, desc_offset, data_offset;
};

struct kvm_stats_desc {
    uint32_t flags;
    int16_t exponent;
    uint16_t size;
    uint32_t offset, bucket_size;
};

struct kvm_sync_regs {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_vcpu_events events;
};

struct kvm_run {
    uint8_t request_interrupt_window, immediate_exit, padding1[6];
    uint32_t exit_reason;
    uint8_t ready_for_interrupt_injection, if_flag;
    uint16_t flags;
    uint64_t cr8, apic_base;
    union {
        struct { uint64_t hardware_exit_reason; } hw;
        struct { uint64_t hardware_entry_failure_reason; uint32_t cpu; } fail_entry;
        struct { uint32_t exception, error_code; } ex;
        struct { uint8_t direction, size; uint16_t port; uint32_t count; uint64_t data_offset; } io;
        struct { uint32_t exception, pad; uint64_t pc, dr6, dr7; } debug;
        struct { uint64_t phys_addr; uint8_t data[8]; uint32_t len; uint8_t is_write; } mmio;
        struct { uint64_t nr, args[6], ret, flags; } hypercall;
        struct { uint64_t rip; uint32_t is_write, pad; } tpr_access;
        struct { uint32_t suberror, ndata; uint64_t data[16]; } internal;
        struct { uint32_t suberror, ndata; uint64_t flags; uint8_t insn_size, insn_bytes[15]; } emulation_failure;
        struct { uint32_t type, ndata; uint64_t data[16]; } system_event;
        struct { uint8_t vector; } eoi;
        struct { uint8_t error, pad[7]; uint32_t reason, index; uint64_t data; } msr;
        struct { uint32_t flags; } notify;
        struct { uint64_t flags, gpa, size; } memory_fault;
        uint8_t padding[256];
    } exit;
    uint64_t kvm_valid_regs, kvm_dirty_regs;
    union {
        struct kvm_sync_regs regs;
        uint8_t padding[2048];
    } s;
};
