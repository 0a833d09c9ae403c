"""A task leaves waiting rows alone while a service is unavailable, and hides no other error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kombu.exceptions import OperationalError

from core.errors import Unavailable
from core.settings import load_settings
from worker import services, tasks
from worker.app import DELIVER, GRADE_REVISION, app

if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPTS = {
    "attempt_grading": (tasks.grade_revision, [DELIVER, GRADE_REVISION]),
    "attempt_delivery": (tasks.deliver, [DELIVER]),
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> services.Services:
    made = services.Services(load_settings())
    monkeypatch.setattr(services, "_current", made)
    return made


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(app, "send_task", lambda name, _arguments: names.append(name))
    return names


def raising(error: Exception) -> Callable[..., bool]:
    def attempt(*_: object) -> bool:
        raise error

    return attempt


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_task_that_found_work_asks_for_what_follows(
    name: str,
    installed: services.Services,
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []

    def attempt(made: services.Services) -> bool:
        given.append(made)
        return True

    monkeypatch.setattr(tasks, name, attempt)
    task, following = ATTEMPTS[name]
    task("id-1")
    assert given == [installed]
    assert sent == following


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_task_that_found_nothing_ends_the_chain(
    name: str, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, name, lambda _: False)
    ATTEMPTS[name][0]("id-1")
    assert sent == []


def test_work_that_is_done_does_not_need_the_broker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "attempt_delivery", lambda _: True)
    monkeypatch.setattr(app, "send_task", raising(OperationalError("no route")))
    tasks.deliver("id-1")
    assert "the broker does not respond" in caplog.text


def test_an_unavailable_database_ends_the_task_without_an_error(
    sent: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = Unavailable("database", "The database is not available.")
    monkeypatch.setattr(tasks, "attempt_grading", raising(error))
    tasks.grade_revision("id-1")
    assert "attempt abandoned: The database" in caplog.text
    assert sent == []


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "attempt_delivery", raising(ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        tasks.deliver("id-1")
