"""File systems of the kernel's own, which are not shared: their files tell of the host, change it, or block their reader."""

from __future__ import annotations

PSEUDO = frozenset(
    (
        0x00009FA0,  # proc
        0x62656572,  # sysfs
        0x00001CD1,  # devpts
        0x0027E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x07655821,  # resctrl
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xF97CFF8C,  # selinuxfs
        0x43415D53,  # smackfs
        0x62656570,  # configfs
        0x6165676C,  # pstore
        0xDE5E81E4,  # efivarfs
        0xCAFE4A11,  # bpf
        0x42494E4D,  # binfmt_misc
        0x65735543,  # fusectl
        0x19800202,  # mqueue
        0x6E736673,  # nsfs
        0x50494446,  # pidfs
        0x67596969,  # rpc_pipefs
        0x6E667364,  # nfsd
        0xABBA1974,  # xenfs
        0x0BAD1DEA,  # futexfs
        0x09041934,  # anonymous inodes
    )
)
"""f_type of each (linux/magic.h and the file systems' sources)."""
