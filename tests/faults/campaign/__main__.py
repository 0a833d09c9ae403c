"""The command of the campaign; see the package."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults import campaign
from tests.faults.campaign.embedded import EmbeddedSite
from tests.faults.campaign.hosts import HostsSite
from tests.faults.campaign.report import write_report
from tests.faults.campaign.run import MOVES_WITHIN_S, Campaign
from tests.support.builders.synthetic_studies import generate_synthetic_study

if TYPE_CHECKING:
    from collections.abc import Sequence

SITES: Final = {"embedded": EmbeddedSite, "hosts": HostsSite}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a campaign and write the report; end with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=(campaign.__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--site", choices=SITES, default="embedded")
    parser.add_argument(
        "--models",
        action="store_true",
        help="hosts: also run Triton and a worker with the models; the embedded site always does",
    )
    parser.add_argument(
        "--folder", type=Path, help="for logs and journals, which are kept; must not exist"
    )
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="epvs-campaign-")) / options.site
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)  # PostgreSQL works under an account of its own
    print(f"logs, journals and campaign.jsonl: {folder}", flush=True)  # noqa: T201
    scan = None
    if options.models or options.site == "embedded":
        scan = generate_synthetic_study(folder.parent / "scan", seed=20)
        shutil.rmtree(scan / "t1-mprage-sagittal")  # which would not be graded
    with SITES[options.site](folder, options.seed, with_models=options.models) as site:
        site.wait_until_ready()
        outcome = Campaign(site, options.seed, options.minutes * 60, scan=scan).run()
    command = f"--minutes {options.minutes:g} --seed {options.seed} --site {options.site}"
    command += " --models" if options.models else ""
    print(write_report(options.site, command, outcome))  # noqa: T201
    print(*outcome.found.wrong[:40], sep="\n")  # noqa: T201
    if outcome.found.wrong or outcome.moved_after_s >= MOVES_WITHIN_S:
        sys.exit(1)


if __name__ == "__main__":
    main()
