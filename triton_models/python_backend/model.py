"""Inference inside the embedded Triton: runs ``model.onnx`` beside this file with onnxruntime.

Triton's Python backend starts one process per model instance and calls `TritonPythonModel` in it.
The names of inputs and outputs come from the model's configuration, so this one program serves
both models.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One onnxruntime session for one model instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network.

        Parameters
        ----------
        args : dict
            From Triton: the configuration as JSON, the model's folder and the version to serve.

        Raises
        ------
        ValueError
            The network's inputs or outputs are not those of the configuration; Triton then
            refuses to serve the model and logs the message.
        """
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["MODEL_THREADS"])
        options.inter_op_num_threads = 1
        # Spinning threads would take the cores that the worker's registration needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        network = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )
        found = (
            {tensor.name for tensor in self._session.get_inputs()},
            {tensor.name for tensor in self._session.get_outputs()},
        )
        if found != (set(self._inputs), set(self._outputs)):
            raise ValueError(f"{network} has inputs and outputs {found}, not the configuration's")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own: one that fails does not spoil the others.

        Parameters
        ----------
        requests : list of InferenceRequest
            Each holds one batch, whose shapes Triton has checked against the configuration.

        Returns
        -------
        list of InferenceResponse
            In the order of `requests`.
        """
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        feed = {
            name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs
        }
        try:
            answers = self._session.run(self._outputs, feed)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
            return triton.InferenceResponse(error=triton.TritonError(f"onnxruntime: {error}"))
        return triton.InferenceResponse(
            output_tensors=[
                triton.Tensor(name, np.ascontiguousarray(answer))
                for name, answer in zip(self._outputs, answers, strict=True)
            ]
        )
