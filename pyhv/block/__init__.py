"""Disk images: what virtio-blk and virtio-pmem stand on.

An `Image` is a disk's contents, whatever holds them: a raw file or block device (`raw`), a qcow2 file (`qcow2`), or
another image under writes that stay in memory (`overlay`). `open_image` opens one by its named format. Nothing here looks
at contents to find out what they are: a guest can write what it likes to its disk.
"""

from __future__ import annotations
