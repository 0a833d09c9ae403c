"""A real PostgreSQL server; `tests.support.databases` makes the databases on it.

It has the roles of ``docker/postgres/roles.sql``: tests work as the runtime role, as the node does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from tests.support.paths import ROOT
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.tls import Identity


CLIENT_NAME: Final = "node.example"
"""Name in the certificate of a client that may be any of the node's roles."""


def find_binaries() -> Path:
    """Folder of the newest ``postgres`` and ``initdb`` on this machine."""
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    if candidates:
        return candidates[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        raise RuntimeError("PostgreSQL is not installed; `make test` installs it")
    return Path(initdb).resolve().parent


class PostgresServer:
    """A PostgreSQL server in a temporary folder, on a free loopback port.

    With an `identity` it takes TCP connections only over TLS, and only from clients whose
    certificate is of the same authority and has `CLIENT_NAME` as its common name. With an
    `address` it also listens there, for clients of the `subnet`. Its folder is made in `parent`, by
    default among the temporary files. Where it is `measured`, it is as
    durable as in production, and counts statements.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        address: str = "",
        subnet: str = "",
        measured: bool = False,
        parent: Path | None = None,
    ) -> None:
        self._binaries = find_binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="epvs-postgres-", dir=parent))
        self._data = self._folder / "data"
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        subprocess.run(
            [
                *(self._binaries / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        self._options = (
            ["-c", "shared_preload_libraries=pg_stat_statements"]
            if measured
            else ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off"]
        )
        self._addresses = "127.0.0.1"
        if address:
            self._addresses += f",{address}"
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {subnet} trust\n")
        if identity is not None:
            self._require_tls(identity)

    def _require_tls(self, identity: Identity) -> None:
        files = {
            "ssl_cert_file": identity.certificate,
            "ssl_key_file": identity.key,
            "ssl_ca_file": identity.authorities,
        }
        self._options += ["-c", "ssl=on"]
        for option, source in files.items():
            target = self._folder / f"{option}.pem"
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if self._user:
                shutil.chown(target, self._user)
            self._options += ["-c", f"{option}={target}"]
        (self._data / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.1/32 cert map=node\n"
        )
        (self._data / "pg_ident.conf").write_text(
            f"node {CLIENT_NAME} epvs_owner\nnode {CLIENT_NAME} epvs_node\n"
        )

    def url(self, database: str, role: str = "epvs_node") -> str:
        """SQLAlchemy URL of a database on this server, by default as the node's runtime role."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def owner_url(self, database: str) -> str:
        """SQLAlchemy URL of a database as the owner of its tables."""
        return self.url(database, "epvs_owner")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binaries / "postgres", "-D", self._data, "-p", str(self.port)),
                    *("-h", self._addresses, "-k", self._folder),
                    *self._options,
                ],
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break
        self.create_roles("postgres")

    def create_roles(self, database: str) -> None:
        """Run ``docker/postgres/roles.sql`` in a database, as superuser."""
        roles, password = ("OWNER", "NODE"), self._folder / "password"
        password.write_text("unused: the server trusts everybody\n")
        subprocess.run(
            [
                *(self._binaries / "psql", "--no-psqlrc", "--quiet", "--file"),
                ROOT / "docker" / "postgres" / "roles.sql",
                f"host={self._folder} port={self.port} user=postgres dbname={database}",
            ],
            check=True,
            env=os.environ | {f"POSTGRES_{role}_PASSWORD_FILE": str(password) for role in roles},
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Stop the server at once, closing every connection; its data remain for another start."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(timeout=60)
            self._process = None

    def crash(self) -> None:
        """End the server without a checkpoint, as a power failure would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # "immediate shutdown"
            self._process.wait(timeout=60)
            self._process = None

    def is_running(self) -> bool:
        """Whether the server has not ended."""
        return self._process is not None and self._process.poll() is None

    def remove(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """Connect as superuser."""
        return psycopg.connect(
            host=str(self._folder),
            port=self.port,
            user="postgres",
            dbname=database,
            autocommit=True,
        )

    def create_database(self, template: str = "template1", options: str = "") -> str:
        """Create a database, with further options of CREATE DATABASE, and return its name."""
        name = f"epvs_{uuid.uuid4().hex[:12]}"
        with self._connect() as connection:
            # Copies files: half the time of the default strategy, which writes a log.
            statement = (
                f"CREATE DATABASE {name} OWNER epvs_owner TEMPLATE {template} STRATEGY file_copy"
                f" {options}"
            )
            connection.execute(statement.encode())
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, closing open connections to it."""
        with self._connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return self.connect("postgres")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the whole run (in a parallel run, one in each process)."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
