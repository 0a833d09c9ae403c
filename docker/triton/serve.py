"""Start Triton on the CPU in its container, and end when any of its processes has ended.

``serve.py MODELS`` assembles the repository from the mounted models and serves it over gRPC on port
8001. Triton neither restarts a model process that died nor reports it: then the container ends, and
its engine starts it again.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

_PORT: Final = 8001
_REPOSITORY: Final = Path(tempfile.gettempdir(), "repository")
_READY_S: Final = 120.0
_STOP_S: Final = 10.0
_RESTRICTED: Final = "shared-memory,model-repository,trace,logging"
"""gRPC protocols that no client of the node uses: they open files and change the server."""


def main() -> int:
    """Serve until SIGTERM (status 0), or until a process of Triton has ended (status 1)."""
    models = Path(sys.argv[1])
    program = str(models / "build_engines.py")
    build = [sys.executable, program, "python", str(models), str(_REPOSITORY)]
    subprocess.run(build, check=True)
    command = [
        "tritonserver",
        f"--model-repository={_REPOSITORY / 'served'}",
        "--backend-directory=/opt/triton/server/backends",
        "--disable-auto-complete-config",  # an incomplete config.pbtxt is an error
        f"--grpc-port={_PORT}",
        f"--grpc-restricted-protocol={_RESTRICTED}:key={uuid.uuid4()}",  # no client has it
        "--allow-http=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=5",
    ]
    server = subprocess.Popen(command, start_new_session=True)  # its models join its process group
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        return _supervise(server)
    finally:
        server.terminate()
        try:
            server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()


def _supervise(server: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + _READY_S
    while not _accepts_connections():  # it loads every model before it opens the port
        if server.poll() is not None or time.monotonic() > deadline:
            print("Triton is not ready; its messages above say why.", file=sys.stderr)
            return 1
        time.sleep(0.2)
    started = _members(server.pid)
    while server.poll() is None and started <= _members(server.pid):
        time.sleep(1.0)
    print("A process of Triton has ended.", file=sys.stderr)
    return 1


def _accepts_connections() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", _PORT), timeout=1):
            return True
    except OSError:
        return False


def _members(group: int) -> frozenset[str]:
    """Return the ids of the processes of a process group, without zombies."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process ended in the meantime
            # proc(5): pid (name) state ppid pgrp …; the name may hold spaces and parentheses.
            state, _, process_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(process_group) == group and state != "Z":
                found.add(path.parent.name)
    return frozenset(found)


if __name__ == "__main__":
    sys.exit(main())
