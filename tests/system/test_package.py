"""The distribution: what the wheel holds, and the demonstration run from an installed wheel."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from typing import TYPE_CHECKING

import pytest

from core.version import VERSION
from tests.system.installation import (
    build_wheel,
    environment,
    path_without_compilers,
    run_demonstration,
)

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = {"core", "db", "node", "receiver", "training", "triton_models", "worker"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_typed_packages_models_and_licences_but_no_tests(wheel: Path) -> None:
    assert wheel.name == f"epvs_node-{VERSION}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"epvs_node-{VERSION}.dist-info"
    assert {name.split("/")[0] for name in names} == {*PACKAGES, info}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names


def test_the_demonstration_runs_from_an_installed_wheel_in_an_empty_folder(
    wheel: Path, tmp_path: Path
) -> None:
    """The dependencies are those of the test environment; `tests.system.installation` has none."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    packages = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # A plain path line: the .pth file of the editable install in that folder is not processed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = environment(path_without_compilers(tmp_path / "bin"))
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([python, *install, wheel], check=True, env=env)
    found = subprocess.run(
        [python, "-c", "import core.settings as s; print(s.SHIPPED_MODELS_DIR)"],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == str(packages / "triton_models")
    output = run_demonstration(python, tmp_path / "empty", env)
    assert "worklist_results" in output
    assert (tmp_path / "empty" / "data" / "demo" / "result" / "report.dcm").is_file()
