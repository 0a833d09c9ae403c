"""Export: the ONNX graph gives the output of the PyTorch network, for any batch size."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from training.rating.network import RatingNet
from training.release.engines import compile_network
from training.release.evaluate import session
from training.release.export import OPSET, to_onnx
from training.release.precision.graph import convert, float_layers, without_identities
from training.release.precision.layers import trunk
from training.severity.network import SeverityNet


def _with_random_weights(net: torch.nn.Module) -> torch.nn.Module:
    """Perturb weights and running statistics, so that they differ from their initial values."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            assert module.running_mean is not None
            module.running_mean += 0.1 * torch.randn_like(module.running_mean)
    return net.eval()


def test_rating_graph_matches_the_network(tmp_path: Path) -> None:
    net = _with_random_weights(RatingNet())
    to_onnx(net, (1, 1, 112, 86), tmp_path / "m.onnx", "crops", ["probabilities"])
    crops = np.random.default_rng(0).random((6, 1, 112, 86), dtype=np.float32)
    (output,) = session(tmp_path / "m.onnx").run(["probabilities"], {"crops": crops})
    with torch.no_grad():
        expected = net(torch.from_numpy(crops)).numpy()
    assert np.allclose(output, expected, atol=1e-5)
    assert np.allclose(output.sum(axis=1), 1, atol=1e-5)


def test_severity_graph_matches_the_network(tmp_path: Path) -> None:
    net = _with_random_weights(SeverityNet(18, 4))
    names = ["probability", "saliency"]
    to_onnx(net, (1, 1, 16, 64, 64), tmp_path / "m.onnx", "volume", names)
    volume = np.random.default_rng(0).random((3, 1, 16, 64, 64), dtype=np.float32)
    outputs = session(tmp_path / "m.onnx").run(names, {"volume": volume})
    with torch.no_grad():
        expected = [value.numpy() for value in net(torch.from_numpy(volume))]
    for got, want in zip(outputs, expected, strict=True):
        assert got.shape == want.shape
        assert np.allclose(got, want, rtol=1e-4, atol=1e-5)
    graph = onnx.load(tmp_path / "m.onnx")
    assert graph.opset_import[0].version == OPSET
    assert not any("log_count" in weight.name for weight in graph.graph.initializer)


@pytest.mark.parametrize("layers", [18, 50, 101, 152])
def test_tensorrt_compiles_the_severity_network_of_any_depth(layers: int, tmp_path: Path) -> None:
    names = ["probability", "saliency"]
    net = _with_random_weights(SeverityNet(layers, 2))
    to_onnx(net, (1, 1, 16, 64, 64), tmp_path / "m.onnx", "volume", names)
    network = without_identities(onnx.load(tmp_path / "m.onnx"))
    onnx.save(convert(network, trunk(float_layers(network))), tmp_path / "m.fp16.onnx")
    engine = compile_network(tmp_path / "m.fp16.onnx", (1, 1, 1), "SM89")
    assert engine.ends.keys() == {"volume", *names}
