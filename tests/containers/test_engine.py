"""Where no container engine can be had, the tests fail and say what to do."""

from __future__ import annotations

import os

import pytest

from tests.containers.engine import running_engine


def test_without_an_engine_the_tests_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RuntimeError, match="Start Docker"), running_engine():
        pass
