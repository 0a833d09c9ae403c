"""Known vulnerabilities of the packages in the lock files, by pip-audit.

``make audit`` or ``python -m supply_chain.advisories [--source URL]`` asks a source of advisories
about every package and version, also those for other versions of Python. Exit codes: 0 no advisory,
1 there are some, 2 the question was not answered.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from supply_chain.locks import LOCKS, ROOT, read_lock

if TYPE_CHECKING:
    from collections.abc import Iterable

OSV: Final = "https://api.osv.dev/v1/query"
"""The Open Source Vulnerabilities database; a mirror has the same interface."""

_CONTROL: Final = ("jinja2", "2.4.1")
"""A package with known vulnerabilities: a source that knows of none knows nothing."""

_OPTIONS: Final = (
    *("--no-deps", "--disable-pip", "--strict"),
    *("--format", "json", "--desc", "off", "--progress-spinner", "off"),
)

Package = tuple[str, str]
# Name and version.


class NoAnswerError(Exception):
    """The source of advisories cannot be reached, or its answer is not one."""


def find_advisories(packages: Iterable[Package], source: str) -> dict[Package, list[str]]:
    """Return the identifiers of advisories on each package that has any.

    Parameters
    ----------
    packages : iterable of (str, str)
        Names and versions.
    source : str
        URL of an OSV query interface.

    Raises
    ------
    NoAnswerError
        It is not known whether there are advisories.
    """
    # pip-audit takes a name once for each file, so each round has one version of it.
    rounds: list[dict[str, str]] = [dict([_CONTROL])]
    for name, version in sorted(set(packages)):
        for versions in rounds:
            if name not in versions:
                versions[name] = version
                break
        else:
            rounds.append({name: version})
    found = {package: ids for versions in rounds for package, ids in _ask(versions, source).items()}
    if not found.pop(_CONTROL):
        raise NoAnswerError(
            f"{source} knows of no vulnerability in {' '.join(_CONTROL)}, which has several: "
            "it has no advisories"
        )
    return {package: ids for package, ids in found.items() if ids}


def _ask(versions: dict[str, str], source: str) -> dict[Package, list[str]]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in versions.items())
        file.flush()
        run = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--requirement", file.name, *_OPTIONS),
                *("--vulnerability-service", "osv", "--osv-url", source),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        answers = json.loads(run.stdout)["dependencies"]
        found = {
            (answer["name"], answer["version"]): [each["id"] for each in answer["vulns"]]
            for answer in answers
        }
    except (ValueError, LookupError, TypeError):
        reason = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise NoAnswerError(f"{source} gave no answer: {reason}") from None
    missing = set(versions.items()) - set(found)
    if missing:
        raise NoAnswerError(f"{source} gave no answer on {sorted(missing)}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m supply_chain.advisories", description=__doc__)
    parser.add_argument("--source", default=OSV, help="OSV query interface (default: %(default)s)")
    parser.add_argument("locks", nargs="*", type=Path, default=[ROOT / lock for lock in LOCKS])
    options = parser.parse_args(arguments)
    packages = {(p.name, p.version) for lock in options.locks for p in read_lock(lock)}
    try:
        found = find_advisories(packages, options.source)
    except NoAnswerError as error:
        print(
            f"Nothing is known about vulnerabilities: {error}.\n"
            "Run this where the source can be reached, or name a mirror: "
            "make audit ADVISORIES=https://MIRROR/v1/query",
            file=sys.stderr,
        )
        return 2
    for (name, version), identifiers in sorted(found.items()):
        print(f"{name} {version}: {', '.join(identifiers)}")
    print(f"{len(packages)} packages, {len(found)} with advisories")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
