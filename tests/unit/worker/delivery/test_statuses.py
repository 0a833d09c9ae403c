"""The meaning of DIMSE statuses for a delivery."""

from __future__ import annotations

import pytest

from worker.delivery.statuses import Response, interpret_action, interpret_store


@pytest.mark.parametrize(
    ("status", "response"),
    [
        (0x0000, Response.STORED),
        (0xB000, Response.STORED),
        (0xB007, Response.STORED),
        (0x0107, Response.STORED),
        (0xA700, Response.TRY_LATER),
        (0xA7FF, Response.TRY_LATER),
        (0x0110, Response.TRY_LATER),
        (0x0111, Response.UNKNOWN),
        (0xA900, Response.REFUSED),
        (0xC000, Response.REFUSED),
        (0xCFFF, Response.REFUSED),
        (0x0122, Response.REFUSED),
        (0x0124, Response.REFUSED),
        (0xFE00, Response.REFUSED),
    ],
)
def test_each_c_store_status_has_its_meaning(status: int, response: Response) -> None:
    assert interpret_store(status) is response


@pytest.mark.parametrize(
    ("status", "response"),
    [
        (0x0000, Response.STORED),
        (0xB000, Response.STORED),
        (0x0112, Response.REFUSED),
        (0x0211, Response.REFUSED),
        (0x0110, Response.TRY_LATER),
        (0x0213, Response.TRY_LATER),
    ],
)
def test_each_n_action_status_has_its_meaning(status: int, response: Response) -> None:
    assert interpret_action(status) is response
