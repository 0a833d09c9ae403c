"""All checks of the machine, and a verdict on each profile."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from core.text import printable
from node.machine import configuration, engine, gpu, host
from node.machine.requirements import CONTAINERS, CPU, EMBEDDED, GPU, PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from node.machine.check import MachineCheck

_TITLES = {
    GPU: "profile gpu (containers, TensorRT)",
    CPU: "profile cpu (containers, ONNX Runtime)",
    EMBEDDED: "make up (no containers)",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a machine can run a profile.

    Parameters
    ----------
    profile : str
        One of `node.machine.requirements.PROFILES`.
    can_run : bool
    reasons : list of str
        What prevents it.
    to_do : list of str
        What to do or to look at before the start.
    """

    profile: str
    can_run: bool
    reasons: list[str]
    to_do: list[str]


@dataclass(frozen=True)
class Report:
    """Checks of a machine, verdicts, and the profile that ``.env`` chooses, if any."""

    checks: list[MachineCheck]
    verdicts: list[Verdict]
    chosen: str = ""

    @property
    def can_run(self) -> bool:
        """Whether the chosen profile can run; without a choice, any."""
        wanted = [v for v in self.verdicts if self.chosen in ("", v.profile)]
        return any(verdict.can_run for verdict in wanted)

    def as_json(self) -> str:
        """Return the report as a JSON object."""
        return json.dumps(
            {
                "checks": [check.as_dict() for check in self.checks],
                "verdicts": [asdict(verdict) for verdict in self.verdicts],
                "chosen": self.chosen,
                "can_run": self.can_run,
            },
            indent=2,
        )

    def as_text(self) -> str:
        """Return one line per check, its remedy below it, and one line per verdict."""
        return "\n".join([*self._lines_of_checks(), "", *self._lines_of_verdicts()])

    def _lines_of_checks(self) -> Iterator[str]:
        for check in self.checks:
            mark = "FAIL" if not check.ok else "warn" if check.warning else "ok  "
            concerned = "" if check.needed_by == PROFILES else f" [{', '.join(check.needed_by)}]"
            yield printable(f"{mark} {check.name}: {check.detail}{concerned}")
            if check.remedy and mark != "ok  ":
                yield printable(f"     → {check.remedy}")

    def _lines_of_verdicts(self) -> Iterator[str]:
        for verdict in self.verdicts:
            if not verdict.can_run:
                answer = f"no: {'; '.join(verdict.reasons)}"
            elif verdict.to_do:
                answer = f"yes; see above: {', '.join(verdict.to_do)}"
            else:
                answer = "yes"
            mark = " (chosen in .env)" if verdict.profile == self.chosen else ""
            yield printable(f"{_TITLES[verdict.profile]}{mark}: {answer}")


def examine(folder: Path) -> Report:
    """Check this machine.

    Parameters
    ----------
    folder : Path
        A clone of the repository, which may hold ``.env`` and ``secrets/``.
    """
    variables = configuration.read_variables(folder)
    checks = list(_checks(folder, variables))
    chosen = sorted(configuration.profiles_of(variables) & set(CONTAINERS))
    return Report(checks, [_judge(p, checks) for p in PROFILES], "".join(chosen[:1]))


def _checks(folder: Path, variables: dict[str, str] | None) -> Iterator[MachineCheck]:
    yield host.check_architecture()
    docker, check = engine.find_engine()
    yield check
    if docker.reachable:
        yield engine.check_compose()
        yield from engine.check_storage(docker)
    yield engine.check_subnet(docker)
    cards = list(gpu.check_gpu())
    yield from cards
    if docker.reachable and cards[0].ok:
        yield gpu.check_toolkit(docker)
    yield from host.check_memory(docker)
    yield host.check_cpus(docker, configuration.cpu_limits(variables))
    chosen = configuration.profiles_of(variables)
    port = configuration.published_port(variables)
    yield from host.check_ports(port, with_demo_pacs="orthanc" in chosen)
    yield from host.check_embedded(folder)
    yield configuration.check_checkout(folder)
    yield configuration.check_variables(variables)
    yield configuration.check_secrets(folder)


def _judge(profile: str, checks: list[MachineCheck]) -> Verdict:
    concerned = [check for check in checks if profile in check.needed_by]
    reasons = [f"{check.name}: {check.detail}" for check in concerned if not check.ok]
    to_do = [check.name for check in concerned if check.ok and check.warning]
    return Verdict(profile, not reasons, reasons, to_do)
