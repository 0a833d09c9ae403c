"""The model program of Triton without a GPU."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

from tests.support.paths import ROOT

_MODEL_PROCESS = """
import os, sys, types
for name in ("onnxruntime", "triton_python_backend_utils"):
    sys.modules[name] = types.ModuleType(name)
sys.path.insert(0, "triton_models/python_backend")
import model
model._PARENT_CHECKED_EVERY_S = 0.05
parent = os.getppid()
print(os.getpid(), flush=True)
model.end_with(parent)
"""
_SERVER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""


def test_a_model_process_ends_with_its_server() -> None:
    """Also when the server is killed, and Triton's own check for that hangs."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, _MODEL_PROCESS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server:
        model = psutil.Process(int(server.stdout.readline()))
        assert model.is_running()
        server.send_signal(signal.SIGKILL)
        model.wait(10)
