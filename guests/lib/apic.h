/* The local APIC of this processor and the first I/O APIC, both by memory-mapped registers. */
#pragma once
#include "io.h"

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,            /* task priority */
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ISR = 0x100,           /* in service: 8 registers, 0x10 apart */
    APIC_IRR = 0x200,           /* requested: 8 registers, 0x10 apart */
    APIC_ERROR = 0x280,
    APIC_ICR_LOW = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,

    SPURIOUS_APIC_ENABLE = 0x100,
    SPURIOUS_VECTOR = 0xff,

    LVT_MASKED = 0x10000,
    LVT_PERIODIC = 0x20000,
    LVT_EXTINT = 0x700,
    DIVIDE_BY_1 = 0xb,
    DIVIDE_BY_16 = 0x3,

    ICR_FIXED = 0x0000,
    ICR_NMI = 0x0400,
    ICR_INIT = 0x0500,
    ICR_STARTUP = 0x0600,
    ICR_PENDING = 0x1000,
    ICR_ASSERT = 0x4000,
    ICR_SELF = 0x40000,
    ICR_ALL_BUT_SELF = 0xc0000,

    IOAPIC_LEVEL = 0x8000,      /* redirection entry, low half */
    IOAPIC_REMOTE_IRR = 0x4000,
    IOAPIC_ACTIVE_LOW = 0x2000,
    IOAPIC_MASKED = 0x10000,
};

static const uintptr_t APIC_BASE = 0xfee00000;

static inline uint32_t apic_read(unsigned reg) { return mmio_read32(APIC_BASE + reg); }
static inline void apic_write(unsigned reg, uint32_t v) { mmio_write32(APIC_BASE + reg, v); }
static inline void apic_eoi(void) { apic_write(APIC_EOI, 0); }
static inline unsigned apic_id(void) { return apic_read(APIC_ID) >> 24; }

/* Enables this processor's APIC with every local source masked. Needs isr_init() or isr_load() first. */
void apic_enable(void);

/* Sends an interprocessor interrupt (ICR_...) to one processor, or to those that a shorthand names. */
void apic_send(unsigned destination, uint32_t command);

/* Sleeps, by HLT, for so many APIC timer counts: nanoseconds on QEMU and KVM, whose APIC bus has 1 GHz. */
enum { APIC_MILLISECOND = 1000000 };
void apic_sleep(uint32_t counts);

/* Sleeps, by HLT, until interrupts have counted up to `wanted`; 0 when that took too long. Interrupts are off around it. */
int apic_wait(const volatile unsigned *count, unsigned wanted, unsigned milliseconds);

uint32_t ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, uint32_t v);

/* Routes a pin to this processor; flags are IOAPIC_... . */
void ioapic_route(unsigned pin, unsigned vector, uint32_t flags);
void ioapic_mask(unsigned pin);
unsigned ioapic_pins(void);

/* The low half of a pin's redirection entry. */
uint32_t ioapic_entry(unsigned pin);
