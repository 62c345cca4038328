"""The backends' names, and what a run can demand of them."""

BACKENDS = ("auto", "kvm", "sim")
REQUIREMENTS = ("kvm", "amd-v")
