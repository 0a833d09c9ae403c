"""Hosts: network namespaces with process ids of their own, beside this machine as the central host.

Each host reaches the central host over a link that can be cut: packets are then swallowed, as when
a cable is pulled, and no end is told. All see the same files. Their processes have the same ids,
and all hosts have one name, which is what nothing may rely on.
"""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING, Final, Self

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_RANDOM: Final = random.SystemRandom()
_CENTRAL_MAC: Final = "02:00:00:00:00:01"


class Host:
    """One host; made by `Network.add_host`."""

    def __init__(self, namespace: str, port: str, bridge: str, address: str) -> None:
        self.address = address
        self._namespace = namespace
        self._port = port
        self._bridge = bridge
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a process; `stop` ends it and its children.

        Parameters
        ----------
        command : sequence of str
        log : Path
            Its output is appended.
        environment : mapping
            Added to the environment of this process, without its ``EPVS_`` variables.
        """
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EPVS_")}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # not to outlive tests that are killed
                    *("ip", "netns", "exec", self._namespace),
                    # With the first process of a PID namespace all others end.
                    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *command,
                ],
                cwd=ROOT,
                env=inherited | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)
        return process

    @property
    def pids(self) -> list[int]:
        """Ids, on this machine, of the processes that were started."""
        return [process.pid for process in self._processes]

    def cut(self) -> None:
        """Cut the link: from now on packets are swallowed."""
        _ip("link", "set", self._port, "nomaster")

    def reconnect(self) -> None:
        """Mend the link."""
        _ip("link", "set", self._port, "master", self._bridge)

    def stop(self) -> None:
        """Kill every process of the host, as a power failure would."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()


class Network:
    """A bridge of this machine to which hosts are connected; also a context manager."""

    def __init__(self) -> None:
        number = _RANDOM.randrange(1, 2**16)
        self._name = f"epvs{number:04x}"
        self._prefix = f"10.{number >> 8}.{number & 0xFF}"
        self.address = f"{self._prefix}.1"
        """The central host's address."""
        self.subnet = f"{self._prefix}.0/24"
        self._hosts: list[Host] = []
        self._namespaces: list[str] = []

    def __enter__(self) -> Self:
        # With an address of its own: otherwise it takes that of a port, another one with each port.
        _ip("link", "add", self._name, "address", _CENTRAL_MAC, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        return self

    def stop_hosts(self) -> None:
        """Kill the processes of all hosts."""
        for host in self._hosts:
            host.stop()

    def __exit__(self, *_error: object) -> None:
        self.stop_hosts()
        for namespace in self._namespaces:
            # First the link, of the same name: connections that were cut off keep the namespace,
            # and with it its links, for minutes.
            for kind in ("link", "netns"):
                subprocess.run(["ip", kind, "delete", namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self._name], capture_output=True, check=False)

    def add_host(self) -> Host:
        """Make another host."""
        number = len(self._hosts) + 2
        namespace, port = f"{self._name}-{number}", f"{self._name}-{number}"
        address, mac = f"{self._prefix}.{number}", f"02:00:00:00:00:{number:02x}"
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        inside = ("-n", namespace)
        peer = ("peer", "name", "eth0", "address", mac, "netns", namespace)
        _ip("link", "add", port, "type", "veth", *peer)
        _ip("link", "set", port, "master", self._name, "up")
        _ip(*inside, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip(*inside, "link", "set", device, "up")
        # Known for good: otherwise the kernel finds out, and says, that a neighbour is gone.
        _ip("neighbour", "replace", address, "lladdr", mac, "dev", self._name)
        _ip(*inside, "neighbour", "replace", self.address, "lladdr", _CENTRAL_MAC, "dev", "eth0")
        host = Host(namespace, port, self._name, address)
        self._hosts.append(host)
        return host


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.fail("ip is not installed; `make test` installs iproute2")
    if done.returncode:
        pytest.fail(
            "Tests of several hosts need network namespaces, which only root can make, and which "
            f"some containers refuse. `ip {' '.join(arguments)}`: {done.stderr.strip()}"
        )
