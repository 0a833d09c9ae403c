from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from node import operator

if TYPE_CHECKING:
    import pytest


def test_the_operator_is_the_user_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert operator.operator_name() == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert operator.operator_name() == "uid 4000000000"
