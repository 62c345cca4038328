"""pyhv: a hypervisor in Python."""
