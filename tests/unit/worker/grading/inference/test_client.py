"""The inference client without a model server: timeouts and model descriptions."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from core.errors import Failed, Unavailable
from worker.grading.inference import InferenceClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """The descriptions of both models, without any network."""
    shapes: dict[str, tuple[dict[str, list[int]], dict[str, list[int]]]] = {
        "rating": ({"crops": [-1, 1, 112, 86]}, {"probabilities": [-1, 5]}),
        "severity": (
            {"volume": [-1, 1, 16, 512, 512]},
            {"probability": [-1, 1], "saliency": [-1, 1, 16, 16]},
        ),
    }
    for name, (inputs, outputs) in shapes.items():
        (tmp_path / name / "1").mkdir(parents=True)
        description = {
            "name": name,
            "version": "1",
            "weights_sha256": "0" * 64,
            "golden_sha256": "0" * 64,
            "display_name": name,
            "training_data": "synthetic",
            "intended_use": f"Made-up {name} model.",
            "preprocessing": {"version": 1, "enhancement": "block-group"},
            "inputs": inputs,
            "outputs": outputs,
        }
        (tmp_path / name / "1" / "model.json").write_text(json.dumps(description))
    return tmp_path


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never responds."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):  # the listening socket was closed
                while True:
                    held.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for each in held:
        each.close()


def test_a_silent_server_is_unavailable_within_the_timeout(
    models_dir: Path, silent_port: int
) -> None:
    client = InferenceClient.connect(f"127.0.0.1:{silent_port}", models_dir, timeout_s=0.5)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED") as caught:
        client.wait_ready(1.0)
    assert caught.value.service == "triton"
    # Not a test of speed: without a deadline the call would never return.
    assert time.monotonic() - began < 60


def test_a_refused_connection_is_unavailable(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable):
        InferenceClient.connect(f"127.0.0.1:{port}", models_dir, timeout_s=5).wait_ready(0.5)


def test_an_unknown_enhancement_is_refused(models_dir: Path) -> None:
    path = models_dir / "rating" / "1" / "model.json"
    path.write_text(path.read_text().replace("block-group", "wavelet"))
    with pytest.raises(Failed, match="'wavelet' is unknown") as caught:
        InferenceClient.connect("127.0.0.1:1", models_dir, timeout_s=1)
    assert caught.value.code == "model-description-invalid"


def test_a_missing_description_names_the_file(models_dir: Path) -> None:
    (models_dir / "severity" / "1" / "model.json").unlink()
    with pytest.raises(Failed, match=r"severity/1/model\.json") as caught:
        InferenceClient.connect("127.0.0.1:1", models_dir, timeout_s=1)
    assert caught.value.code == "model-description-invalid"


def test_a_folder_laid_out_as_in_version_0_1_says_what_to_move(models_dir: Path) -> None:
    rating = models_dir / "rating"
    (rating / "1" / "model.json").rename(rating / "model.json")
    with pytest.raises(Failed, match=r"Move model\.json .* into the folder of the version"):
        InferenceClient.connect("127.0.0.1:1", models_dir, timeout_s=1)


def test_a_description_of_another_version_is_refused(models_dir: Path) -> None:
    (models_dir / "rating" / "1").rename(models_dir / "rating" / "3")
    with pytest.raises(Failed, match="describes rating version 1"):
        InferenceClient.connect("127.0.0.1:1", models_dir, timeout_s=1)
