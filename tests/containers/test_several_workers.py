"""Three worker containers, one of which is killed or cut off in mid-study."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.containers.stack import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.containers.conftest import Record, Study
    from tests.containers.sender import Sender
    from tests.containers.stack import Stack

NETWORKS: Final = tuple(f"{PROJECT}_{name}" for name in ("pacs", "database", "broker", "inference"))


@pytest.fixture(scope="module")
def scaled(stack: Stack) -> Iterator[Stack]:
    """The stack with three workers; with one again afterwards."""
    stack.scale(worker=3)
    stack.wait_healthy("worker")
    assert len(stack.containers("worker")) == 3
    yield stack
    stack.scale(worker=1)
    stack.wait_healthy("worker")


def grading_container(stack: Stack, study_uid: str) -> str:
    """Return the container whose worker grades the study."""
    rows = stack.query(
        "SELECT id FROM revisions JOIN studies USING (study_uid) "
        f"WHERE study_uid = '{study_uid}' AND state = 'processing'"
    )
    for container in stack.containers("worker") if rows else []:
        if f"grading revision={rows[0]['id']}" in stack.engine.logs(container):
            return container
    return ""


def send_and_find(stack: Stack, sender: Sender, studies: list[Study]) -> tuple[Study, str]:
    """Send the studies; return one that is being graded, and the container that grades it."""
    for study in studies:
        assert sender.send(study.folder).returncode == 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for study in studies:
            if container := grading_container(stack, study.uid):
                return study, container
        time.sleep(0.1)
    raise AssertionError("no study was being graded")


def assert_each_has_one_report(stack: Stack, studies: list[Study]) -> None:
    for study in studies:
        assert stack.wait_for(study.uid)["status"] == "delivered"
        assert len(stack.reports(study.uid)) == 1


def test_studies_of_a_killed_worker_are_graded_by_the_others(
    scaled: Stack, sender: Sender, studies: list[Study], record: Record
) -> None:
    study, container = send_and_find(scaled, sender, studies)
    scaled.kill(container)
    began = time.monotonic()
    assert_each_has_one_report(scaled, [study])
    record.seconds["one of three workers killed in mid-study: until its study is delivered"] = (
        time.monotonic() - began
    )
    assert_each_has_one_report(scaled, studies)


def test_a_worker_that_was_cut_off_changes_nothing_when_it_comes_back(
    scaled: Stack, sender: Sender, studies: list[Study], record: Record
) -> None:
    study, container = send_and_find(scaled, sender, studies)
    for network in NETWORKS:
        scaled.engine.docker("network", "disconnect", network, container)
    began = time.monotonic()
    assert_each_has_one_report(scaled, [study])
    record.seconds["one of three workers cut off in mid-study: until its study is delivered"] = (
        time.monotonic() - began
    )
    for network in NETWORKS:
        scaled.engine.docker("network", "connect", network, container)
    assert_each_has_one_report(scaled, studies)
    scaled.wait_healthy("worker")
