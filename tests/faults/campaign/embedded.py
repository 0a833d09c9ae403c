"""The site of one machine: ``epvs-node up`` with the models, which supervises its own processes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from urllib.parse import unquote

import redis

from core.settings import load_settings
from db.session import create_engine
from node import deep
from node.embedded.running import running_components, with_running_stack
from tests.faults.campaign.parts import Component
from tests.faults.campaign.schedule import Kind
from tests.faults.campaign.site import COMMON, TRITON, Site
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from node.embedded.supervision import ComponentState

_COMPONENTS = ("Triton", "Redis", "receiver", "housekeeper", "worker", "delivery")
_NODE = "node"


class EmbeddedSite(Site):
    """One machine, SQLite, the models that the node ships with."""

    kinds = (*COMMON, *TRITON, Kind.REDIS_KILLED, Kind.NODE_KILLED)

    def begin(self, kind: Kind, number: int) -> Callable[[], bool] | None:
        """Cause a fault, also of the whole node and of its servers."""
        if _NODE in self._busy:
            return None
        match kind:
            case Kind.NODE_KILLED:
                if self._busy - {"disk"}:
                    return None
                return self._exclusively(_NODE, self._node.kill, self._start_again)
            case Kind.REDIS_KILLED:
                return self._kill(self._choose(number, "Redis"))
            case Kind.TRITON_KILLED:
                return self._kill(self._choose(number, "Triton"))
            case Kind.TRITON_CHILD_KILLED:
                return self._kill_child(self._choose(number, "Triton"), number)
        return super().begin(kind, number)

    def redis_client(self) -> redis.Redis:
        """Client of the broker, with its own connection."""
        url = with_running_stack(load_settings(data_dir=self.data_dir)).broker_url
        return redis.Redis(unix_socket_path=unquote(url.partition("://")[2]), socket_timeout=5)

    def stop_parts(self) -> list[str]:
        """Stop the node; return processes that ended badly, or that it left behind."""
        found = deep.list_zombies(load_settings(data_dir=self.data_dir))
        zombies = [f"process {pid} is a zombie" for pid in found]
        left = super().stop_parts()
        shutil.copytree(self.data_dir / "logs", self.folder / "logs")
        return [*zombies, *left]

    def _start(self) -> None:
        port = free_port()
        self.receivers = [("127.0.0.1", port)]
        # The archive reports commitments on associations of its own.
        self._add_archives("127.0.0.1", (str(self.settings["ae_title"]), port))
        url = f"sqlite:///{self.data_dir / 'epvs.sqlite'}"
        self.settings |= {"database_url": url, "port": port, "callers": "*@127.0.0.1"}
        self.engine = create_engine(url)
        self._cleanup.callback(self.engine.dispose)
        self._cleanup.callback(self._end)
        self._add(_NODE, "node", "up")
        (self._node,) = self.parts
        self.parts += [Component(name, self._states) for name in _COMPONENTS]

    def _end(self) -> None:
        for part in self.parts:
            part.stop()

    def _states(self) -> dict[str, ComponentState]:
        states = running_components(load_settings(data_dir=self.data_dir))
        return {state.name: state for state in states}

    def _are_workers_ready(self) -> bool:
        states = self._states()
        return bool(states) and all(each.state == "running" for each in states.values())

    def _start_again(self) -> bool:
        """Start the node, as systemd does; True when all of it runs."""
        if self._node.main() is None:
            self._node.start()
        return self._are_workers_ready()

    def _empty(self, client: redis.Redis) -> None:
        """Delete every key: the broker of `epvs-node up` permits no FLUSHALL."""
        if keys := list(client.scan_iter()):
            client.delete(*keys)

    def _redis_processes(self) -> list[psutil.Process]:
        main = self._choose(0, "Redis").main()
        return [main] if main else []

    def _triton_processes(self) -> list[psutil.Process]:
        part = self._choose(0, "Triton")
        main = part.main()
        return [main, *part.children()] if main else []
