"""A listener between the node and a neighbour learns nothing, and no link falls back to clear text.

Certificates of strangers, of other hosts and of nobody are refused on both sides.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import redis
from kombu.exceptions import OperationalError

from core.errors import ConfigurationError, Unavailable
from core.settings import load_settings
from db import migrate
from db.session import create_engine, describe_connection, unit_of_work
from tests.support.builders.certificates import Authority, tls_settings
from tests.support.builders.made_study import receive_study
from tests.support.paths import ROOT
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.proxies import recording_proxy, tls_terminator
from tests.support.servers.receiver import wait_until
from worker.app import DELIVER, QUEUES, create_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.settings import Settings
    from core.tls import Identity
    from tests.support.servers.redis import RedisServer

TIMEOUT_S = 3.0
STUDY_UID, PATIENT_ID = "1.2.840.99999.1234567", "CANARY-7"


# --- PostgreSQL ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def database_server(server_identity: Identity) -> Iterator[PostgresServer]:
    """A server that takes connections over TLS from clients with the node's certificate."""
    server = PostgresServer(server_identity)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def database(database_server: PostgresServer) -> str:
    return database_server.create_database()


def url_of(port: int, database: str, identity: Identity | None, host: str = "localhost") -> str:
    """The URL that docs/operation.md recommends."""
    options = {"sslmode": "verify-full"}
    if identity is not None:
        options["sslrootcert"] = str(identity.authorities)
        options["sslcert"], options["sslkey"] = str(identity.certificate), str(identity.key)
    return f"postgresql://epvs_owner@{host}:{port}/{database}?{urlencode(options)}"


def use(url: str) -> None:
    """Migrate a database and record a study in it."""
    migrate.upgrade(url)
    engine = create_engine(url)
    try:
        with unit_of_work(engine) as session:
            receive_study(session, STUDY_UID)
    finally:
        engine.dispose()


def test_rows_cannot_be_read_on_the_way_to_the_database(
    database_server: PostgresServer,
    database: str,
    node: Identity,
    postgres_server: PostgresServer,
) -> None:
    with recording_proxy(database_server.port) as proxy:
        use(url_of(proxy.port, database, node))
    assert len(proxy.recorded) > 10_000
    for secret in (STUDY_UID, PATIENT_ID, "instances"):
        assert secret.encode() not in proxy.recorded
    with recording_proxy(postgres_server.port) as proxy:  # otherwise the listener reads everything
        name = postgres_server.create_database()
        use(f"postgresql://epvs_owner@127.0.0.1:{proxy.port}/{name}")
    for secret in (STUDY_UID, PATIENT_ID, "instances"):
        assert secret.encode() in proxy.recorded


def test_no_other_server_is_taken_for_the_database(
    database_server: PostgresServer,
    database: str,
    node: Identity,
    postgres_server: PostgresServer,
    tmp_path: Path,
) -> None:
    port = database_server.port
    stranger = replace(node, authorities=Authority(tmp_path).certificate)
    with pytest.raises(Unavailable, match="certificate verify failed"):
        migrate.upgrade(url_of(port, database, stranger))
    with pytest.raises(Unavailable, match="does not match host name"):
        migrate.upgrade(url_of(port, database, node, host="127.0.0.1"))
    with (  # a server without TLS: there is no fallback
        recording_proxy(postgres_server.port) as proxy,
        pytest.raises(Unavailable, match="does not support SSL"),
    ):
        migrate.upgrade(url_of(proxy.port, "postgres", node))
    assert b"epvs" not in proxy.recorded


def test_the_database_takes_nobody_without_its_certificate(
    database_server: PostgresServer, database: str, node: Identity, authority: Authority
) -> None:
    port = database_server.port
    without = url_of(port, database, node).partition("&sslcert")[0]
    with pytest.raises(Unavailable, match="requires a valid client certificate"):
        migrate.upgrade(without)
    other = authority.issue("other.example")
    other.key.chmod(0o600)
    with pytest.raises(Unavailable, match="certificate authentication failed"):
        migrate.upgrade(url_of(port, database, other))


def test_the_doctor_says_whether_the_database_is_reached_over_tls(
    database_server: PostgresServer,
    database: str,
    node: Identity,
    postgres_server: PostgresServer,
) -> None:
    encrypted = create_engine(url_of(database_server.port, database, node))
    local = create_engine(postgres_server.url("postgres"))
    assert describe_connection(encrypted) == "over TLS"
    assert describe_connection(local) == "on this machine"
    encrypted.dispose()
    local.dispose()


# --- Redis ---------------------------------------------------------------------------------------
BROKER_SECRET = "s3cret-of-the-broker"


@pytest.fixture
def broker(redis_server: RedisServer) -> RedisServer:
    """A broker with a password. The embedded Redis cannot do TLS: a proxy does it."""
    with redis_server.client() as client:
        client.config_set("requirepass", BROKER_SECRET)
    return redis_server


def broker_settings(port: int, identity: Identity, host: str = "localhost") -> Settings:
    url = f"rediss://:{BROKER_SECRET}@{host}:{port}/0"
    return load_settings(broker_url=url, **tls_settings(identity))


def publish(settings: Settings) -> None:
    """Publish a notification as the housekeeper does, in one attempt."""
    app = create_app(settings)
    options = {"max_retries": 1, "interval_start": 0, "socket_timeout": TIMEOUT_S}
    with app.connection_for_write(transport_options=options) as connection:
        app.send_task(DELIVER, (4711,), connection=connection)


def n_queued(broker: RedisServer) -> int:
    with redis.Redis(port=broker.port, password=BROKER_SECRET) as client:
        return int(client.llen(QUEUES[DELIVER]))


def test_notifications_and_password_cannot_be_read_on_the_way_to_the_broker(
    broker: RedisServer, server_identity: Identity, node: Identity
) -> None:
    with (
        tls_terminator(broker.port, server_identity) as clear,
        recording_proxy(clear.port) as proxy,
    ):
        publish(broker_settings(proxy.port, node))
    assert n_queued(broker) == 1
    for secret in (BROKER_SECRET, "deliver", "4711"):
        assert secret.encode() in clear.recorded
        assert secret.encode() not in proxy.recorded


def test_no_other_server_is_taken_for_the_broker(
    broker: RedisServer, server_identity: Identity, node: Identity, tmp_path: Path
) -> None:
    stranger = replace(
        Authority(tmp_path).issue("localhost"), authorities=server_identity.authorities
    )
    with (
        tls_terminator(broker.port, stranger, takes_anybody=True) as impostor,
        tls_terminator(broker.port, server_identity, takes_anybody=True) as real,
        recording_proxy(broker.port) as without_tls,
    ):
        for settings in (
            broker_settings(impostor.port, node),
            broker_settings(real.port, node, host="127.0.0.1"),  # not its name
            broker_settings(without_tls.port, node),
        ):
            with pytest.raises(OperationalError):
                publish(settings)
        for proxy in (impostor, real, without_tls):
            assert BROKER_SECRET.encode() not in proxy.recorded
    assert n_queued(broker) == 0


def test_the_broker_takes_nobody_without_its_certificate(
    broker: RedisServer, server_identity: Identity, tmp_path: Path
) -> None:
    stranger = replace(
        Authority(tmp_path).issue("node.example"), authorities=server_identity.authorities
    )
    with tls_terminator(broker.port, server_identity) as proxy:
        with pytest.raises(OperationalError):
            publish(broker_settings(proxy.port, stranger))
        assert proxy.recorded == b""


def test_no_parameter_of_the_url_turns_the_check_off(node: Identity) -> None:
    for parameter in ("ssl_cert_reqs=none", "ssl_check_hostname=false"):
        url = f"rediss://:{BROKER_SECRET}@localhost/0?{parameter}"
        with pytest.raises(ConfigurationError, match="has ssl parameters") as raised:
            load_settings(broker_url=url, **tls_settings(node))
        assert BROKER_SECRET not in str(raised.value)


def test_broker_files_that_cannot_be_used_are_an_outage(
    broker: RedisServer, server_identity: Identity, node: Identity, tmp_path: Path
) -> None:
    incomplete = replace(node, key=tmp_path / "missing.pem")
    with (
        tls_terminator(broker.port, server_identity) as proxy,
        pytest.raises(OperationalError, match="EPVS_TLS_KEY"),
    ):
        publish(broker_settings(proxy.port, incomplete))


def test_a_worker_works_over_tls(
    broker: RedisServer, server_identity: Identity, node: Identity, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with tls_terminator(broker.port, server_identity) as clear:
        settings = broker_settings(clear.port, node)
        given = {
            **tls_settings(node),
            "broker_url": settings.broker_url,
            "data_dir": str(tmp_path),
        }
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EPVS_")}
        environment |= {f"EPVS_{name.upper()}": value for name, value in given.items()}
        environment["SCRIPT_FOLDER"] = str(tmp_path)
        migrate.upgrade(f"sqlite:///{tmp_path}/epvs.sqlite")
        module = "tests.support.servers.scripted_worker"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", module, "worker", "-c", "1"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            ) as worker,
        ):
            try:
                wait_until(lambda: "ready" in log.read_text() or worker.poll() is not None)
                assert worker.poll() is None, log.read_text()
                publish(settings)
                wait_until(lambda: n_queued(broker) == 0)
                assert len(create_app(settings).control.ping(timeout=5, limit=1)) == 1
            finally:
                worker.terminate()
                worker.wait(timeout=60)
    assert BROKER_SECRET not in log.read_text()
