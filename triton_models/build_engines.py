#!/usr/bin/env python3
"""Assemble the model repository that Triton serves, in ``TARGET/served``.

    build_engines.py tensorrt SOURCE TARGET   compile every model.fp16.onnx for this machine's GPU
    build_engines.py python   SOURCE TARGET   have the Python backend run every model.onnx (CPU)

SOURCE is laid out like the folder of this program. An engine is compiled only if its ONNX file, the
GPU or TensorRT has changed. ``served`` is a symbolic link, replaced in one step after all else has
succeeded: whatever happens to this program, Triton finds the old repository or the new one, whole.
Only the standard library of Python 3.10 is used, for NVIDIA's containers.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FP32, _FP16 = "model.onnx", "model.fp16.onnx"
_HASH_KEYS = {_FP32: "weights_sha256", _FP16: "fp16_sha256"}
"""Key in ``model.json`` of each network's SHA-256."""
_BACKENDS = {
    "tensorrt": 'platform: "tensorrt_plan"\ndefault_model_filename: "model.plan"\n'
    "instance_group [ { count: 1 kind: KIND_GPU } ]",
    "python": 'backend: "python"\ninstance_group [ { count: 1 kind: KIND_CPU } ]',
}
"""What each backend adds to a model's configuration."""


class BuildError(Exception):
    """Why the repository cannot be assembled, and what to do about it; a sentence each."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem, self.remedy = problem, remedy


# --- Models in SOURCE -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Version:
    """A version folder and what its ``model.json`` says."""

    folder: Path
    description: dict[str, Any]

    def shapes(self, batch: int) -> str:
        """Return names and shapes of the inputs, as ``trtexec`` takes them."""
        inputs = self.description["inputs"].items()  # in shapes, the batch comes first and is -1
        return ",".join(f"{name}:{'x'.join(map(str, [batch, *dims[1:]]))}" for name, dims in inputs)

    def checked(self, file: str) -> str:
        """Return the SHA-256 of a network, which must be the one that ``model.json`` says."""
        path, described = self.folder / file, self.description.get(_HASH_KEYS[file])
        if file == _FP16 and not (path.is_file() and described):  # as exported by version 0.1
            name, number = self.folder.parts[-2:]
            raise BuildError(
                f"{name}/{number} has no {file}, which TensorRT compiles.",
                f"Write it: python -m training fp16 {name} --version {number} --cohort SCANS.",
            )
        sha256 = _sha256(path) if path.is_file() else "missing"
        if sha256 != described:
            raise BuildError(
                f"{path} is not the file whose {_HASH_KEYS[file]} is in model.json.",
                "Restore both files from where they came, or export the model again.",
            )
        return sha256


@dataclass(frozen=True)
class Model:
    """A model's folder: a configuration, and versions, lowest first."""

    folder: Path
    config: str
    versions: tuple[Version, ...]

    @property
    def batches(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch; the first preferred one is the usual one."""
        fields = re.sub(r"#.*", "", self.config)
        largest = re.search(r"\bmax_batch_size\s*:\s*(\d+)", fields)
        if largest is None:
            raise BuildError(f"config.pbtxt of {self.folder} has no max_batch_size.", "Add it.")
        usual = re.search(r"\bpreferred_batch_size\s*:\s*\[?\s*(\d+)", fields) or largest
        return 1, int(usual[1]), int(largest[1])

    def served_config(self, backend: str) -> str:
        """Return the configuration with what depends on backend and versions."""
        lines = [self.config, _BACKENDS[backend], "version_policy { all { } }"]
        if backend == "tensorrt":
            # The first call of a new engine is slow: make it before the server reports ready.
            lines.append(f'model_warmup {{ name: "usual batch" batch_size: {self.batches[1]}')
            for name, dims in self.versions[-1].description["inputs"].items():
                zeros = f"data_type: TYPE_FP32 dims: {dims[1:]} zero_data: true"
                lines.append(f'  inputs {{ key: "{name}" value {{ {zeros} }} }}')
            lines.append("}")
        for version in self.versions:  # the worker compares these with model.json on every call
            key, sha256 = f"weights_sha256.{version.folder.name}", version.checked(_FP32)
            lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{sha256}" }} }}')
        return "\n".join([*lines, ""])


def read_models(source: Path) -> list[Model]:
    """Read what is to be served; raises BuildError if there is no model, or an incomplete one."""
    folders = [config.parent for config in sorted(source.absolute().glob("*/config.pbtxt"))]
    if not folders:
        problem = f"{source} holds no model: no file matches */config.pbtxt."
        raise BuildError(problem, "Name a folder that is laid out like triton_models.")
    return [_read_model(folder) for folder in folders]


def _read_model(folder: Path) -> Model:
    found = [path for path in folder.glob("[1-9]*") if path.name.isdecimal()]
    try:
        config = (folder / "config.pbtxt").read_text("utf-8")
        versions = tuple(
            Version(version, json.loads((version / "model.json").read_text("utf-8")))
            for version in sorted(found, key=lambda path: int(path.name))
        )
        inputs = {version.shapes(1) for version in versions}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(
            f"The model in {folder} is incomplete ({type(error).__name__}: {error}).",
            "Restore the file; version 0.1 had model.json one folder up.",
        ) from None
    if len(inputs) != 1:
        problem = f"{folder} must have one version, or several with the same inputs."
        raise BuildError(problem, "Add or remove version folders.")
    return Model(folder, config, versions)


def assemble(models: Sequence[Model], folder: Path, compiler: Compiler | None = None) -> None:
    """Write the repository that Triton serves.

    Parameters
    ----------
    models : sequence of Model
    folder : Path
        New folder. For each model it gets the configuration and, for each version, the engine; or
        the program of the Python backend with a link to the network in SOURCE.
    compiler : Compiler, optional
        Makes engines. Without it, the Python backend runs the networks.
    """
    for model in models:
        program = model.folder.parent / "python_backend" / "model.py"
        for version in model.versions:
            served = folder / model.folder.name / version.folder.name
            served.mkdir(parents=True)
            if compiler is not None:
                os.link(compiler.engine(model, version), served / "model.plan")
            else:
                (served / _FP32).symlink_to(version.folder / _FP32)
                shutil.copyfile(program, served / "model.py")
        config = model.served_config("tensorrt" if compiler else "python")
        (folder / model.folder.name / "config.pbtxt").write_text(config, encoding="utf-8")


# --- Engines --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Compiler:
    """``trtexec`` on this machine, and the folder that keeps the engines that it made.

    Its options are those that TensorRT 10 and 11 have in common. None sets a precision, because
    each network states its own.
    """

    trtexec: str
    release: str
    device: str
    strongly_typed: bool
    folder: Path

    @classmethod
    def find(cls, folder: Path) -> Compiler:
        """Look for TensorRT and the GPU."""
        folders = "/opt/tensorrt/bin:/usr/src/tensorrt/bin"  # where NVIDIA's images have it
        trtexec = shutil.which("trtexec", path=f"{os.environ.get('PATH', os.defpath)}:{folders}")
        if trtexec is None:
            raise BuildError("There is no trtexec here.", "Run this in NVIDIA's TensorRT image.")
        run = subprocess.run([trtexec, "--help"], capture_output=True, text=True, check=False)
        found = re.search(r"\[TensorRT v(\d+)\](?: \[b\d+\])?", run.stdout + run.stderr)
        major = int(found[1]) // 10_000 if found else None  # v101401 is 10.14.1, v8601 is 8.6.1
        release = found[0] if found else run.stdout[:100]
        if major is not None and major < 10:
            raise BuildError(f"This is {release}.", "TensorRT 10 or later is needed.")
        query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
        try:
            run = subprocess.run(query, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            detail = " ".join((getattr(error, "stdout", "") or str(error)).split())[:200]
            raise BuildError(
                f"No GPU can be used here ({detail}).",
                "Install NVIDIA's driver and Container Toolkit, or use the profile cpu.",
            ) from None
        # TensorRT 11 always takes precisions from the network. Without the option, 10 would compile
        # for FP32. It is also given to an unknown release: an error is better than a slow engine.
        return cls(trtexec, release, run.stdout.strip(), major is None or major < 11, folder)

    def engine(self, model: Model, version: Version) -> Path:
        """Return the engine of a version, compiled unless it is there."""
        key = self.key(model, version)
        plan, unfinished = self.folder / f"{key}.plan", self.folder / "unfinished.plan"
        if plan.exists():
            return plan
        name = "/".join(version.folder.parts[-2:])
        print(f"Compiling {name}: {self.release}, {self.device}.", flush=True)
        self.folder.mkdir(exist_ok=True)
        try:
            self._run(
                f"{name} was not compiled",
                f"--onnx={version.folder / _FP16}",
                f"--saveEngine={unfinished}",
                *self._options(model, version),
                "--skipInference",
                f"--timingCacheFile={self._timings}",
                f"--exportLayerInfo={self.folder / key}.layers.json",  # precision of each layer
            )
            # Read and run once, so that a file that was cut off or does not fit the GPU fails here.
            self._run(
                f"The engine of {name} does not run",
                f"--loadEngine={unfinished}",
                f"--shapes={version.shapes(model.batches[1])}",
                *("--iterations=1", "--duration=0", "--warmUp=0"),
            )
            _flush(unfinished)
            unfinished.rename(plan)
        except BuildError:
            self._timings.unlink(missing_ok=True)  # it may be the cause, and only saves time
            raise
        finally:
            unfinished.unlink(missing_ok=True)
        _flush(self.folder)
        return plan

    def key(self, model: Model, version: Version) -> str:
        """Identify an engine by what decides it: network, options, TensorRT and GPU."""
        options = self._options(model, version)
        return _digest(version.checked(_FP16), self.release, self.device, *options)

    def remove_others(self, keys: Sequence[str]) -> None:
        """Remove what belongs to engines with other keys, to another TensorRT or GPU."""
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in keys and path != self._timings:
                path.unlink()

    @property
    def _timings(self) -> Path:
        return self.folder / f"{_digest(self.release, self.device)}.timings"

    def _options(self, model: Model, version: Version) -> list[str]:
        shapes = zip(("min", "opt", "max"), map(version.shapes, model.batches), strict=True)
        options = [f"--{which}Shapes={shape}" for which, shape in shapes]
        typed = ["--stronglyTyped"] if self.strongly_typed else []
        return [*options, *typed, "--profilingVerbosity=detailed"]

    def _run(self, failure: str, *options: str) -> None:
        command, last_error, pipe = [self.trtexec, *options], "", subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                    last_error = f" {line.strip()}" if "[E]" in line else last_error
            except BaseException:  # SIGTERM and Ctrl-C too: trtexec must not go on
                process.kill()
                raise
        if process.returncode:
            how, remedy = f"status {process.returncode}", "Read its messages above."
            if process.returncode < 0:
                how = signal.Signals(-process.returncode).name
                remedy = "If memory ran out, raise mem_limit of the service."
            remedy += (
                f" {shutil.disk_usage(self.folder).free // 2**20} MiB are free in {self.folder}."
            )
            raise BuildError(f"{failure}: trtexec ended with {how}.{last_error}", remedy)


# --- TARGET ---------------------------------------------------------------------------------------
def build(backend: str, source: Path, target: Path) -> bool:
    """Bring ``target/served`` up to date; return whether it was not.

    Raises
    ------
    BuildError
        What was served before is still served.
    """
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target / "lock"):
        models = read_models(source)
        configs = [model.served_config(backend) for model in models]
        if backend == "tensorrt":
            compiler = Compiler.find(target / "engines")
            keys = [compiler.key(model, version) for model in models for version in model.versions]
        else:
            compiler = None
            program = source / "python_backend" / "model.py"
            keys = [str(source.absolute()), program.read_text("utf-8")]
        repository = target / "builds" / _digest(*configs, *keys)
        if not repository.exists():
            unfinished = repository.with_name("unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            assemble(models, unfinished, compiler)
            for path in (*unfinished.rglob("*"), unfinished):
                _flush(path)
            unfinished.rename(repository)
            _flush(repository.parent)
        changed = _serve(target / "served", repository)
        for path in repository.parent.iterdir():
            if path != repository:
                shutil.rmtree(path)
        if compiler is not None:
            compiler.remove_others(keys)
        return changed


def _serve(served: Path, repository: Path) -> bool:
    """Let the link point to a repository; return whether it did not before."""
    destination = repository.relative_to(served.parent)
    if served.is_symlink() and served.readlink() == destination:
        return False
    if served.is_dir() and not served.is_symlink():  # as version 0.1 had it
        served.rename(repository.with_name("earlier"))
    link = served.with_name("served.new")
    link.unlink(missing_ok=True)
    link.symlink_to(destination)
    link.replace(served)
    _flush(served.parent)
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the system releases when the process ends, however it ends."""
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another build of this repository.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(path: Path) -> None:
    """Have a file or folder written to the disk, before anything refers to it."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def main() -> int:
    """Run the command line; see the module."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("backend", choices=sorted(_BACKENDS))
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("target", type=Path, metavar="TARGET")
    options = parser.parse_args()
    os.umask(0o022)  # Triton runs under another account
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        changed = build(options.backend, options.source, options.target)
    except (BuildError, OSError) as error:
        problem = str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            problem = f"The disk of {options.target} is full ({error}). Make room and start again."
        earlier = "kept" if (options.target / "served").exists() else "missing"
        print(f"{problem}\nNothing was built; what was served is {earlier}.", file=sys.stderr)
        return 1
    print(f"The {options.backend} repository is {'built' if changed else 'up to date'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
