"""Images of the stack: ours are built, others pulled, or made from Debian's packages instead."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.containers.engine import Engine

_STAND_INS: Final = Path(__file__).with_name("stand_ins")
_SUITE: Final = "bookworm"
_PYTHON_PACKAGES: Final = "python3,python3-venv,python3-pip,libpython3.11,ca-certificates"
_SERVER_PACKAGES: Final = "postgresql,redis-server,orthanc,libboost-regex1.74.0"
"""The last because debootstrap does not follow virtual packages."""
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass
class Images:
    """Images that the stack runs.

    Attributes
    ----------
    engine : Engine
    used : dict
        Image of ``docker-compose.yml`` to the one that stands for it; only where they differ.
    differences : list of str
        What had to differ from what a hospital runs, and how.
    seconds, megabytes : dict
        Duration of each build or pull, and size of each image.
    """

    engine: Engine
    used: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, int] = field(default_factory=dict)

    def prepare(self, checkout: Path, services: Mapping[str, Mapping[str, Any]]) -> None:
        """Build or fetch every image of these services of ``docker-compose.yml``."""
        builds = {s["image"]: s["build"] for s in services.values() if "build" in s}
        others = {s["image"] for s in services.values()} - builds.keys()
        for image in sorted(others):
            self._obtain(image, self._make_server)
        for image, build in builds.items():
            self._build(image, checkout, build)
        for image in [*builds, *others]:
            size = int(self.engine.inspect(self.used.get(image, image))["Size"])
            self.megabytes[image] = size // 10**6

    def _build(self, image: str, checkout: Path, build: Mapping[str, str]) -> None:
        dockerfile = checkout / build["dockerfile"]
        (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
        self._obtain(base, self._make_python)
        began = time.monotonic()
        options = ["--tag", image, "--file", str(dockerfile)]
        if base in self.used:  # whose network settings are those of this machine
            options += ["--build-arg", f"PYTHON_IMAGE={self.used[base]}", "--network", "host"]
        self.engine.docker("build", *options, str(checkout))
        self.seconds[image] = time.monotonic() - began

    def _obtain(self, image: str, make: Any) -> None:
        if image in self.seconds or self.engine.has_image(image):
            return
        began = time.monotonic()
        try:
            self.engine.docker("pull", "--quiet", image)
        except RuntimeError:
            self.used[image], difference = make(image)
            self.differences.append(f"`{image}` cannot be pulled here: {difference}")
        self.seconds[image] = time.monotonic() - began

    def _make_python(self, image: str) -> tuple[str, str]:
        name = _stand_in("python", _PYTHON_PACKAGES)
        if not self.engine.has_image(name):
            self._make_debian(name, _PYTHON_PACKAGES)
        return name, f"stands in for it: {_SUITE} by debootstrap with {_PYTHON_PACKAGES}"

    def _make_server(self, image: str) -> tuple[str, str]:
        """Make an image of one server; all are layers on one Debian with their packages."""
        base = _stand_in("servers", _SERVER_PACKAGES)
        if not self.engine.has_image(base):
            self._make_debian(base, _SERVER_PACKAGES)
        server = image.partition(":")[0].rpartition("/")[2]
        dockerfile = _STAND_INS / f"{server}.Dockerfile"
        name = _stand_in(server, base + "".join(p.read_text() for p in _STAND_INS.iterdir()))
        if not self.engine.has_image(name):
            options = ["--tag", name, "--file", str(dockerfile), "--build-arg", f"BASE={base}"]
            self.engine.docker("build", *options, str(_STAND_INS))
        return name, f"stands in for it: {_SUITE}'s package with {dockerfile.name}"

    def _make_debian(self, name: str, packages: str) -> None:
        """Make an image from Debian's packages."""
        if shutil.which("debootstrap") is None:
            raise RuntimeError("debootstrap is not installed; `make container-test` installs it.")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            command = [
                "debootstrap",
                "--variant=minbase",
                f"--include={packages}",
                _SUITE,
                str(root),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
            if done.returncode != 0:
                raise RuntimeError(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr}")
            shutil.rmtree(root / "var/cache/apt")
            if (root / "usr/bin/python3").exists():
                (root / "usr/bin/python").symlink_to("python3")
                # A network with a certificate authority of its own.
                shutil.copy(_AUTHORITIES, root / _AUTHORITIES.relative_to("/"))
                (root / "etc/pip.conf").write_text(f"[global]\ncert = {_AUTHORITIES}\n")
            archive = Path(folder, "root.tar")
            subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
            self.engine.docker("import", str(archive), name)


def _stand_in(name: str, content: str) -> str:
    """Return the name of an image, with a tag that follows from its content."""
    return f"epvs-stand-in/{name}:{hashlib.sha256(content.encode()).hexdigest()[:12]}"
