"""One campaign: faults while studies are sent, then mending, draining and checking."""

from __future__ import annotations

import bisect
import heapq
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from sqlalchemy import func, select

from core.errors import Unavailable
from db.models import AuditEvent
from db.session import unit_of_work
from tests.faults.campaign.checks import Found, check, find_canary_in_logs, is_drained
from tests.faults.campaign.schedule import MEAN_GAP_S, plan
from tests.faults.campaign.senders import Sender, SenderOfScans

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.campaign.site import Site

MOVES_WITHIN_S: Final = 60.0
"""After everything was mended, work must have moved."""
DRAINS_WITHIN_S: Final = 600.0
"""A delivery that failed several times waits for minutes."""
SCAN_EVERY_S: Final = 60.0
"""A scan takes 28 MB of the data folder's small disk."""
_PROGRESS: Final = ("graded", "rejected", "delivery-done")


@dataclass
class Outcome:
    """Figures of a campaign."""

    faults: Counter[str] = field(default_factory=Counter)
    archives: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    ended_by_themselves: Counter[str] = field(default_factory=Counter)
    returns_s: list[float] = field(default_factory=list)
    """Seconds from the mending of the last of several faults to the next result, where no other
    fault began before."""
    moved_after_s: float = 0.0
    drained_after_s: float = 0.0
    lasted_s: float = 0.0
    found: Found = field(default_factory=Found)


class Campaign:
    """Runs on a site that has started.

    Parameters
    ----------
    site : Site
    seed : int
    seconds : float
        How long faults begin.
    n_senders : int
    pause_s : float
        Of a sender, between two studies.
    mean_gap_s : float
        Between two faults.
    scan : Path, optional
        Folder of a scan that is sent too.
    """

    def __init__(
        self,
        site: Site,
        seed: int,
        seconds: float,
        *,
        n_senders: int = 2,
        pause_s: float = 3.0,
        mean_gap_s: float = MEAN_GAP_S,
        scan: Path | None = None,
    ) -> None:
        self._site, self._seed, self._seconds = site, seed, seconds
        self._mean_gap_s = mean_gap_s
        self._senders = [
            Sender(number, seed, site.receivers, self._journal(number), pause_s)
            for number in range(n_senders)
        ]
        if scan is not None:
            sender = (n_senders, seed, site.receivers, self._journal(n_senders), SCAN_EVERY_S)
            self._senders.append(SenderOfScans(scan, *sender))
        self._began = time.monotonic()
        self._ends: list[tuple[float, int, Callable[[], bool]]] = []
        self._without_fault: list[tuple[datetime, datetime]] = []
        self._well_since: datetime | None = None
        self._numbers = itertools.count()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run the campaign; everything is mended and drained afterwards, and the parts stopped."""
        with (self._site.folder / "campaign.jsonl").open("a") as log:
            for sender in self._senders:
                sender.start()
            self._cause_faults(log)
            self._mend(log)
            self._drain(log)
            self.outcome.found = check(self._site)
            self._measure_returns()
            self.outcome.found.other += self._site.stop_parts()
            self.outcome.found.other += find_canary_in_logs(self._site)
            self._note(log, "checked", wrong=self.outcome.found.wrong)
        for archive in self._site.archives:
            self.outcome.archives += archive.faults
        for sender in self._senders:
            self.outcome.statuses += sender.statuses
        self.outcome.lasted_s = time.monotonic() - self._began
        return self.outcome

    def _journal(self, number: int) -> Path:
        return self._site.folder / f"acknowledged-{number}.jsonl"

    def _cause_faults(self, log: TextIO) -> None:
        for planned in plan(self._seed, self._seconds, self._site.kinds, self._mean_gap_s):
            self._pass_time(log, self._began + planned.at_s)
            end = self._site.begin(planned.kind, planned.number)
            if end is None:  # its target has a fault already
                self._note(log, "left out", kind=planned.kind)
                continue
            self._note_times(is_well=False)
            self.outcome.faults[planned.kind] += 1
            self._note(log, "fault", kind=planned.kind, lasts_s=round(planned.lasts_s, 2))
            heapq.heappush(
                self._ends, (time.monotonic() + planned.lasts_s, next(self._numbers), end)
            )
        self._pass_time(log, self._began + self._seconds)

    def _pass_time(self, log: TextIO, until: float) -> None:
        """Mend what is due, and start what has ended by itself, as a supervisor does."""
        while (now := time.monotonic()) < until:
            if self._ends and self._ends[0][0] <= now:
                _, number, end = heapq.heappop(self._ends)
                if not end():
                    heapq.heappush(self._ends, (now + 0.1, number, end))
                elif not self._ends:
                    self._note_times(is_well=True)
            for part in self._site.parts:
                if part.ended_by_itself():
                    self.outcome.ended_by_themselves[part.name] += 1
                    self._note(log, "ended by itself", part=part.name)
                    part.start()
            time.sleep(0.02)

    def _note_times(self, *, is_well: bool) -> None:
        """Note that the last fault was mended, or that another begins."""
        now = datetime.now(UTC)
        if self._well_since is not None:
            self._without_fault.append((self._well_since, now))
        self._well_since = now if is_well else None

    def _measure_returns(self) -> None:
        """Find the first result after each time at which everything was well again."""
        with unit_of_work(self._site.engine, read_only=True) as session:
            results = select(AuditEvent.at).where(AuditEvent.event.in_(_PROGRESS))
            times = sorted(session.scalars(results))
        for began, ended in self._without_fault:
            position = bisect.bisect(times, began)
            following = times[position] if position < len(times) else ended
            if following <= ended:
                self.outcome.returns_s.append((following - began).total_seconds())
            elif (ended - began).total_seconds() > MOVES_WITHIN_S:
                self.outcome.found.stuck.append(f"no result between {began} and {ended}")
        for seconds in self.outcome.returns_s:
            if seconds > MOVES_WITHIN_S:
                self.outcome.found.stuck.append(f"no result for {seconds:.0f} s")

    def _mend(self, log: TextIO) -> None:
        """End every fault, and let archives behave."""
        while self._ends:
            self._pass_time(log, time.monotonic() + 0.1)
        self._note_times(is_well=False)
        for archive in self._site.archives:
            archive.misbehaves = False
        self._note(log, "mended")

    def _drain(self, log: TextIO) -> None:
        """Wait until work has moved, stop the senders, and wait until nothing waits."""
        began, before = time.monotonic(), self._results()
        self._wait(log, lambda: self._results() > before or self._is_drained(), MOVES_WITHIN_S)
        self.outcome.moved_after_s = time.monotonic() - began
        self._note(log, "moved", after_s=round(self.outcome.moved_after_s, 1))
        for sender in self._senders:
            sender.stopped.set()
        self._wait(log, lambda: not any(each.is_alive() for each in self._senders), 120.0)
        self._wait(log, self._is_drained, DRAINS_WITHIN_S)
        self.outcome.drained_after_s = time.monotonic() - began
        self._note(log, "drained", after_s=round(self.outcome.drained_after_s, 1))

    def _wait(self, log: TextIO, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait for a condition; if it never holds, the checks say what is wrong."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and not condition():
            self._pass_time(log, time.monotonic() + 0.2)

    def _results(self) -> int:
        try:
            with unit_of_work(self._site.engine, read_only=True) as session:
                counted = select(func.count()).where(AuditEvent.event.in_(_PROGRESS))
                return session.scalar(counted) or 0
        except Unavailable:
            return 0

    def _is_drained(self) -> bool:
        try:
            return is_drained(self._site)
        except Unavailable:
            return False

    def _note(self, log: TextIO, event: str, **values: Any) -> None:
        at_s = round(time.monotonic() - self._began, 2)
        log.write(json.dumps({"at_s": at_s, "event": event, **values}) + "\n")
        log.flush()
