"""Command line: every command and every option is explained; errors give exit status 1."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.permissions import is_private
from training import commands
from training.cli import _parser, main


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def test_every_command_and_option_has_a_help_text() -> None:
    parsers = list(_parsers(_parser()))
    assert len(parsers) == 16
    for parser in parsers:
        assert parser.description, parser.prog
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, f"{parser.prog} {action.dest}"


def test_errors_are_logged_and_give_exit_status_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["evaluate", "--cohort", str(tmp_path), "--only", "rating"]
    assert main(command) == 1
    assert "is not a cohort" in caplog.text


@pytest.mark.parametrize(
    ("command", "arguments", "private"),
    [
        ("agreement", ["readings.csv"], True),
        ("export", ["rating", "--run", "run", "--cohort", "cohort"], False),
        ("fp16", ["rating", "--cohort", "cohort"], False),
    ],
)
def test_only_exported_models_are_readable_by_other_accounts(
    command: str,
    arguments: list[str],
    private: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os.umask(0o022)
    file = tmp_path / "file"
    monkeypatch.setattr(commands, command, lambda _: file.touch())
    assert main([command, *arguments]) == 0
    assert is_private(file) == private
