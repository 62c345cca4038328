"""The AMD-V rig: a real kvm_amd with nested paging inside an emulated AMD machine. See scripts/rig.py."""
