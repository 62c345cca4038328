"""The pytest plugin: tests that run in, or on, virtual machines.

    @pytest.mark.vm(kernel="build/kernel.elf", timeout=10, backends=["kvm", "sim"], memory="64M")
    def test_it_boots(vm):
        vm.console.expect("ready")
        vm.wait().check()

`vm` is a machine that runs; `vm_factory(...)` makes as many as a test needs. A backend that the host lacks is a skip that
says what is missing; `--pyhv-require` makes it an error. Every pytest run with pyhv installed imports this module, so it
imports nothing but pytest.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from pyhv.testing.machines import VmFactory
    from pyhv.vm import Vm

MARKER = (
    "vm(kernel, timeout=60, backends=['auto'], **machine): a test on virtual machines. kernel: relative to the test's "
    "file or to the root directory; timeout: seconds for each machine; backends: of auto, kvm, sim and amd-v, one test "
    "each; machine: further fields of pyhv.Machine"
)
_FACTORY = "_pyhv_factory"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the command line."""
    group = parser.getgroup("pyhv", "virtual machines (pyhv)")
    group.addoption(
        "--pyhv-backend",
        action="append",
        metavar="NAME",
        choices=("auto", "kvm", "sim", "amd-v"),
        help="what runs tests that name no backends of their own; repeatable (default: auto)",
    )
    group.addoption(
        "--pyhv-require",
        action="append",
        metavar="WHAT",
        default=[],
        choices=("kvm", "amd-v", "sim"),
        help="fail, rather than skip, where the host lacks kvm, amd-v or sim; repeatable",
    )
    group.addoption(
        "--pyhv-artifacts", metavar="DIR", help="keep console logs and results here (default: each test's tmp_path)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each backend."""
    if "vm_backend" not in metafunc.fixturenames:
        return
    backends = metafunc.config.getoption("--pyhv-backend")
    for mark in metafunc.definition.iter_markers("vm"):
        if "backends" in mark.kwargs:
            backends = mark.kwargs["backends"]
            break
    if backends:
        backends = [backends] if isinstance(backends, str) else list(backends)
        metafunc.parametrize("vm_backend", backends, indirect=True)


@pytest.fixture
def vm_backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend that this test runs on; skips where the host lacks it."""
    from pyhv.testing.machines import need_backend

    name: str = getattr(request, "param", "auto")
    need_backend(name, request.config.getoption("--pyhv-require"))
    return name


@pytest.fixture
def vm_factory(request: pytest.FixtureRequest, vm_backend: str) -> Iterator[VmFactory]:
    """Makes machines: `vm_factory(kernel=None, *, timeout=None, start=True, **machine) -> Vm`, the mark's values being the
    defaults. All are stopped and reaped when the test ends."""
    from pyhv.testing.machines import VmFactory

    factory = VmFactory(request, vm_backend)
    setattr(request.node, _FACTORY, factory)
    yield factory
    factory.close()


@pytest.fixture
def vm(vm_factory: VmFactory) -> Vm:
    """The machine that the test's mark describes, running."""
    from pyhv.errors import ConfigError

    try:
        return vm_factory()
    except ConfigError as error:
        message = str(error)
    pytest.fail(message, pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """A machine that ran out of time, or that failed by itself unseen, fails a test that saw nothing wrong."""
    outcome = yield
    factory = getattr(item, _FACTORY, None)
    if factory is not None and outcome.excinfo is None:
        failure = factory.unseen_failure()
        if failure:
            outcome.force_exception(pytest.fail.Exception(failure, pytrace=False))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """What the machines of a failed test were doing."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    factory = getattr(item, _FACTORY, None)
    if factory is not None and report.failed and report.when != "teardown":
        add = getattr(report.longrepr, "addsection", None)
        for title, text in factory.failure_sections(call.excinfo.value if call.excinfo else None):
            if add is not None:
                add(title, text)
            else:
                report.sections.append((title, text))
