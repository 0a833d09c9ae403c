"""NVIDIA GPU, its driver, and the toolkit that gives it to containers."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from node.machine.check import MachineCheck, run
from node.machine.requirements import COMPUTE_CAPABILITY, DRIVER, GPU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.machine.engine import Engine

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_DISPLAY_CONTROLLER = "0x03"
_COLUMNS = ("name", "memory.total", "driver_version", "compute_cap")


def check_gpu() -> Iterator[MachineCheck]:
    """Check every GPU that the driver shows, and the driver."""
    output = run("nvidia-smi", f"--query-gpu={','.join(_COLUMNS)}", "--format=csv,noheader,nounits")
    lines = output.stdout.splitlines() if output is not None and output.code == 0 else []
    cards = [row for row in csv.reader(lines, skipinitialspace=True) if len(row) == len(_COLUMNS)]
    if not cards:
        yield _no_gpu(installed=output is not None)
        return
    usable = [card for card in cards if _numbers(card[3]) >= COMPUTE_CAPABILITY]
    yield MachineCheck(
        "GPU",
        bool(usable),
        "; ".join(
            f"{name}, {memory} MiB, compute capability {capability}"
            for name, memory, _, capability in cards
        ),
        "NVIDIA's 26.10 images need compute capability {}.{} (Turing) or newer.".format(
            *COMPUTE_CAPABILITY
        ),
        needed_by=(GPU,),
    )
    driver = cards[0][2]
    yield MachineCheck(
        "NVIDIA driver",
        _numbers(driver) >= (DRIVER,),
        f"{driver}, {DRIVER} or newer needed",
        f"Install driver {DRIVER} or newer: NVIDIA's 26.10 images need CUDA 13.",
        needed_by=(GPU,),
    )


def _no_gpu(*, installed: bool) -> MachineCheck:
    present = [device for device in _devices() if _is_nvidia_gpu(device)]
    if not present:
        detail, remedy = "no NVIDIA GPU was found", "Use the profile cpu."
    elif installed:
        detail, remedy = (
            "there is an NVIDIA GPU, but nvidia-smi cannot talk to its driver",
            "Run nvidia-smi and follow its message; often the machine needs a restart.",
        )
    else:
        detail, remedy = (
            "there is an NVIDIA GPU, but no driver for it",
            f"Install NVIDIA's driver, {DRIVER} or newer.",
        )
    return MachineCheck("GPU", False, detail, remedy, needed_by=(GPU,))


def _devices() -> list[Path]:
    return sorted(_PCI.iterdir()) if _PCI.is_dir() else []


def _is_nvidia_gpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == _NVIDIA and kind.startswith(_DISPLAY_CONTROLLER)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def check_toolkit(engine: Engine) -> MachineCheck:
    """Check that the engine can give a GPU to a container."""
    runtimes = engine.info.get("Runtimes") or {}
    devices = engine.info.get("DiscoveredDevices") or []
    known = (
        "nvidia" in runtimes
        # The engine starts this program itself if it is on its path.
        or shutil.which("nvidia-container-runtime-hook") is not None
        or any(str(device.get("ID", "")).startswith("nvidia.com/gpu") for device in devices)
    )
    return MachineCheck(
        "NVIDIA Container Toolkit",
        known,
        "known to the engine" if known else "the engine has no runtime for NVIDIA GPUs",
        "Install the package nvidia-container-toolkit, then run `sudo nvidia-ctk runtime configure "
        "--runtime=docker` and `sudo systemctl restart docker`.",
        needed_by=(GPU,),
    )
