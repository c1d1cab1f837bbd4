"""Requests that are made up from the server's own OpenAPI document: no answer is a failure."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from live_server import LiveServer

NUM_EXAMPLES = 20
"""Requests of every operation, and as many in bad form."""


def fuzz(server: LiveServer, num_examples: int) -> Counter[str]:
    """Asks every operation so many times, in good and in bad form; answers by path and status.

    Raises:
        schemathesis.core.failures.FailureGroup: an answer that is not in the document, or a 5xx.
    """
    # Takes seconds to import, which every run of any test would otherwise wait for.
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: Counter[str] = Counter()
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in modes:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=num_examples,
                deadline=None,
                derandomize=True,
                database=None,
                phases=(Phase.explicit, Phase.generate),
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def ask(case: Any) -> None:
                response = case.call_and_validate(checks=checks, timeout=20)
                seen[f"{case.method} {case.path} {response.status_code}"] += 1

            try:
                ask()
            except Unsatisfiable:
                # A request without anything in it cannot be made in bad form.
                assert mode is schemathesis.GenerationMode.NEGATIVE
                assert not list(operation.body.items)
    return seen


def check(seen: Counter[str], num_examples: int) -> None:
    """Good and bad requests both came in, and every route was asked."""
    expected = (
        "GET /health 200",
        "GET /metrics 200",
        "GET /v1/models 200",
        "GET /v1/audio/voices 200",
        "POST /v1/audio/speech 400",
        "POST /v1/audio/voices 400",
        "DELETE /v1/audio/voices/{voice_id} 404",
    )
    for name in expected:
        assert seen[name], (name, seen)
    assert seen.total() > 7 * num_examples


@pytest.mark.slow
def test_made_up_requests(shared: LiveServer) -> None:
    check(fuzz(shared, NUM_EXAMPLES), NUM_EXAMPLES)
    assert shared.service.engine.num_live == 0
    assert shared.service.admission.num_live == shared.service.admission.num_waiting == 0
    assert shared.service.num_uploads == 0
