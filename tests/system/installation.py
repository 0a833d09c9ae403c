"""Install the package as a user does, without a compiler, and run the demonstration there.

``python -m tests.system.installation python3.11 python3.12 python3.13`` builds the wheel and, for
each interpreter, installs it with all its dependencies into a new virtual environment and runs
``epvs-node demo --synthetic`` in an empty folder. No compiler is on ``PATH``, and pip may not build
anything. Needs PyPI and takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMPILERS: Final = (
    *("gcc", "g++", "cc", "c++", "c89", "c99", "cpp", "clang", "clang++", "ld", "as", "rustc"),
)


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of what Git tracks, so that the working tree stays clean."""
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(source)]
    subprocess.run([*command, *options], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def path_without_compilers(folder: Path) -> str:
    """Make a folder of links to the system's programs, except compilers, for use as ``PATH``."""
    folder.mkdir()
    for program in Path("/usr/bin").iterdir():
        name = program.name.removeprefix("x86_64-linux-gnu-").partition("-")[0]
        if name not in _COMPILERS:
            (folder / program.name).symlink_to(program)
    return str(folder)


def environment(path: str, cache: Path | None = None) -> dict[str, str]:
    """Return a user's environment: without settings of the node, `path` as ``PATH``."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("EPVS_", "PYTHON", "VIRTUAL"))}
    return kept | {"PATH": path} | ({"XDG_CACHE_HOME": str(cache)} if cache else {})


def run_demonstration(python: Path, folder: Path, env: Mapping[str, str]) -> str:
    """Run ``epvs-node demo --synthetic`` in a new empty folder; return its output.

    Raises
    ------
    RuntimeError
        It failed; the message is its output.
    """
    folder.mkdir()
    result = subprocess.run(
        [python.with_name("epvs-node"), "demo", "--synthetic"],
        cwd=folder,
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if result.returncode != 0:
        raise RuntimeError(result.stdout + result.stderr)
    return result.stdout


def main() -> None:
    """Install and demonstrate under each interpreter of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interpreters", nargs="+", metavar="PYTHON")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel = build_wheel(folder)
        path = path_without_compilers(folder / "bin")
        for number, interpreter in enumerate(parser.parse_args().interpreters):
            began = time.monotonic()
            env = environment(path, folder / f"cache-{number}")
            python = folder / f"venv-{number}" / "bin" / "python"
            subprocess.run([interpreter, "-m", "venv", python.parents[1]], check=True)
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel],
                env=env,
                check=True,
            )
            installed = time.monotonic() - began
            run_demonstration(python, folder / f"empty-{number}", env)
            total = time.monotonic() - began
            print(f"{interpreter}: installed in {installed:.0f} s, graded after {total:.0f} s")


if __name__ == "__main__":
    main()
