"""Command line: every command and every option is explained; errors give exit status 1."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.cli import _parser, main


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _parsers(each)


def test_every_command_and_option_has_a_help_text() -> None:
    parsers = list(_parsers(_parser()))
    assert len(parsers) == 14
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
