"""Both rings, through the model driver."""

import pytest
from virtio_driver import Upper, device_bench, mmio_bench

from pyhv.virtio import ids


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("without", [(), (ids.EVENT_IDX,)])
@pytest.mark.parametrize("join", [device_bench, mmio_bench])
def test_requests(packed, without, join):
    driver = join(Upper(transport="mmio"), packed=packed, without=without)
    queue = driver.queues[0]
    for n in range(300):
        text = b"abc%d" % n
        assert queue.request([text[:2], text[2:]], [3, 20], indirect=n % 3 == 1) == text.upper()
    assert driver.transport.violations == 0
