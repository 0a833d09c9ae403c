"""docker-compose.yml in real containers: confinement, grading, faults, scaling, restore.

The tests share one running stack and leave it healthy. ``make container-test`` runs them.
"""

from __future__ import annotations

import io
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import pydicom
import pytest

from tests.containers.stack import NODE_SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.containers.conftest import Record, Study
    from tests.containers.sender import Sender
    from tests.containers.stack import Stack

AS_ROOT: Final = {"orthanc"}
SERVICES: Final = (*NODE_SERVICES, "postgres", "redis", "triton-cpu", "orthanc")


def test_every_service_is_confined(stack: Stack) -> None:
    for service in SERVICES:
        status = stack.execute(service, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            assert int(fields[kind], 16) == 0, (service, kind)
        assert fields["NoNewPrivs"] == "1", service
        uids = {int(uid) for uid in fields["Uid"].split()}
        assert (uids == {0}) == (service in AS_ROOT), service
        written = stack.execute(service, "sh", "-c", "echo >/written && echo written", check=False)
        assert (written == "") == (service not in AS_ROOT), service


def test_limits_are_those_of_the_file(stack: Stack) -> None:
    for service in SERVICES:
        host = stack.engine.inspect(stack.container(service))["HostConfig"]
        assert host["Memory"] >= 512 * 2**20, service
        assert 0 < host["PidsLimit"] <= 1024, service
        assert 0 < host["NanoCpus"] <= 2 * 10**9, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert not host["Privileged"], service


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_memory_and_processes_are_really_limited(stack: Stack) -> None:
    allocate = "python -c 'len(bytearray(700 << 20))'; echo ended with $?"
    assert stack.execute("housekeeper", "sh", "-c", allocate).endswith("137\n")
    start = "for n in $(seq 200); do sleep 3 & done; wait"
    assert "Cannot fork" in stack.errors("housekeeper", "sh", "-c", start)
    fork = ("housekeeper", "sh", "-c", "true & wait && echo forked")
    wait_until(lambda: stack.execute(*fork, check=False) == "forked\n")
    assert stack.is_healthy(stack.container("housekeeper"))


def reaches(stack: Stack, service: str, host: str, port: int) -> bool:
    """Whether a process of the service can connect to the address."""
    program = f"import socket; socket.create_connection(({host!r}, {port}), 3)"
    done = stack.execute(
        service, "sh", "-c", f'python -c "{program}" 2>/dev/null && echo yes', check=False
    )
    return done.strip() == "yes"


def test_each_service_reaches_only_whom_it_talks_to(stack: Stack) -> None:
    peers = {"postgres": 5432, "redis": 6379, "triton": 8001, "orthanc": 4242}
    allowed = {
        "receiver": {"postgres", "orthanc"},
        "worker": set(peers),
        "delivery": {"postgres", "redis", "orthanc"},
        "housekeeper": {"postgres", "redis", "orthanc"},
        "triton-cpu": {"triton"},
    }
    for service, expected in allowed.items():
        reached = {peer for peer, port in peers.items() if reaches(stack, service, peer, port)}
        assert reached == expected, service
    for name in ("database", "broker", "inference"):
        (network,) = stack.engine.docker(
            *("network", "ls", "--quiet", "--filter", f"name=epvs-container-test_{name}")
        ).split()
        assert stack.engine.inspect(network)["Internal"], name


def test_secrets_are_readable_and_in_no_description(stack: Stack) -> None:
    secrets = [path.read_text().strip() for path in (stack.folder / "secrets").iterdir()]
    for service in SERVICES:
        described = json.dumps(stack.engine.inspect(stack.container(service)))
        assert not any(secret in described for secret in secrets), service


def test_only_admitted_callers_are_served_by_their_own_address(
    stack: Stack, sender: Sender
) -> None:
    assert sender.echo()
    assert not sender.echo(ae_title="OTHER")
    refusals = stack.query("SELECT * FROM refusals ORDER BY 1 DESC")
    assert refusals


def test_a_study_sent_from_outside_comes_back_as_a_report(
    stack: Stack, sender: Sender, study: Study, record: Record
) -> None:
    sent = sender.send(study.folder)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    stored = time.monotonic()
    row = stack.wait_for(study.uid)
    record.seconds["last C-STORE to report in the PACS, first study"] = time.monotonic() - stored
    assert row["status"] == "delivered", row
    (report,) = stack.reports(study.uid)
    document = pydicom.dcmread(io.BytesIO(report))
    assert document.StudyInstanceUID == study.uid
    assert document.Modality == "SR"
    assert str(row["rating"]) in str(document)


def test_the_demo_pacs_forwards_what_it_receives(stack: Stack, study: Study) -> None:
    for path in sorted(study.folder.iterdir()):
        stack.pacs("/instances", path.read_bytes())
    assert stack.wait_for(study.uid)["status"] == "delivered"
    assert len(stack.reports(study.uid)) == 1


@pytest.mark.parametrize("service", SERVICES)
def test_the_stack_recovers_when_a_container_is_killed_in_mid_study(
    service: str, stack: Stack, sender: Sender, study: Study, record: Record
) -> None:
    sent = sender.send(study.folder)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    stack.wait_for(study.uid, lambda row: row["status"] != "receiving")
    before = stack.engine.inspect(stack.container(service))["State"]["StartedAt"]
    stack.kill(stack.container(service))
    began = time.monotonic()
    row = stack.wait_for(study.uid)
    record.seconds[f"{service} killed in mid-study: until the report is delivered"] = (
        time.monotonic() - began
    )
    assert row["status"] == "delivered", row
    stack.wait_healthy(*SERVICES)
    assert stack.engine.inspect(stack.container(service))["State"]["StartedAt"] != before
    assert len(stack.reports(study.uid)) == 1


def test_triton_is_started_again_when_only_a_model_process_has_died(
    stack: Stack, sender: Sender, study: Study
) -> None:
    """Triton itself neither restarts it nor reports it."""
    container = stack.container("triton-cpu")
    before = stack.engine.inspect(container)["State"]["StartedAt"]
    processes = stack.engine.docker("top", container, "-eo", "pid,args").splitlines()
    (pid, *_) = [line.split()[0] for line in processes if "python_backend_stub" in line]
    os.kill(int(pid), signal.SIGKILL)
    assert sender.send(study.folder).returncode == 0
    assert stack.wait_for(study.uid)["status"] == "delivered"
    assert stack.engine.inspect(container)["State"]["StartedAt"] != before
