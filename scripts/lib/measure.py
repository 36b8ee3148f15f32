"""The arithmetic of probes: what was lost, and how long it was quiet.

All times are nanoseconds of the machine's monotonic clock, which all namespaces
share.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Iterable


@dataclass
class Flow:
    """Probes of one direction: when each was sent, by its number, and when it arrived."""

    name: str
    sent: list[int] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=dict)
    arrivals: list[int] = field(default_factory=list)
    duplicates: int = 0
    # The two ends are read by two threads, while a third looks on.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def lost(self, start: int, end: int) -> int:
        """Probes sent in [start, end), or refused by their sender's kernel, that never arrived."""
        with self.lock:
            numbers = range(bisect_left(self.sent, start), bisect_left(self.sent, end))
            return sum(1 for number in numbers if number not in self.arrived)

    def longest_gap(self, start: int, end: int) -> int:
        """The longest time without an arrival that touches [start, end).

        A silence that begins before the window or lasts beyond it counts whole; with no
        arrival on one side of the window, it is reckoned from the window's border.
        """
        with self.lock:
            arrivals = self.arrivals
            first = bisect_left(arrivals, start)
            last = bisect_left(arrivals, end)
            times = arrivals[max(first - 1, 0):last + 1]
        if not times or times[0] > start:
            times = [start, *times]
        if times[-1] < end:
            times = [*times, end]
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=0)


def read_line(line: str, outgoing: Flow, incoming: Flow) -> None:
    """Takes one line of homeport-probe into its two flows."""
    kind, *numbers = line.split()
    if kind == "r":
        number, _, arrived = map(int, numbers)
        with incoming.lock:
            if number in incoming.arrived:
                incoming.duplicates += 1
                return
            incoming.arrived[number] = arrived
            incoming.arrivals.append(arrived)
    elif kind in ("s", "e"):
        number, sent = map(int, numbers[:2])
        with outgoing.lock:
            if number != len(outgoing.sent):
                raise ValueError(f"probe {number} after {len(outgoing.sent)} others: {line!r}")
            outgoing.sent.append(sent)
            if kind == "e":
                outgoing.refused[number] = int(numbers[2])
    else:
        raise ValueError(f"a line that is no prober's: {line!r}")


@dataclass
class Move:
    """One move of the mobile node and what it cost."""

    origin: str
    target: str
    start: int
    end: int | None = None

    def cost(self, flows: Iterable[Flow], now: int) -> tuple[float, int]:
        """(outage in ms, probes lost) of both directions, until the next move or `now`."""
        end = self.end or now
        flows = list(flows)
        outage = max(flow.longest_gap(self.start, end) for flow in flows)
        return outage / 1e6, sum(flow.lost(self.start, end) for flow in flows)


def bins(samples: list[tuple[int, int]], start: int, end: int, width: int) -> list[int]:
    """Bytes that arrived in each `width` ns of [start, end), from (time, bytes) samples."""
    counts = [0] * max(1, -(-(end - start) // width))
    for at, amount in samples:
        if start <= at < end:
            counts[(at - start) // width] += amount
    return counts
