"""The conformance cases, in process, with real faces and the real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operations.cases import Body, Requests, load_cases, prepare, run_case

from facecore import Gallery
from facecore.operations import FaceService, OperationError

CASES = load_cases(Path(__file__).resolve().parents[1] / "data/operations_cases.json")

FAULTS = {
    "ram_denied": "Forbidden.RAMUserAccessDenied",
    "account_denied": "Forbidden.AccountAccessDenied",
    "throttled": "Throttling.Api",
    "unavailable": "ServiceUnavailable",
    "no_permission": "Error.NoPermissionAccess",
    "algorithm": "Error.CompareFacesError",
}


def gate_of(fault: str | None) -> Callable[[str], None] | None:
    """Return a gate that injects a fault; "internal" is an unexpected error."""
    if fault is None:
        return None

    def gate(name: str) -> None:
        raise OperationError(FAULTS[fault]) if fault in FAULTS else RuntimeError("injected")

    return gate


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return the settings for a case: its gate, and a short wait for a stalling address."""
    settings: dict[str, Any] = {"gate": gate_of(case.get("given", {}).get("fault"))}
    if "@url:timeout" in str(case):
        settings["download_timeout"] = 0.3
    return settings


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_case(
    case: dict[str, Any],
    requests: Requests,
    gallery: Gallery,
    make_service: Callable[..., FaceService],
) -> None:
    service = make_service(**settings_of(case))
    prepare(gallery, case.get("given", {}), requests.symbols)

    def call(name: str, params: dict[str, Any]) -> tuple[int, Body]:
        response = service.call(name, params)
        return response.status, response.body

    assert run_case(case, requests, call) == []
