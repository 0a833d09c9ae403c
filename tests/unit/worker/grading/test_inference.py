"""Tests of worker/grading/inference.py that need no model server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from core.errors import Failed, Unavailable
from worker.grading import inference
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
        (tmp_path / name).mkdir()
        description = {
            "name": name,
            "version": "1",
            "weights_sha256": "0" * 64,
            "display_name": name,
            "training_data": "synthetic",
            "preprocessing": {"version": 1, "enhancement": "block-group"},
            "inputs": inputs,
            "outputs": outputs,
        }
        (tmp_path / name / "model.json").write_text(json.dumps(description))
    return tmp_path


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never says a word."""
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
    client = InferenceClient(f"127.0.0.1:{silent_port}", models_dir, timeout_s=0.5)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED") as caught:
        client.wait_ready(1.0)
    assert caught.value.service == "triton"
    # Not a speed test: without a deadline the call would never return.
    assert time.monotonic() - began < 60


def test_a_refused_connection_is_unavailable(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable):
        InferenceClient(f"127.0.0.1:{port}", models_dir, timeout_s=5).wait_ready(0.5)


def test_another_enhancement_than_the_model_was_trained_on_is_refused(models_dir: Path) -> None:
    client = InferenceClient("127.0.0.1:1", models_dir, timeout_s=1)
    client.check_enhancement("block-group")
    with pytest.raises(Failed, match="Set EPVS_ENHANCEMENT=block-group") as caught:
        client.check_enhancement("stationary")
    assert caught.value.code == "enhancement-mismatch"


def test_a_missing_description_names_the_file(models_dir: Path) -> None:
    (models_dir / "severity" / "model.json").unlink()
    with pytest.raises(Failed, match=r"severity/model\.json") as caught:
        InferenceClient("127.0.0.1:1", models_dir, timeout_s=1)
    assert caught.value.code == "model-description-invalid"


@pytest.mark.parametrize(
    "row",
    [
        [0.2, 0.2, 0.2, 0.2, 0.3],
        [-0.1, 0.3, 0.3, 0.3, 0.2],
        [2.0, -1.0, 0.0, 0.0, 0.0],
        [np.nan, 0.25, 0.25, 0.25, 0.25],
        [np.inf, 0.0, 0.0, 0.0, 0.0],
    ],
)
def test_an_answer_that_is_no_distribution_is_refused(row: list[float]) -> None:
    good = [0.2] * 5
    with pytest.raises(Failed) as caught:
        inference.check_distribution(np.array([good, row], np.float32), "rating")
    assert caught.value.code == "model-answer-invalid"


def test_half_precision_rounding_is_still_a_distribution() -> None:
    random = np.random.default_rng(0)
    rows = random.dirichlet(np.ones(5), 1000).astype(np.float16).astype(np.float32)
    assert inference.check_distribution(rows, "rating") is rows


@pytest.mark.parametrize(
    ("probability", "saliency"),
    [(1.2, 1.0), (-0.1, 1.0), (np.nan, 1.0), (0.5, -1.0), (0.5, np.inf)],
)
def test_a_severity_answer_out_of_range_is_refused(probability: float, saliency: float) -> None:
    with pytest.raises(Failed) as caught:
        inference.check_severity(
            np.full((1, 1), probability, np.float32), np.full((1, 1, 16, 16), saliency, np.float32)
        )
    assert caught.value.code == "model-answer-invalid"


def test_rating_differences_report_each_tolerance() -> None:
    golden = {"probabilities": np.array([[0.505, 0.495, 0, 0, 0]], np.float32)}

    def differences(*row: float) -> list[str]:
        answer = {"probabilities": np.array([row], np.float32)}
        return list(inference.rating_differences(answer, golden))

    assert differences(0.515, 0.485, 0, 0, 0) == []
    # Within the tolerance, yet the grade changes.
    assert differences(0.495, 0.505, 0, 0, 0) == ["ratings [1] instead of [0]"]
    assert differences(0.6, 0.4, 0, 0, 0) == ["probabilities differ by 0.095 (at most 0.02)"]
    assert len(differences(np.nan, 0.4, 0, 0, 0)) >= 1


def test_severity_differences_report_each_tolerance() -> None:
    random = np.random.default_rng(0)
    saliency = random.random((1, 1, 16, 16), np.float32)
    golden = {"probability": np.array([[0.3]], np.float32), "saliency": saliency}

    def differences(probability: float, map_: np.ndarray) -> list[str]:
        answer = {"probability": np.array([[probability]], np.float32), "saliency": map_}
        return list(inference.severity_differences(answer, golden))

    assert differences(0.31, saliency * 1.5) == []
    assert differences(0.35, saliency) == ["probabilities differ by 0.050 (at most 0.02)"]
    assert "saliency correlates" in differences(0.3, np.roll(saliency, 3, axis=-1))[0]
    assert "saliency correlates nan" in differences(0.3, np.zeros_like(saliency))[0]


def test_golden_arrays_stored_as_bytes_stand_for_fractions_of_255(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez_compressed(
        path, crops=np.array([0, 51, 255], np.uint8), probabilities=np.array([0.25], np.float16)
    )
    inputs, outputs = inference.load_golden(path, {"crops": ()}, {"probabilities": ()})
    np.testing.assert_array_equal(inputs["crops"], np.array([0, 0.2, 1], np.float32))
    np.testing.assert_array_equal(outputs["probabilities"], np.array([0.25], np.float32))
    assert inputs["crops"].dtype == outputs["probabilities"].dtype == np.float32


def test_a_golden_file_without_an_output_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez_compressed(path, crops=np.zeros(1, np.uint8))
    with pytest.raises(Failed) as caught:
        inference.load_golden(path, {"crops": ()}, {"probabilities": ()})
    assert caught.value.code == "model-description-invalid"
