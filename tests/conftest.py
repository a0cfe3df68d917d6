"""Fixtures: a tiny pipeline, a folder of it, and a Hub on this machine."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hub_server import HubServer
from tiny import make_tiny_components

from melody_diffusers import MeLoDyPipeline


@pytest.fixture(scope="session")
def make_components() -> Callable[[], dict[str, Any]]:
    """Makes the components of a tiny pipeline, the same each time."""
    return make_tiny_components


@pytest.fixture
def tiny_components() -> dict[str, Any]:
    """Components that the test may change."""
    return make_tiny_components()


@pytest.fixture(scope="session")
def tiny_pipeline() -> MeLoDyPipeline:
    """One pipeline for the whole session; a test that changes it puts it back."""
    return MeLoDyPipeline(**make_tiny_components())


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline: MeLoDyPipeline, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pipeline of `tiny_pipeline`, saved; to be read only."""
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    tiny_pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def hub_server() -> Iterator[HubServer]:
    """A Hub on this machine, empty at first, for the users alice (token hf_alice) and bob (hf_bob)."""
    with HubServer({"hf_alice": "alice", "hf_bob": "bob"}) as hub:
        yield hub
