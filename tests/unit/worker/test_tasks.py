"""A task leaves a waiting row alone while a service is unavailable, and hides no other error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.errors import Unavailable
from core.settings import load_settings
from worker import services, tasks

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> services.Services:
    made = services.Services(load_settings())
    monkeypatch.setattr(services, "_current", made)
    return made


def raising(error: Exception) -> Callable[[services.Services, str], None]:
    def attempt(_services: services.Services, _target_id: str) -> None:
        raise error

    return attempt


@pytest.mark.parametrize("name", ["attempt_grading", "attempt_delivery"])
def test_each_task_attempts_its_target_with_the_services_of_the_process(
    name: str, installed: services.Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[tuple[services.Services, str]] = []
    monkeypatch.setattr(tasks, name, lambda given, target_id: attempts.append((given, target_id)))
    {"attempt_grading": tasks.grade_revision, "attempt_delivery": tasks.deliver}[name]("id-1")
    assert attempts == [(installed, "id-1")]


def test_an_unavailable_database_ends_the_task_without_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = Unavailable("database", "The database is not available.")
    monkeypatch.setattr(tasks, "attempt_grading", raising(error))
    tasks.grade_revision("id-1")
    assert "attempt abandoned target=id-1" in caplog.text


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "attempt_delivery", raising(ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        tasks.deliver("id-1")
