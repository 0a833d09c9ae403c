"""PACS of the demonstration: Orthanc if it is installed, else a minimal Storage SCP."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import sys
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from node.embedded.process import ManagedProcess, accepts_connections, free_port

if TYPE_CHECKING:
    from pathlib import Path

AE_TITLE = "DEMOPACS"
_USER = "epvs"


class DemoPacs(Protocol):
    """Interface of a PACS in the demonstration."""

    description: str
    dicom_port: int

    def instances(self, study_uid: str) -> list[bytes]:
        """Return every stored instance of the study as a Part 10 file."""

    def stop(self) -> None:
        """Stop the PACS."""


@dataclass
class OrthancPacs:
    """Orthanc on loopback, started with an empty store and read through its REST API.

    The API needs a password, because any local account reaches the port. By DICOM, others can store
    and echo, but neither find nor retrieve: that is Orthanc's default.
    """

    process: ManagedProcess
    dicom_port: int
    http_port: int
    password: str = field(repr=False)
    description: str = "Orthanc"

    @classmethod
    def start(
        cls, program: str, work_dir: Path, configuration: dict[str, Any] | None = None
    ) -> OrthancPacs:
        """Start Orthanc and wait until it accepts DICOM and HTTP connections.

        Parameters
        ----------
        program : str
            Path of the ``Orthanc`` executable.
        work_dir : Path
            Folder of its store, which is emptied, its configuration and its log.
        configuration : dict, optional
            Options that extend or replace the default configuration.
        """
        shutil.rmtree(work_dir / "store", ignore_errors=True)
        work_dir.mkdir(parents=True, exist_ok=True)
        dicom_port, http_port = free_port(), free_port()
        password = secrets.token_urlsafe()
        settings = {
            "Name": "epvs-node demonstration PACS",
            "StorageDirectory": str((work_dir / "store").absolute()),
            "DicomAet": AE_TITLE,
            "DicomPort": dicom_port,
            "HttpPort": http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {_USER: password},
            "DicomCheckCalledAet": True,
            "Plugins": [],
            **(configuration or {}),
        }
        path = work_dir / "orthanc.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings, indent=2))
        process = ManagedProcess("Orthanc", [program, str(path)], work_dir / "orthanc.log")
        pacs = cls(process, dicom_port, http_port, password)
        process.wait_until(
            lambda: accepts_connections(http_port) and accepts_connections(dicom_port), 30
        )
        return pacs

    def rest(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Call the REST API with a JSON body; return its JSON response (None if empty)."""
        data = None if body is None else json.dumps(body).encode()
        text = self._request(path, data, method)
        return json.loads(text) if text else None

    def file(self, instance_id: str) -> bytes:
        """Return one stored instance as a Part 10 file."""
        return self._request(f"/instances/{instance_id}/file")

    def instances(self, study_uid: str) -> list[bytes]:
        """Return every stored instance of the study as a Part 10 file."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
        return [self.file(instance) for instance in self.rest("/tools/find", query)]

    def _request(self, path: str, data: bytes | None = None, method: str | None = None) -> bytes:
        credentials = base64.b64encode(f"{_USER}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}",
            data=data,
            method=method,
            headers={"Authorization": f"Basic {credentials}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return bytes(response.read())

    def stop(self) -> None:
        """Stop Orthanc."""
        self.process.stop()


@dataclass
class FolderPacs:
    """Minimal Storage SCP that writes received instances to a folder."""

    process: ManagedProcess
    dicom_port: int
    folder: Path
    description: str = "a minimal Storage SCP that writes files (Orthanc is not installed)"

    @classmethod
    def start(cls, work_dir: Path) -> FolderPacs:
        """Start the SCP with an empty folder and wait until it accepts connections."""
        folder = work_dir / "store"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        port = free_port()
        process = ManagedProcess(
            "Storage SCP",
            [
                sys.executable,
                "-m",
                "node.demonstration.storage_scp",
                AE_TITLE,
                str(port),
                str(folder),
            ],
            work_dir / "storage-scp.log",
        )
        process.wait_until(lambda: accepts_connections(port), 30)
        return cls(process, port, folder)

    def instances(self, study_uid: str) -> list[bytes]:
        """Return every stored instance of the study as a Part 10 file."""
        return [path.read_bytes() for path in sorted((self.folder / study_uid).glob("*.dcm"))]

    def stop(self) -> None:
        """Stop the SCP."""
        self.process.stop()


def start_demo_pacs(work_dir: Path) -> OrthancPacs | FolderPacs:
    """Start Orthanc if it is installed, else the minimal Storage SCP."""
    # Debian installs it in /usr/sbin, which is not in the PATH of an ordinary user.
    program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is not None:
        return OrthancPacs.start(program, work_dir / "orthanc")
    return FolderPacs.start(work_dir / "storage-scp")
