"""What the tests of images share."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Flushes do everything but wait: the machine that runs the tests will not lose its power on purpose."""
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
