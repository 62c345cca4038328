"""Shared folders: a FUSE server over a folder of the host, which nothing that a guest asks for leaves.

`server.Server` answers requests of the FUSE protocol (linux/fuse.h, 7.31 and later). It knows messages, not queues:
`pyhv.virtio.fs` gives it the chains of a virtio-fs device.
"""
