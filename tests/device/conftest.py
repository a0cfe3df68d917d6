"""The fake device, and a pipeline on it."""

import pytest
from fake_device import FakeDevice
from small import make_pipe


@pytest.fixture
def device():
    with FakeDevice() as device:
        yield device


@pytest.fixture
def pipe(device):
    """A pipeline on the device."""
    return make_pipe().to("fake")
