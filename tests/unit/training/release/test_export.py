"""Export: the ONNX graph answers as the PyTorch network does, for any batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tensorrt import TENSORRT_OPERATORS, operators
from training.rating.network import RatingNet
from training.release.evaluate import session
from training.release.export import OPSET, to_onnx
from training.severity.network import SeverityNet


def _trained_like(net: torch.nn.Module) -> torch.nn.Module:
    """Move weights and running statistics away from their initial values."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            assert module.running_mean is not None
            module.running_mean += 0.1 * torch.randn_like(module.running_mean)
    return net.eval()


def test_rating_graph(tmp_path: Path) -> None:
    net = _trained_like(RatingNet())
    to_onnx(net, (1, 1, 112, 86), tmp_path / "m.onnx", "crops", ["probabilities"])
    crops = np.random.default_rng(0).random((6, 1, 112, 86), dtype=np.float32)
    (answer,) = session(tmp_path / "m.onnx").run(["probabilities"], {"crops": crops})
    with torch.no_grad():
        expected = net(torch.from_numpy(crops)).numpy()
    assert np.allclose(answer, expected, atol=1e-5)
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_severity_graph(tmp_path: Path) -> None:
    import onnx

    net = _trained_like(SeverityNet(18, 4))
    names = ["probability", "saliency"]
    to_onnx(net, (1, 1, 16, 64, 64), tmp_path / "m.onnx", "volume", names)
    volume = np.random.default_rng(0).random((3, 1, 16, 64, 64), dtype=np.float32)
    answer = session(tmp_path / "m.onnx").run(names, {"volume": volume})
    with torch.no_grad():
        expected = [value.numpy() for value in net(torch.from_numpy(volume))]
    for got, want in zip(answer, expected, strict=True):
        assert got.shape == want.shape
        assert np.allclose(got, want, rtol=1e-4, atol=1e-5)
    graph = onnx.load(tmp_path / "m.onnx")
    assert graph.opset_import[0].version == OPSET
    assert not any("log_count" in weight.name for weight in graph.graph.initializer)


@pytest.mark.parametrize("layers", [50, 101, 152])
def test_tensorrt_documents_every_operator_of_the_severity_graph(
    layers: int, tmp_path: Path
) -> None:
    """At a width of one: the graph has the operators of the full-size network."""
    names = ["probability", "saliency"]
    net = _trained_like(SeverityNet(layers, 1))  # else equal weights would share one initialiser
    to_onnx(net, (1, 1, 16, 64, 64), tmp_path / "m.onnx", "volume", names)
    assert operators(tmp_path / "m.onnx") <= TENSORRT_OPERATORS


def test_tensorrt_documents_every_operator_of_the_rating_graph(tmp_path: Path) -> None:
    to_onnx(RatingNet(), (1, 1, 112, 86), tmp_path / "m.onnx", "crops", ["probabilities"])
    found = operators(tmp_path / "m.onnx")
    assert {"Conv", "AveragePool", "Softmax"} <= found  # it does read the graph
    assert found <= TENSORRT_OPERATORS
