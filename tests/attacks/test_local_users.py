"""Another account of the machine reads nothing of the node and changes nothing.

The attacks run as the account `STRANGER` where the tests run as root. Elsewhere the permissions
decide: an account that is in no group of the owner gets what they give to others.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from urllib.parse import unquote, urlsplit

import numpy as np
import psutil
import pytest
import redis
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from node import cli
from node.embedded.redis import EmbeddedRedis
from node.embedded.triton import EmbeddedTriton
from tests.support.builders.instances import encoded_instance
from tests.support.clients import upper_layer as ul
from tests.support.paths import MODELS, ROOT
from tests.support.servers.node import Node
from tests.support.servers.orthanc import start_orthanc
from tests.support.servers.ports import free_port
from tests.support.servers.receiver import wait_until
from worker.grading.inference import InferenceClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRANGER = 65534
"""Numeric id of user and group ``nobody``."""
STUDY = "1.2.840.99.7"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every account may enter, unlike pytest's; umask as on an ordinary machine."""
    before = os.umask(0o022)
    folder = Path(tempfile.mkdtemp(prefix="epvs-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    os.umask(before)
    shutil.rmtree(folder)


def _as_stranger(attack: Callable[[], object]) -> bool:
    """Whether `attack` succeeds for another account; only root can become one."""

    def run() -> None:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)
        try:
            attack()
        except OSError:
            os._exit(1)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    return child.exitcode == 0


def _can_open(path: Path, right: int) -> bool:
    """Whether another account has `right` (an ``S_I?OTH``) to a file, socket or folder."""
    if os.geteuid() != 0:
        enters = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
        return enters and bool(path.lstat().st_mode & right)
    if stat.S_ISSOCK(path.lstat().st_mode):
        return _as_stranger(lambda: socket.socket(socket.AF_UNIX).connect(str(path)))
    if path.is_dir():
        return _as_stranger(lambda: next(path.iterdir(), None))
    return _as_stranger(lambda: os.close(os.open(path, os.O_RDONLY)))


def _open_to_strangers(folder: Path) -> list[str]:
    found = [folder, *folder.rglob("*")]
    rights = {path: stat.S_IWOTH if path.is_socket() else stat.S_IROTH for path in found}
    return [
        str(path.relative_to(folder))
        for path, right in rights.items()
        if not path.is_symlink() and _can_open(path, right)
    ]


def _tcp_ports(pid: int) -> set[int]:
    """TCP ports that a process and its descendants listen on."""
    process = psutil.Process(pid)
    ports = set()
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            for connection in member.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    ports.add(connection.laddr.port)
    return ports


def _redis_client(url: str) -> redis.Redis:
    parts = urlsplit(url)
    if parts.hostname:
        return redis.Redis(parts.hostname, parts.port or 6379)
    return redis.Redis(unix_socket_path=unquote(parts.path))


@pytest.fixture
def broker(public: Path) -> Iterator[str]:
    """URL of the Redis of the embedded stack."""
    redis = EmbeddedRedis(public / "redis", public / "redis.log")
    process = redis.launch()
    process.wait_until(redis.is_ready, timeout_s=20)
    yield redis.url
    process.stop()


def test_what_the_embedded_stack_stores_is_closed_to_other_accounts(public: Path) -> None:
    data, port = public / "data", free_port()
    settings = {
        "EPVS_DATA_DIR": str(data),
        "EPVS_PORT": str(port),
        "EPVS_TRITON_URL": "127.0.0.1:1",  # the worker waits for it
        "EPVS_SPOOL_RESERVE_MB": "0",
    }
    environment = {name: text for name, text in os.environ.items() if not name.startswith("EPVS_")}
    stack = subprocess.Popen(
        [sys.executable, "-m", "node", "up"],
        cwd=ROOT,
        env={**environment, **settings},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: port in _tcp_ports(stack.pid))
        uid = f"{STUDY}.1.1"
        content = encoded_instance(uid, STUDY, pixels=np.zeros((8, 8), np.uint16))
        with ul.associated(port) as caller:
            caller.send(ul.store(1, content, uid))
            assert caller.status() == 0
        wait_until((data / "logs" / "worker.log").exists)
        assert list(data.glob("spool/*/*.dcm"))
        assert (data / "epvs.sqlite").exists()
        assert _open_to_strangers(data) == []
        assert _tcp_ports(stack.pid) == {port}
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait(60)


def test_details_of_an_unexpected_error_are_written_where_nobody_can_read_or_redirect_them(
    public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("CANARY^ANNA")

    (public / "epvs-node-crash.txt").symlink_to(public / "planted")
    monkeypatch.chdir(public)
    monkeypatch.setattr(tempfile, "tempdir", str(public))
    monkeypatch.delenv("EPVS_DATA_DIR", raising=False)
    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["epvs-node"])
    with pytest.raises(SystemExit):
        cli.main()
    message = capsys.readouterr().err
    assert "CANARY" not in message
    (details,) = [path for path in public.iterdir() if not path.is_symlink()]
    assert details.name != "planted"
    assert str(details) in message
    assert "CANARY" in details.read_text()
    assert not _can_open(details, stat.S_IROTH)


def test_details_of_an_unexpected_error_outlive_a_container(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data folder is a volume; its temporary files end with it."""
    monkeypatch.setenv("EPVS_DATA_DIR", str(public))
    monkeypatch.setattr(cli, "app", lambda: 1 // 0)
    monkeypatch.setattr(sys, "argv", ["epvs-node"])
    with pytest.raises(SystemExit):
        cli.main()
    (details,) = public.iterdir()
    assert "ZeroDivisionError" in details.read_text()
    assert not _can_open(details, stat.S_IROTH)


def test_reports_are_closed_to_other_accounts(public: Path, broker: str, database_url: str) -> None:
    """Also shows that Celery and the notifier work with the embedded broker."""
    folder = public / "data"
    folder.mkdir()
    node = Node(folder, database_url, Mock(url=broker))
    try:
        node.receive(STUDY)
        node.start_housekeeper()
        node.start_worker()
        node.wait_for_state(STUDY, "delivered")
    finally:
        node.stop()
    assert list((folder / "reports").glob("*.dcm"))
    assert _open_to_strangers(folder / "reports") == []


def test_no_other_account_reaches_the_embedded_broker(public: Path, broker: str) -> None:
    address: Any = _redis_client(broker).connection_pool.connection_kwargs
    if "path" in address:
        assert not _can_open(Path(address["path"]), stat.S_IWOTH)
    else:
        assert not _as_stranger(
            lambda: socket.create_connection((address["host"], address["port"]))
        )
    assert _open_to_strangers(public / "redis") == []


@pytest.mark.parametrize(
    "command",
    [
        ["CONFIG", "SET", "dir", "/tmp"],
        ["MODULE", "LOAD", "/tmp/x.so"],
        ["REPLICAOF", "192.0.2.1", "6379"],
        ["MIGRATE", "192.0.2.1", "6379", "k", "0", "1"],
        ["DEBUG", "SLEEP", "0"],
        ["SAVE"],
        ["ACL", "SETUSER", "default", "+@all"],
        ["MONITOR"],
        ["SHUTDOWN", "NOSAVE"],
    ],
    ids=lambda command: command[0],
)
def test_the_embedded_broker_obeys_no_command_of_administration(
    broker: str, command: list[str]
) -> None:
    with _redis_client(broker) as client:
        with pytest.raises(redis.ResponseError, match="no permissions"):
            client.execute_command(*command)
        assert client.ping()


def test_the_pacs_of_the_demonstration_shows_a_study_to_nobody_else(public: Path) -> None:
    pacs = start_orthanc(public / "orthanc")
    try:
        assert pacs.rest("/studies") == []
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{pacs.http_port}/studies", timeout=30)
        refused.value.close()
        assert refused.value.code == 401
        assert not _can_open(public / "orthanc" / "orthanc.json", stat.S_IROTH)
    finally:
        pacs.stop()


def test_no_other_account_reaches_the_embedded_triton(public: Path) -> None:
    with EmbeddedTriton(public / "triton", public / "triton.log", MODELS, threads=1) as server:
        assert server.pid is not None
        assert _tcp_ports(server.pid) == set()
        assert _open_to_strangers(public / "triton") == []
        client = InferenceClient.connect(server.url, MODELS, timeout_s=60)
        client.check_golden()
        regions = list(
            Path("/dev/shm").glob((public / "triton" / "shared-memory").read_text() + "*")
        )
        assert regions
        assert [path for path in regions if _can_open(path, stat.S_IROTH)] == []
        with InferenceServerClient(server.url) as administrator:
            for attack in (
                lambda: administrator.register_system_shared_memory("x", "/x", 8),
                lambda: administrator.get_system_shared_memory_status(),
                lambda: administrator.load_model("rating"),
                lambda: administrator.get_model_repository_index(),
                lambda: administrator.update_log_settings({"log_file": "/tmp/x"}),
                lambda: administrator.update_trace_settings(settings={"trace_file": "/tmp/x"}),
            ):
                with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                    attack()
