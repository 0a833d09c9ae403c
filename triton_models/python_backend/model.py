"""Model program of Triton without a GPU: runs the ``model.onnx`` beside it with onnxruntime.

Triton's Python backend starts one process per model instance and calls `TritonPythonModel` in it.
The names of inputs and outputs come from the model's configuration, so the same program serves
both models.

Tensors pass as DLPack, not as numpy arrays: the backend of this Triton release was built with
pybind11 < 2.12, which misreads the item size of arrays of numpy 2, so that its ``as_numpy`` and
``Tensor(name, array)`` exchange empty data. DLPack copies nothing and works with any numpy.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as triton

_PARENT_CHECKED_EVERY_S = 2.0


def end_with(parent: int) -> None:
    """End this process when Triton has gone, which is its parent.

    Triton's own check for that waits for ever if the server was killed while it held a lock in
    their shared memory.

    Parameters
    ----------
    parent : int
        Process id of Triton.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECKED_EVERY_S)
    os._exit(1)


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
            The inputs or outputs of the network differ from the configuration; Triton then
            refuses to serve the model and logs the message.
        """
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
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
            raise ValueError(
                f"{network}: inputs and outputs {found} differ from those of config.pbtxt"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request separately, so that one that fails does not affect the others.

        Parameters
        ----------
        requests : list of InferenceRequest
            Each is one batch; Triton has checked its shapes against the configuration.

        Returns
        -------
        list of InferenceResponse
            In the order of `requests`.
        """
        return [self._infer(request) for request in requests]

    def _infer(self, request: Any) -> Any:
        feed = {
            name: onnxruntime.OrtValue.from_dlpack(triton.get_input_tensor_by_name(request, name))
            for name in self._inputs
        }
        try:
            outputs = self._session.run_with_ort_values(self._outputs, feed)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
            return triton.InferenceResponse(error=triton.TritonError(f"onnxruntime: {error}"))
        return triton.InferenceResponse(
            output_tensors=[
                triton.Tensor.from_dlpack(name, output)
                for name, output in zip(self._outputs, outputs, strict=True)
            ]
        )
