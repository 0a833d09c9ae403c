"""Engines that TensorRT for RTX compiles on the CPU from the shipped FP16 networks.

The negative controls show that the check fails where it must: on an operator that TensorRT does not
support, on types that do not fit, on an engine that is FP32 although FP16 was meant, and on another
interface.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import numpy_helper

from core.errors import ConfigurationError
from tests.support.shipped_models import newest_folder
from training.release.engines import (
    EngineEnd,
    EngineError,
    EngineLayer,
    Tensor,
    _parse,
    check_engine,
    compile_network,
    require_engine,
    served_batches,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GPUS = ("SM89", "SM120")
"""Ada and Blackwell."""


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("name", ["rating", "severity"])
def test_the_shipped_networks_compile_to_what_is_meant(name: str, gpu: str) -> None:
    version = newest_folder(name)
    engine = require_engine(version, gpu)
    assert engine.size_bytes > 0.9 * (version / "model.fp16.onnx").stat().st_size
    (given,) = (end for end in engine.ends.values() if end.batches)
    assert given.batches == served_batches(name)
    # What was compared was there: convolutions in FP16, and ends in FP32.
    half = [layer for layer in engine.layers if {t.type for t in layer.inputs} == {"Half"}]
    described = json.loads((version / "model.json").read_text())
    assert len(half) >= {"rating": 8, "severity": 104}[name]
    assert engine.ends.keys() == described["inputs"].keys() | described["outputs"].keys()


def test_rating_takes_any_batch_up_to_that_of_triton() -> None:
    engine = require_engine(newest_folder("rating"), "SM89")
    assert engine.ends["crops"] == EngineEnd(Tensor("Float", (-1, 1, 112, 86)), (1, 6, 48))
    assert engine.ends["probabilities"] == EngineEnd(Tensor("Float", (-1, 5)), ())
    differences = check_engine(engine, newest_folder("rating"), (1, 6, 24))
    assert len(differences) == 1
    assert "(1, 6, 48)" in differences[0]


# --- Negative controls ----------------------------------------------------------------------------
def _copy(tmp_path: Path, name: str = "rating") -> Path:
    return shutil.copytree(newest_folder(name), tmp_path / name / "1")


def _change(version: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    network = onnx.load(version / "model.fp16.onnx")
    change(network.graph)
    onnx.save(network, version / "model.fp16.onnx")


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        (node,) = (each for each in graph.node if each.name == "/hidden/hidden.1/Relu")
        node.op_type = "Bernoulli"

    version = _copy(tmp_path)
    _change(version, change)
    with pytest.raises(EngineError, match=r"does not parse .*Bernoulli /hidden/hidden\.1/Relu"):
        require_engine(version, "SM89")


def test_types_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """So it is with a converter that leaves one operand of a division in FP32."""

    def change(graph: onnx.GraphProto) -> None:
        (bias,) = (tensor for tensor in graph.initializer if tensor.name == "onnx::Conv_68")
        values = numpy_helper.to_array(bias).astype("float32")
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))

    version = _copy(tmp_path)
    _change(version, change)
    with pytest.raises(EngineError, match=r"/features/features\.4/Conv"):
        require_engine(version, "SM89")


@pytest.mark.parametrize("name", ["rating", "severity"])
def test_an_engine_that_is_silently_fp32_is_detected(name: str, tmp_path: Path) -> None:
    version = _copy(tmp_path, name)
    shutil.copy(version / "model.onnx", version / "model.fp16.onnx")
    with pytest.raises(EngineError, match=r"Conv is Float and not Half.* and \d+ more"):
        require_engine(version, "SM89")


def test_one_layer_of_another_precision_is_detected(tmp_path: Path) -> None:
    version = _copy(tmp_path)
    described = json.loads((version / "model.json").read_text())
    moved = described["fp32_layers"].pop(0)["layer"]
    (version / "model.json").write_text(json.dumps(described))
    with pytest.raises(EngineError, match=f"{moved} is Float and not Half"):
        require_engine(version, "SM89")
    described["fp32_layers"] = [{"layer": moved}, {"layer": "/features/features.4/Conv"}]
    (version / "model.json").write_text(json.dumps(described))
    with pytest.raises(EngineError, match=r"features\.4/Conv is Half and not Float"):
        require_engine(version, "SM89")


def test_another_interface_is_detected(tmp_path: Path) -> None:
    version = _copy(tmp_path)
    described = json.loads((version / "model.json").read_text())
    described["inputs"] = {"crops": [-1, 1, 112, 88]}
    described["outputs"]["confidence"] = [-1, 1]
    (version / "model.json").write_text(json.dumps(described))
    with pytest.raises(EngineError, match=r"confidence is None and not .*crops is "):
        require_engine(version, "SM89")


def test_an_unknown_gpu_and_a_missing_file_are_named(tmp_path: Path) -> None:
    network = newest_folder("rating") / "model.fp16.onnx"
    with pytest.raises(ConfigurationError, match=r"SM90.*Use SM80"):
        compile_network(network, (1, 6, 48), "SM90")
    version = _copy(tmp_path)
    (version / "model.fp16.onnx").unlink()
    with pytest.raises(ConfigurationError, match="python -m training fp16"):
        require_engine(version, "SM89")


# --- The description of an engine -----------------------------------------------------------------
def test_a_description_is_read_line_by_line() -> None:
    text = """Layers:
Name: __myl_Move_0, LayerType: kgen, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata:
Name: /a/Conv_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,2,4], Strides: [8,4,1], Datatype: Half, Format: (NHWC) f }], Constants: [ { Name: w, Dimensions: [3,2,1], Datatype: Half, Format: f }, { Name: s, Dimensions: [1], Datatype: Float, Format: f }], Outputs: [ { Name: y, Dimensions: [-1,3,4], Datatype: Half, Format: f }], TacticName: stub, StreamId: 0, Metadata: [ONNX Layer: /a/Conv][ONNX Layer: /a/Relu]

I/O Tensors:
 Name: x, IOMode: Input, DataType: Float, Dimensions: [-1,2,4], Location: Device, ProfileInfo: [ { MinShape: [1,2,4], OptShape: [6,2,4], MaxShape: [48,2,4], Format: f }]
"""  # noqa: E501 - lines as TensorRT writes them
    ends, layers = _parse(text)
    assert ends == {"x": EngineEnd(Tensor("Float", (-1, 2, 4)), (1, 6, 48))}
    assert layers == [
        EngineLayer("__myl_Move_0", (), (), (), ()),
        EngineLayer(
            "/a/Conv_1",
            (Tensor("Half", (-1, 2, 4)),),
            (Tensor("Half", (3, 2, 1)), Tensor("Float", (1,))),
            (Tensor("Half", (-1, 3, 4)),),
            ("/a/Conv", "/a/Relu"),
        ),
    ]
