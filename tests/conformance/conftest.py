"""Backends for the kit. PYHV_TEST_BACKENDS (a comma-separated list) demands backends: a missing one is then an error."""

import os
from collections.abc import Callable, Iterator

import pytest

from pyhv.errors import HostError
from pyhv.hv.api import Hypervisor
from pyhv.hv.config import VmConfig

from .bench import RAM, Bench

BACKENDS = ("kvm", "sim")
DEMANDED = [name for name in os.environ.get("PYHV_TEST_BACKENDS", "").split(",") if name]


def open_backend(name: str) -> Hypervisor:
    """A backend by name. Raises HostError."""
    if name == "kvm":
        from pyhv.hv.kvm import KvmHypervisor

        return KvmHypervisor()
    from pyhv.hv.sim import SimHypervisor

    return SimHypervisor()


def _why_not(name: str) -> str:
    try:
        open_backend(name).close()
    except HostError as error:
        return str(error)
    return ""


ABSENT = {name: reason for name in BACKENDS if (reason := _why_not(name))}
PRESENT = [name for name in BACKENDS if (name in DEMANDED if DEMANDED else name not in ABSENT)]


@pytest.fixture(scope="session", params=PRESENT)
def backend(request: pytest.FixtureRequest) -> Iterator[Hypervisor]:
    """Each backend that is here, or each that is demanded; test_backends.py says which are not."""
    hypervisor = open_backend(request.param)
    # The first and the last VM of a kernel patch its scheduler while it runs (preempt_notifier_key), which QEMU's
    # emulated SMP can hang on: one VM lives as long as the tests.
    keeper = hypervisor.create_vm(VmConfig())
    yield hypervisor
    keeper.close()
    hypervisor.close()


Maker = Callable[..., Bench]


@pytest.fixture
def make(backend: Hypervisor) -> Iterator[Maker]:
    """Make benches: `make(vcpus=2, irqchip="none", ...)`; all are closed after the test."""
    benches: list[Bench] = []

    def maker(*, ram: int = RAM, **config: object) -> Bench:
        bench = Bench(backend, VmConfig(**config), ram=ram)  # type: ignore[arg-type]
        benches.append(bench)
        return bench

    yield maker
    for bench in benches:
        bench.vm.close()


@pytest.fixture
def bench(make: Maker) -> Bench:
    """One vCPU, split irqchip."""
    return make()
