"""Stand-ins for ``trtexec`` of TensorRT 10 and 11, and for ``nvidia-smi``.

TensorRT is not available to the tests. The stand-in accepts the options that the program accepts,
refuses others, records how it was called, and can fail like it. Its engines are text.

The options are those that ``samples/common/sampleOptions.cpp`` of https://github.com/NVIDIA/TensorRT
parses: for 10 as of commit 3b4ddc1d45f1 (which warns of weak typing, so 10.12 or later), for 11 as
of commit d5883286a711 (11.1.0.106).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_COMMON = """
    allocationStrategy allowGPUFallback allowWeightStreaming asyncFileReader avgRuns avgTiming
    buildDLAStandalone builderOptimizationLevel consistency decomposableAttentions device
    directIO distributiveIndependence dumpKernelText dumpLayerInfo dumpOptimizationProfile
    dumpOutput dumpProfile dumpRawBindingsToFile dumpRefit duration dynamicPlugins
    errorOnTimingCacheMiss excludeLeanRuntime exportLayerInfo exportOutput exportProfile
    exportTimes exposeDMA getPlanVersionOnly hardwareCompatibilityLevel help idleTime
    ignoreParsedPluginLibs infStreams inputIOFormats iterations l2LimitForTiling
    layerDeviceTypes leanDLLPath loadEngine loadInputs markDebug
    markUnfusedTensorsAsDebugTensors maxAuxStreams maxShapes maxTactics memPoolSize minShapes
    monitorMemory noBuilderCache noCompilationCache noDataTransfers noTF32 onnx optShapes
    outputIOFormats percentile persistentCacheRatio pi pluginInstanceNorm plugins preview
    profile profilingVerbosity refit refitFromOnnx remoteAutoTuningConfig runtimePlatform safe
    saveAllDebugTensors saveDebugTensors saveEngine separateProfileRun setPluginsToSerialize
    shapes skipInference sleepTime sparsity staticPlugins streams stripAllWeights stripWeights
    stronglyTyped tacticSources tempdir tempfileControls threads tilingOptimizationLevel
    timeDeserialize timeRefit timingCacheFile uint8AsymmetricQuantizationDLA useCudaGraph
    useDLACore useManagedMemory useProfile useRuntime useSpinWait vc verbose versionCompatible
    warmUp weightStreamingBudget
"""
_ONLY_10 = """
    best bf16 calib calibProfile fp16 fp8 int4 int8 layerOutputTypes layerPrecisions
    maxShapesCalib minShapesCalib optShapesCalib precisionConstraints restricted weightless
"""
_ONLY_11 = """
    accuracyAlgorithm accuracyThreshold adjustForDLA atol continue cpuOnly dryRun
    enablePluginOverride helpBuildRoute includeDataTransfers loadRefOutputs noCudaGraph
    noSpinWait refPair reportCapabilityDLA rtol saveAllEngines setBuildRoute tuneBuildRouteFile
    tuneBuildRoutes tuningCacheFile tuningResultFile tuningSearch tuningTimeOut
"""
_OPTIONS = {10: (_COMMON + _ONLY_10).split(), 11: (_COMMON + _ONLY_11).split()}
_BANNERS = {10: "[TensorRT v101401] [b48]", 11: "[TensorRT v110100] [b106]"}

_PROGRAM = """#!{python} -SE
import json, os, signal, sys
print("&&&& RUNNING TensorRT.trtexec {banner} # trtexec", *sys.argv[1:])
options = dict(argument.lstrip("-").partition("=")[::2] for argument in sys.argv[1:])
unknown = set(options) - set({options})
if unknown:
    print("[01/01/2026-00:00:00] [E] Unknown option:", *sorted(unknown))
    sys.exit(1)
if "help" in options:
    sys.exit(0)
with open("{record}", "a") as record:
    print(json.dumps(sys.argv[1:]), file=record)
try:
    fault = open("{fault}").read()
except FileNotFoundError:
    fault = ""
if "onnx" in options:
    if "skipInference" not in options or "minShapes" not in options:
        sys.exit("the stand-in has no GPU to measure on")
    if fault == "error":
        print("[01/01/2026-00:00:00] [E] [TRT] Conv_3: no implementation", flush=True)
        sys.exit(1)
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    with open(options["timingCacheFile"], "a") as timings:
        timings.write("timings")
    text = "engine of " + options["onnx"] + " complete"
    if fault == "cut off":
        text = text[:-8]
    if fault != "no file":
        with open(options["saveEngine"], "w") as engine:
            engine.write(text)
        with open(options["exportLayerInfo"], "w") as layers:
            layers.write("{{}}")
else:
    try:
        whole = open(options["loadEngine"]).read().endswith(" complete")
    except OSError as error:
        whole = False
    if not whole:
        print("[01/01/2026-00:00:00] [E] Error deserializing engine", flush=True)
        sys.exit(1)
print("&&&& PASSED TensorRT.trtexec")
"""
_NVIDIA_SMI = "#!/bin/sh\ncat {device} 2>/dev/null || {{ echo 'No devices were found'; exit 6; }}\n"


class TensorRT:
    """A folder of programs that stands for an installation of TensorRT and a GPU.

    Parameters
    ----------
    folder : Path
        New folder. Its ``bin`` goes first into the PATH.
    release : {10, 11}
    device : str
        Name of the GPU.
    """

    def __init__(self, folder: Path, release: int = 11, device: str = "NVIDIA L4, 8.9") -> None:
        self.bin = folder / "bin"
        self._fault = folder / "fault"
        self._record = folder / "record"
        self._device = folder / "device"
        self.bin.mkdir(parents=True)
        self.install(release)
        self.plug_in(device)
        self._write("nvidia-smi", _NVIDIA_SMI.format(device=self._device))

    def install(self, release: int, banner: str | None = None) -> None:
        """Replace ``trtexec`` by that of another release."""
        text = _PROGRAM.format(
            python=sys.executable,
            banner=banner if banner is not None else _BANNERS[release],
            options=_OPTIONS[release],
            record=self._record,
            fault=self._fault,
        )
        self._write("trtexec", text)

    def plug_in(self, device: str | None) -> None:
        """Replace the GPU; None removes it."""
        if device is None:
            self._device.unlink()
        else:
            self._device.write_text(f"{device}\n")

    def fail(self, fault: str) -> None:
        """Fail from now on: ``error``, ``killed``, ``no file``, ``cut off``; empty for never."""
        self._fault.write_text(fault)

    def calls(self) -> list[list[str]]:
        """Return the options of all calls since it was last asked, without those for help."""
        if not self._record.exists():
            return []
        calls = [json.loads(line) for line in self._record.read_text().splitlines()]
        self._record.unlink()
        return calls

    def compiled(self) -> list[str]:
        """Return the models and versions that were compiled since it was last asked."""
        networks = [Path(call[0].removeprefix("--onnx=")) for call in self.calls()]
        return [
            f"{path.parent.parent.name}/{path.parent.name}"
            for path in networks
            if path.suffix == ".onnx"
        ]

    def _write(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
