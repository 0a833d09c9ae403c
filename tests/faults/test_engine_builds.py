"""Builds of a served repository that fail or end half-way: what was served before stays, whole."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.builders.source_models import add_version, contents
from tests.support.builders.stand_in_models import MODELS
from triton_models import build_engines

if TYPE_CHECKING:
    from tests.support.builders.trtexec import TensorRT

SCRIPT = str(MODELS / "build_engines.py")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def run(backend: str, source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, backend, str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("error", "status 1. [01/01/2026-00:00:00] [E] [TRT] Conv_3: no implementation Read its"),
        ("killed", "rating/2 was not compiled: trtexec ended with SIGKILL. If memory ran out"),
        ("no file", "The engine of rating/2 does not run: trtexec ended with status 1."),
        ("cut off", "[E] Error deserializing engine"),
    ],
)
def test_a_failed_compilation_leaves_what_was_served_and_says_why(
    fault: str, message: str, source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    assert run("tensorrt", source_models, target).returncode == 0
    before = contents(target / "served")
    add_version(source_models, "rating", "2")
    tensorrt.fail(fault)
    tensorrt.calls()
    result = run("tensorrt", source_models, target)
    assert result.returncode == 1
    assert message in result.stderr
    assert "MiB are free" in result.stderr
    assert "what was served is kept" in result.stderr
    assert contents(target / "served") == before
    assert not list((target / "engines").glob("*.timings")), "they may be the cause"
    assert not (target / "engines" / "unfinished.plan").exists()

    tensorrt.fail("")
    tensorrt.calls()
    assert run("tensorrt", source_models, target).returncode == 0
    assert tensorrt.compiled() == ["rating/2"]
    assert (target / "served" / "rating" / "2" / "model.plan").exists()


def test_engines_that_were_made_before_a_failure_are_not_made_again(
    source_models: Path, target: Path, tensorrt: TensorRT
) -> None:
    network = source_models / "severity" / "1" / "model.fp16.onnx"
    kept = network.read_bytes()
    network.write_bytes(b"damaged")
    with pytest.raises(build_engines.BuildError):
        build_engines.build("tensorrt", source_models, target)
    assert tensorrt.compiled() == []
    network.write_bytes(kept)
    build_engines.build("tensorrt", source_models, target)
    assert tensorrt.compiled() == ["rating/1", "severity/1"]
    # Both are kept although nothing else is.
    shutil.rmtree(target / "builds")
    (target / "served").unlink()
    build_engines.build("tensorrt", source_models, target)
    assert tensorrt.compiled() == []


class _Stopped(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("backend", ["python", "tensorrt"])
def test_it_recovers_from_an_end_at_any_step(
    backend: str,
    source_models: Path,
    target: Path,
    tensorrt: TensorRT,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever changes files is ended in turn; Triton always finds one repository, whole."""
    build_engines.build(backend, source_models, target)
    original = shutil.copytree(target, target.with_name("original"), symlinks=True)
    old = contents(target / "served")
    add_version(source_models, "rating", "2")
    build_engines.build(backend, source_models, target)
    new = contents(target / "served")
    assert new != old

    found = build_engines.Compiler.find(target / "engines")
    monkeypatch.setattr(build_engines.Compiler, "find", lambda folder: found)
    steps, copyfile = math.inf, shutil.copyfile

    def interruptible(real: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal steps
            steps -= 1
            if steps == -1 and real is copyfile:
                real(*args, **options)
                os.truncate(args[1], 8)
            if steps < 0:  # it does not tidy up, either
                raise _Stopped
            return real(*args, **options)

        return step

    for owner, name in (
        *((Path, name) for name in ("mkdir", "rename", "replace", "symlink_to", "write_text")),
        *((os, name) for name in ("fsync", "link", "rmdir", "unlink")),
        *((shutil, "copyfile"), (subprocess, "Popen")),
    ):
        monkeypatch.setattr(owner, name, interruptible(getattr(owner, name)))

    for end in range(100):
        steps = math.inf
        shutil.rmtree(target)
        shutil.copytree(original, target, symlinks=True)
        steps = end
        try:
            build_engines.build(backend, source_models, target)
        except _Stopped:
            steps = math.inf
        else:
            break
        assert contents(target / "served") in (old, new), end
        build_engines.build(backend, source_models, target)
        assert contents(target / "served") == new, end
        assert len(list((target / "builds").iterdir())) == 1
        assert sorted(path.name for path in target.iterdir()) == sorted(
            ["builds", "lock", "served", *(["engines"] if backend == "tensorrt" else [])]
        )
    assert end > 20


def test_a_full_disk_is_said_to_be_full(
    source_models: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(source: Path, destination: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(destination))

    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.setattr(
        sys, "argv", ["build_engines.py", "python", str(source_models), str(target)]
    )
    assert build_engines.main() == 1
    message = capsys.readouterr().err
    assert f"The disk of {target} is full" in message
    assert "Make room" in message


def test_builds_at_the_same_time_wait_for_each_other(source_models: Path, target: Path) -> None:
    target.mkdir()
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-u", SCRIPT, "python", str(source_models), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "Waiting for another build" in process.stdout.readline()
            assert not (target / "served").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert "is built" in process.stdout.read()
    assert process.returncode == 0


def test_a_repository_of_version_0_1_is_replaced(source_models: Path, target: Path) -> None:
    (target / "served" / "rating" / "1").mkdir(parents=True)
    assert build_engines.build("python", source_models, target)
    assert (target / "served").is_symlink()
    assert (target / "served" / "rating" / "1" / "model.onnx").exists()
    assert len(list((target / "builds").iterdir())) == 1
