"""The simulated AMD-V machine."""

from pyhv.errors import SimUnavailable


class SimHypervisor:
    """Placeholder until the host half lands."""

    def __init__(self) -> None:
        raise SimUnavailable("the simulated machine is not part of this installation")
