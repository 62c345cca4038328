"""qcow2 images, versions 2 and 3: read and written, never made.

Source of all formats here: "The qcow2 image format", docs/interop/qcow2.txt of QEMU; its limits are this package's. Not
taken: encryption, external data files, extended L2 entries. Numbers in the file are big-endian, offsets are bytes from its
beginning, a cluster is the unit of allocation.

How it stays whole: data goes to the file at once, all tables wait in memory until a flush, which writes them in an order
in which each step stands on what the one before made stable (`Qcow2Image.flush`). A process that is killed, or a host that
loses power, leaves at worst clusters that are counted but not used.
"""

from __future__ import annotations
