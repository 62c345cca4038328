"""The socket device's guest and host ends, for the tests about it."""

import pytest
from vsock_driver import VsockDriver


@pytest.fixture
def vsock_guest(tmp_path):
    driver = VsockDriver(tmp_path / "v")
    yield driver
    driver.device.close()


@pytest.fixture
def listener(vsock_guest):
    with vsock_guest.listen(52) as listener:
        yield listener


@pytest.fixture
def host(vsock_guest, listener):
    """The host's end of a connection from the guest's port 1000 to 52."""
    with vsock_guest.connect(listener, 52, 1000) as sock:
        sock.setblocking(False)
        yield sock
