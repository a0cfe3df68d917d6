"""The OpenAPI schema is true: what schemathesis makes of it is answered as the schema says."""

import pytest
from tiny import make_tiny_components

from melody_diffusers import MeLoDyPipeline
from melody_diffusers.serving.app import create_app
from melody_diffusers.serving.queue import Limits

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, settings  # noqa: E402


def make_app():
    pipe = MeLoDyPipeline(**make_tiny_components())
    return create_app(pipe, token="secret", limits=Limits(max_seconds=1.0, max_steps=1, max_live_seconds=1.0))


schema = schemathesis.openapi.from_asgi("/openapi.json", make_app())


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_schema_names(case):
    case.call_and_validate(
        headers={"Authorization": "Bearer secret"},
        excluded_checks=[schemathesis.checks.CHECKS.get_one("positive_data_acceptance")],
    )
