"""What docker-compose.yml reads from its folder: ``.env`` and ``secrets/``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.machine.check import MachineCheck
from node.machine.requirements import CONTAINERS, CPU, CPU_VARIABLES, GPU, PORT, SECRETS

if TYPE_CHECKING:
    from pathlib import Path

_NEEDED = ("docker-compose.yml", "docker/env.example", "docker/make-secrets.sh")


def read_variables(folder: Path) -> dict[str, str] | None:
    """Return the variables of ``.env``; None where there is none."""
    try:
        lines = (folder / ".env").read_text(errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, value in pairs}


def profiles_of(variables: dict[str, str] | None) -> set[str]:
    """Return the profiles that ``.env`` chooses."""
    chosen = (variables or {}).get("COMPOSE_PROFILES", "")
    return {name.strip() for name in chosen.split(",") if name.strip()}


def published_port(variables: dict[str, str] | None) -> int:
    """Return the port at which the compose file offers the receiver."""
    try:
        return int((variables or {})["RECEIVER_PORT"])
    except (KeyError, ValueError):
        return PORT


def cpu_limits(variables: dict[str, str] | None) -> dict[str, float]:
    """Return the limits on CPUs that ``.env`` sets, by variable."""
    limits = {}
    for name in CPU_VARIABLES:
        try:
            limits[name] = float((variables or {})[name])
        except (KeyError, ValueError):
            continue
    return limits


def check_checkout(folder: Path) -> MachineCheck:
    """Check that the folder holds what compose needs: it is not part of the Python package."""
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    return MachineCheck(
        "checkout",
        not missing,
        f"{folder} lacks {', '.join(missing)}" if missing else f"{folder}",
        "Run the command in a clone of the repository.",
        needed_by=CONTAINERS,
    )


def check_variables(variables: dict[str, str] | None) -> MachineCheck:
    """Check ``.env``: the profile and the callers must be in it."""
    problems = []
    if variables is None:
        problems.append("not there yet")
    else:
        if len(profiles_of(variables) & {GPU, CPU}) != 1:
            problems.append("COMPOSE_PROFILES must name one of gpu and cpu")
        if not variables.get("EPVS_CALLERS"):
            problems.append("EPVS_CALLERS is empty")
    return MachineCheck(
        ".env",
        True,
        "; ".join(problems) or "profile and callers are set",
        "cp docker/env.example .env, then set COMPOSE_PROFILES and EPVS_CALLERS."
        if variables is None
        else "Set it in .env; docker/env.example has an explanation of each line.",
        warning=bool(problems),
        needed_by=CONTAINERS,
    )


def check_secrets(folder: Path) -> MachineCheck:
    """Check that the passwords of database and broker have been made."""
    secrets = folder / "secrets"
    try:
        present = {path.name for path in secrets.iterdir()} if secrets.is_dir() else set()
        missing = [name for name in SECRETS if name not in present]
        problem = f"missing: {', '.join(missing)}" if missing else ""
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    return MachineCheck(
        "secrets/",
        True,
        problem or "complete",
        "Run sh docker/make-secrets.sh, under the account that runs docker compose.",
        warning=bool(problem),
        needed_by=CONTAINERS,
    )
