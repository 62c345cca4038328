"""Virtio devices: queues, transports, and one module a device (virtio 1.2, OASIS, csd01).

A device is a class over `pyhv.virtio.device.VirtioDevice`. What its driver does wrong never reaches it: chains are checked
before the device sees them, and a driver whose rings lie finds DEVICE_NEEDS_RESET.
"""
