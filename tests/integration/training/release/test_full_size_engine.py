"""The severity network at the paper's full size compiles for TensorRT, in FP16."""

from __future__ import annotations

import json
import multiprocessing
from typing import TYPE_CHECKING

import pytest

from tests.support.builders.networks import full_size_severity
from tests.support.shipped_models import newest_description
from training.release.engines import check_engine, compile_network, served_batches

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder with the network; made by a process whose memory is released."""
    folder = tmp_path_factory.mktemp("models") / "severity" / "1"
    folder.mkdir(parents=True)
    networks = (folder / "model.onnx", folder / "model.fp16.onnx")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(full_size_severity, networks)
    described = {key: newest_description("severity")[key] for key in ("inputs", "outputs")}
    # The layers after the last feature map have the same names at any width.
    described["fp32_layers"] = newest_description("severity")["fp32_layers"]
    (folder / "model.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("gpu", ["SM89", "SM120"])
def test_the_full_size_network_compiles_to_what_is_meant(version: Path, gpu: str) -> None:
    batches = served_batches("severity")
    engine = compile_network(version / "model.fp16.onnx", batches, gpu)
    assert check_engine(engine, version, batches) == []
    assert engine.size_bytes > 120e6  # 63 million FP16 weights
    half = [layer for layer in engine.layers if {t.type for t in layer.inputs} == {"Half"}]
    assert len(half) >= 104
