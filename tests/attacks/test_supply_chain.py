"""Attack: a vulnerable or exchanged part of the product that nobody notices.

The bill of materials names every package and every set of weights; the audit of the locks never
takes silence for good news.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from supply_chain import advisories, bill_of_materials
from supply_chain.locks import LOCKS, read_lock
from tests.support.paths import ROOT
from tests.support.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Vulnerable = set[tuple[str, str]]

CONTROL = ("jinja2", "2.4.1")
LOCK = """\
amqp==5.4.2 \\
    --hash=sha256:{digest}
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{digest}
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{digest} \\
    --hash=sha256:{digest}
"""


@contextmanager
def source_of(vulnerable: Vulnerable, *, status: int = 200, body: str = "") -> Iterator[str]:
    """A source of advisories that speaks the OSV interface; `body` replaces every answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, version = query["package"]["name"], query["version"]
            package = {"name": name, "ecosystem": "PyPI"}
            advisory = {
                "id": f"GHSA-{name}",
                "modified": "2026-01-01T00:00:00Z",
                "affected": [{"package": package, "versions": [version]}],
            }
            known = {"vulns": [advisory]} if (name, version) in vulnerable else {}
            answer = (body or json.dumps(known)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """A lock file in which one package has two versions."""
    path = tmp_path / "small.lock"
    path.write_text(LOCK.format(digest="ab" * 32))
    return str(path)


def test_a_vulnerable_package_is_named_whichever_python_it_is_for(
    lock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with source_of({CONTROL}) as url:
        assert advisories.main([lock, "--source", url]) == 0
        assert "3 packages, 0 with advisories" in capsys.readouterr().out
    for version in ("2.4.6", "2.5.5"):
        with source_of({CONTROL, ("numpy", version)}) as url:
            assert advisories.main([lock, "--source", url]) == 1
            assert f"numpy {version}: GHSA-numpy\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source",
    [
        {"vulnerable": set()},  # answers, but knows nothing
        {"vulnerable": set(), "body": "{}"},
        {"vulnerable": set(), "body": "<html>Please log in</html>"},
        {"vulnerable": {CONTROL}, "status": 503},
    ],
)
def test_a_source_that_knows_nothing_is_a_failure(
    lock: str, source: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with source_of(**source) as url:
        assert advisories.main([lock, "--source", url]) == 2
    printed = capsys.readouterr()
    assert "Nothing is known about vulnerabilities" in printed.err
    assert printed.out == ""


def test_a_source_that_cannot_be_reached_is_a_failure(
    lock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advisories.main([lock, "--source", f"http://127.0.0.1:{free_port()}/v1/query"]) == 2
    message = capsys.readouterr().err
    assert "gave no answer" in message
    assert "name a mirror" in message
    assert "Traceback" not in message


def test_the_audit_takes_every_lock_file() -> None:
    assert {ROOT / lock for lock in LOCKS} == {
        path for path in ROOT.rglob("*.lock") if not {".venv", "build"} & set(path.parts)
    }


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    """The bill of materials of this checkout, valid against the schema."""
    made: dict[str, Any] = json.loads(bill_of_materials.make_bill())
    return made


def _hashes(component: dict[str, Any]) -> set[str]:
    assert {each["alg"] for each in component["hashes"]} == {"SHA-256"}
    return {each["content"] for each in component["hashes"]}


@pytest.mark.parametrize("lock_file", LOCKS)
def test_every_line_of_a_lock_is_in_the_bill(bill: dict[str, Any], lock_file: str) -> None:
    """Counted without the code that makes the bill."""
    text = (ROOT / lock_file).read_text()
    by_url = {c["purl"]: c for c in bill["components"] if c["type"] == "library"}
    blocks = [block for block in text.replace("\n    ", " ").splitlines() if block]
    assert len(blocks) == text.count("==") - text.count(" == ") > 0
    for block in blocks:
        requirement, *hashes = block.replace("\\", "").split("--hash=sha256:")
        name, version = requirement.split(";")[0].strip().split("==")
        component = by_url[f"pkg:pypi/{name}@{version}"]
        assert hashes
        assert {digest.strip() for digest in hashes} <= _hashes(component)
        assert lock_file in {p["value"].split()[0] for p in component["properties"]}


def test_the_bill_has_no_package_that_no_lock_has(bill: dict[str, Any]) -> None:
    locked = {(pin.name, pin.version) for lock in LOCKS for pin in read_lock(ROOT / lock)}
    listed = [(c["name"], c["version"]) for c in bill["components"] if c["type"] == "library"]
    assert len(listed) == len(locked)
    assert set(listed) == locked


def test_the_weights_in_the_bill_are_those_of_the_files(bill: dict[str, Any]) -> None:
    models = [c for c in bill["components"] if c["type"] == "machine-learning-model"]
    found = {path.parent.parent.name for path in ROOT.glob("triton_models/*/*/model.onnx")}
    assert {model["name"] for model in models} == found == {"rating", "severity"}
    for model in models:
        weights = ROOT / "triton_models" / model["name"] / model["version"] / "model.onnx"
        assert _hashes(model) == {hashlib.sha256(weights.read_bytes()).hexdigest()}
        said = {each["name"]: each["value"] for each in model["properties"]}
        fp16 = (ROOT / said["epvs-node:fp16"]).read_bytes()
        assert said["epvs-node:fp16-sha256"] == hashlib.sha256(fp16).hexdigest()
        (card,) = model["externalReferences"]
        assert card["type"] == "model-card"
        assert _hashes(card) == {hashlib.sha256((ROOT / card["url"]).read_bytes()).hexdigest()}
        assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]


def test_the_bill_is_the_same_for_the_same_parts(bill: dict[str, Any]) -> None:
    again = json.loads(bill_of_materials.make_bill())
    for each in (bill, again):
        each["metadata"].pop("timestamp", None)
    assert again == bill


@pytest.mark.parametrize("spoil", ["weights", "fp16", "lock"])
def test_exchanged_weights_and_unlocked_packages_stop_the_bill(tmp_path: Path, spoil: str) -> None:
    for part in ("triton_models", "requirements", "node/embedded"):
        shutil.copytree(ROOT / part, tmp_path / part)
    network = {"weights": "model.onnx", "fp16": "model.fp16.onnx"}.get(spoil)
    if network:
        with (tmp_path / "triton_models" / "rating" / "2" / network).open("ab") as file:
            file.write(b"\0")
    else:
        with (tmp_path / "requirements" / "node.lock").open("a") as file:
            file.write("evil>=1\n")
    message = f"{network} has SHA-256" if network else "evil has no exact version"
    with pytest.raises(ValueError, match=message):
        bill_of_materials.make_bill(tmp_path)
