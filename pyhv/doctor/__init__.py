"""What this host offers to virtual machines; where it does not, why, and what mends it.

from pyhv import doctor
print(doctor.examine()["NPT"].reason)
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.doctor import amd, hugepages, kvm
from pyhv.doctor.finding import NO, STATES, UNKNOWN, YES, Finding, Report
from pyhv.doctor.host import Host
from pyhv.errors import HostError, PyhvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.hv.select import Selection

__all__ = ["NO", "STATES", "UNKNOWN", "YES", "Finding", "Host", "Report", "examine"]


def examine(host: Host | None = None, choose: Callable[[], Selection] | None = None) -> Report:
    """Look at the host, changing nothing. Never raises for what it finds.

    `host` is where files and CPUID come from (this machine by default), `choose` what picks the backend.
    """
    host = host or Host()
    findings = [
        kvm.device(host),
        kvm.permissions(host),
        amd.svm(host),
        amd.nested_paging(host),
        amd.avic(host),
        amd.x2avic(host),
        amd.sev(host),
        amd.sev_es(host),
        amd.sev_snp(host),
        hugepages.reserved(host, "2M"),
        hugepages.reserved(host, "1G"),
        hugepages.transparent(host),
        simulator(),
    ]
    try:
        selection = choose() if choose is not None else _choose()
    except HostError as error:
        return Report(tuple(findings), None, str(error))
    return Report(tuple(findings), selection.name, selection.reason)


def simulator() -> Finding:
    """Whether the simulated machine is part of this installation."""
    from pyhv.hv.select import select

    try:
        select("sim")
    except PyhvError as error:
        return Finding("simulator", NO, str(error))
    return Finding("simulator", YES, "built in; `pyhv run --backend sim` uses it")


def _choose() -> Selection:
    from pyhv.hv.select import select

    return select("auto")
