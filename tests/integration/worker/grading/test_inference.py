"""The inference client against the real Triton: right predictions, and each way they can be wrong.

Small networks with the real names and shapes stand in for the trained ones wherever a fault has
to be built into a model; the trained ones are tried as they ship and with damaged weights.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from SimpleITK import Euler3DTransform, Image, sitkFloat32

from core.errors import Failed, Unavailable
from core.model_versions import newest_version
from node.embedded.triton import EmbeddedTriton
from tests.support.builders.stand_in_models import (
    MODELS,
    describe,
    rating_network,
    severity_network,
    write_model,
    write_stand_ins,
)
from worker.grading.inference import InferenceClient
from worker.grading.records import RatingInput, SeverityInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedTriton, Path]]:
    """A Triton server with correct stand-in models, and their folder."""
    folder = tmp_path_factory.mktemp("stand-ins")
    models = write_stand_ins(folder / "models")
    with EmbeddedTriton(folder / "work", folder / "triton.log", models, threads=1) as server:
        yield server, models


def rating_input(n: int = 6) -> RatingInput:
    crops = np.random.default_rng(2).random((n, 1, 112, 86), np.float32)
    return RatingInput(crops, placements=())


def severity_input() -> SeverityInput:
    volume = np.random.default_rng(3).random((1, 1, 16, 512, 512), np.float32)
    return SeverityInput(volume, Image(1, 1, 1, sitkFloat32), Euler3DTransform())


def network_outputs(models: Path, name: str, array: np.ndarray) -> list[np.ndarray]:
    """Outputs of the network from onnxruntime alone."""
    session = onnxruntime.InferenceSession(models / name / "1" / "model.onnx")
    return session.run(None, {session.get_inputs()[0].name: array})


# --- Correct models ----------------------------------------------------------------------------
def test_the_shipped_models_reproduce_their_golden_outputs(triton_server: EmbeddedTriton) -> None:
    client = InferenceClient.connect(triton_server.url, MODELS, timeout_s=60)
    client.wait_ready(30)
    client.check_golden()


def test_predictions_are_the_outputs_of_the_network(stand_ins: tuple[EmbeddedTriton, Path]) -> None:
    server, models = stand_ins
    client = InferenceClient.connect(server.url, models, timeout_s=20)
    client.check_golden()

    rating = client.rate(rating_input())
    (probabilities,) = network_outputs(models, "rating", rating_input().crops)
    np.testing.assert_allclose(rating.probabilities, probabilities, atol=1e-5)
    assert rating.model.name == "rating"
    assert rating.model.version == "1"
    assert rating.model.display_name == "stand-in rating"

    severity = client.assess(severity_input())
    probability, saliency = sorted(
        network_outputs(models, "severity", severity_input().volume), key=np.size
    )
    assert severity.probability == pytest.approx(float(probability[0, 0]), abs=1e-5)
    np.testing.assert_allclose(severity.saliency, saliency[0], atol=1e-5)
    assert severity.saliency.shape == (1, 16, 16)
    assert severity.model.name == "severity"


# --- Faulty models ------------------------------------------------------------------------------
def test_damaged_weights_fail_the_golden_test(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = shutil.copytree(MODELS, tmp_path / "models")
    version = newest_version(models / "rating")
    path = models / "rating" / version / "model.onnx"
    network = onnx.load(path)
    largest = max(network.graph.initializer, key=lambda each: int(np.prod(each.dims)))
    weights = numpy_helper.to_array(largest)
    # Like a faulty engine build: every number is plausible, the prediction is wrong.
    largest.CopyFrom(numpy_helper.from_array(np.flip(weights).copy(), largest.name))
    onnx.save(network, path)
    describe(models, "rating")
    with pytest.raises(
        Failed, match=rf"rating version {version}.*probabilities differ by"
    ) as caught:
        InferenceClient.connect(serve(models).url, models, timeout_s=60).check_golden()
    assert caught.value.code == "golden-mismatch"


@pytest.mark.parametrize(
    ("name", "build"), [("rating", rating_network), ("severity", severity_network)]
)
def test_a_swapped_model_is_detected_by_its_weights_and_by_its_predictions(
    tmp_path: Path,
    serve: Callable[[Path], EmbeddedTriton],
    name: str,
    build: Callable[[int], onnx.ModelProto],
) -> None:
    models = write_stand_ins(tmp_path / "models")
    promised = (models / name / "1" / "model.json").read_text()
    onnx.save(build(7), models / name / "1" / "model.onnx")
    describe(models, name)
    client = InferenceClient.connect(serve(models).url, models, timeout_s=20)
    with pytest.raises(Failed, match=f"The model {name} ") as caught:
        client.check_golden()
    assert caught.value.code == "golden-mismatch"

    (models / name / "1" / "model.json").write_text(promised)
    client = InferenceClient.connect(client.server.url, models, timeout_s=20)
    with pytest.raises(Failed, match=json.loads(promised)["weights_sha256"][:12]) as caught:
        client.rate(rating_input()) if name == "rating" else client.assess(severity_input())
    assert caught.value.code == "model-mismatch"


def test_impossible_predictions_are_refused(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = write_stand_ins(tmp_path / "models")
    rating = rating_network(0)
    rating.graph.node[-1].op_type = "Softplus"
    rating.graph.node[-1].ClearField("attribute")
    write_model(models, "rating", rating)
    severity = severity_network(0)
    severity.graph.node[-1].op_type = "Log"  # of a negative mean: NaN
    weights = severity.graph.initializer[1]
    negative = -np.abs(numpy_helper.to_array(weights))
    weights.CopyFrom(numpy_helper.from_array(negative, weights.name))
    write_model(models, "severity", severity)

    client = InferenceClient.connect(serve(models).url, models, timeout_s=20)
    with pytest.raises(Failed, match=r"rating.*cannot be used") as caught:
        client.rate(rating_input())
    assert caught.value.code == "model-answer-invalid"
    with pytest.raises(Failed, match=r"severity.*probability") as caught:
        client.assess(severity_input())
    assert caught.value.code == "model-answer-invalid"


def test_an_error_inside_a_model_does_not_stop_the_server(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = write_stand_ins(tmp_path / "models")
    network = rating_network(0)
    network.graph.node[1].CopyFrom(onnx.helper.make_node("Reshape", ["tiles", "six"], ["flat"]))
    network.graph.initializer.append(numpy_helper.from_array(np.array([6, 48]), "six"))
    write_model(models, "rating", network)
    client = InferenceClient.connect(serve(models).url, models, timeout_s=20)
    with pytest.raises(Failed, match="onnxruntime") as caught:
        client.rate(rating_input(5))
    assert caught.value.code == "model-error"
    assert client.rate(rating_input(6)).probabilities.shape == (6, 5)


# --- Faulty server ------------------------------------------------------------------------------
def test_a_model_that_is_not_loaded_is_unavailable(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = write_stand_ins(tmp_path / "models")
    served = shutil.copytree(models, tmp_path / "served")
    shutil.rmtree(served / "severity")
    client = InferenceClient.connect(serve(served).url, models, timeout_s=20)
    with pytest.raises(Unavailable, match="severity"):
        client.wait_ready(0.5)
    with pytest.raises(Unavailable, match="severity"):
        client.assess(severity_input())


def test_a_stopped_server_is_unavailable_until_it_resumes(
    stand_ins: tuple[EmbeddedTriton, Path],
) -> None:
    server, models = stand_ins
    client = InferenceClient.connect(server.url, models, timeout_s=2)
    client.rate(rating_input())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unavailable):
            client.rate(rating_input())
    finally:
        os.kill(server.pid, signal.SIGCONT)
    client.wait_ready(30)
    client.rate(rating_input())


def test_a_killed_server_is_unavailable_until_it_is_restarted(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = write_stand_ins(tmp_path / "models")
    server = serve(models)
    client = InferenceClient.connect(server.url, models, timeout_s=20)
    client.rate(rating_input())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        client.rate(rating_input())
    server.stop()
    server.start()  # on the same port
    client.wait_ready(30)
    client.rate(rating_input())


def test_a_dead_model_process_is_detected_and_restarted(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = write_stand_ins(tmp_path / "models")
    server = serve(models)
    client = InferenceClient.connect(server.url, models, timeout_s=20)
    client.rate(rating_input())
    assert server.running()
    for process in server._members - {server.pid}:
        os.kill(process, signal.SIGKILL)
    with pytest.raises(Unavailable):
        client.rate(rating_input())
    assert not server.running()
    server.stop()
    server.start()
    assert server.running()
    client.wait_ready(30)
    client.rate(rating_input())


# --- The embedded server itself -----------------------------------------------------------------
def test_stopping_leaves_no_process_and_no_shared_memory(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    server = serve(write_stand_ins(tmp_path / "models"))
    group = server.pid
    assert group is not None
    regions = list(Path("/dev/shm").glob(f"{server._memory_prefix_file.read_text()}*"))
    assert len(regions) == 2
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert not any(region.exists() for region in regions)


def test_a_killed_server_leaves_no_shared_memory_to_the_next(
    tmp_path: Path, stand_ins: tuple[EmbeddedTriton, Path]
) -> None:
    """19 MiB for each start would soon fill the 64 MiB of a container."""
    work, log = tmp_path / "work", tmp_path / "triton.log"
    killed = EmbeddedTriton(work, log, stand_ins[1], threads=1)
    killed.start()
    assert killed.pid is not None
    regions = list(Path("/dev/shm").glob(f"{killed._memory_prefix_file.read_text()}*"))
    assert len(regions) == 2
    os.killpg(killed.pid, signal.SIGKILL)
    with EmbeddedTriton(work, log, stand_ins[1], threads=1):
        assert not any(region.exists() for region in regions)
    killed.stop()


def test_the_work_folder_may_have_any_name(
    tmp_path: Path, stand_ins: tuple[EmbeddedTriton, Path]
) -> None:
    """Triton starts its model processes through a shell."""
    work = tmp_path / "the data; of $HOME"
    with EmbeddedTriton(work, tmp_path / "triton.log", stand_ins[1], threads=1) as server:
        client = InferenceClient.connect(server.url, stand_ins[1], timeout_s=60)
        client.wait_ready(30)
        client.check_golden()


def test_a_network_with_other_outputs_is_not_served(
    tmp_path: Path, serve: Callable[[Path], EmbeddedTriton]
) -> None:
    models = write_stand_ins(tmp_path / "models")
    shutil.copy(models / "severity/1/model.onnx", models / "rating/1/model.onnx")
    describe(models, "rating")
    with pytest.raises(Unavailable, match="differ from those of config"):
        serve(models)
