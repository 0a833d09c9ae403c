"""A modality outside: DCMTK on a host of its own, that is a network namespace."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.servers.dcmtk import dcmtk_program

if TYPE_CHECKING:
    from collections.abc import Iterator

AE_TITLE: Final = "MODALITY"
_NAMESPACE: Final = "epvs-modality"
_LINK: Final = "epvs-mod0"
ADDRESS: Final = "198.51.100.2"
"""TEST-NET-2, RFC 5737: no network uses it."""
_HOST: Final = "198.51.100.1"


@dataclass(frozen=True)
class Sender:
    """Sends studies to the published port of the receiver."""

    port: int

    def send(self, folder: Path, *, ae_title: str = AE_TITLE) -> subprocess.CompletedProcess[str]:
        """Send every file of a folder by ``storescu``."""
        return self._run(
            dcmtk_program("storescu"),
            *("--aetitle", ae_title, "--call", "EPVSNODE", "--propose-lossless"),
            *(_HOST, str(self.port), "--scan-directories", "--recurse", str(folder)),
        )

    def echo(self, *, ae_title: str = AE_TITLE) -> bool:
        """Whether the receiver admits this AE title and responds to C-ECHO."""
        done = self._run(
            dcmtk_program("echoscu"),
            *("--aetitle", ae_title, "--call", "EPVSNODE", _HOST, str(self.port)),
        )
        return done.returncode == 0

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", _NAMESPACE, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@contextmanager
def outside_host(port: int) -> Iterator[Sender]:
    """Yield a sender in a network namespace, which reaches this host by one link."""
    commands = (
        f"ip netns add {_NAMESPACE}",
        f"ip link add {_LINK} type veth peer name eth0 netns {_NAMESPACE}",
        f"ip address add {_HOST}/30 dev {_LINK}",
        f"ip link set {_LINK} up",
        f"ip -netns {_NAMESPACE} address add {ADDRESS}/30 dev eth0",
        f"ip -netns {_NAMESPACE} link set eth0 up",
        f"ip -netns {_NAMESPACE} route add default via {_HOST}",
    )
    if Path("/run/netns", _NAMESPACE).exists():  # a run that was killed has left it
        subprocess.run(["ip", "netns", "delete", _NAMESPACE], check=True)
    with ExitStack() as ending:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True, text=True)
            if command.startswith("ip netns add"):  # with it goes the link
                ending.callback(subprocess.run, ["ip", "netns", "delete", _NAMESPACE], check=True)
        yield Sender(port)
