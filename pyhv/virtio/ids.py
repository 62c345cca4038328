"""Numbers of the specification that devices, queues and transports share (virtio 1.2, section in brackets)."""

from __future__ import annotations

VENDOR_ID = 0x1AF4
"""Of PCI functions [4.1.2], and what MMIO devices show as theirs."""

# Device types [5]
NET = 1
BLOCK = 2
CONSOLE = 3
ENTROPY = 4
BALLOON = 5
VSOCK = 19
FS = 26
PMEM = 27

# Device status [2.1]
ACKNOWLEDGE = 1
DRIVER = 2
DRIVER_OK = 4
FEATURES_OK = 8
DEVICE_NEEDS_RESET = 64
FAILED = 128

# Feature bits, by number [6]
INDIRECT_DESC = 28
EVENT_IDX = 29
VERSION_1 = 32
ACCESS_PLATFORM = 33
RING_PACKED = 34
IN_ORDER = 35
ORDER_PLATFORM = 36
SR_IOV = 37
NOTIFICATION_DATA = 38
NOTIF_CONFIG_DATA = 39
RING_RESET = 40

# Descriptor flags [2.7.5, 2.8.1]
DESC_NEXT = 1
DESC_WRITE = 2
DESC_INDIRECT = 4
DESC_AVAIL = 1 << 7
DESC_USED = 1 << 15
DESC_SIZE = 16

# Flags of the rings [2.7.6, 2.7.8, 2.8.10]
AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1
EVENTS_ENABLE = 0
EVENTS_DISABLE = 1
EVENTS_DESC = 2

MAX_QUEUE_SIZE = 32768
"""Descriptors in a queue of either format [2.7, 2.8]."""

# Interrupt status [4.1.4.5, 4.2.2]
ISR_QUEUE = 1
ISR_CONFIG = 2
