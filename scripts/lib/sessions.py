"""Sessions: three downloads at once behind one mobile node while it moves.

Two laptops on its LAN, with a stock DHCP client and no Mobile IP, and a command that it
runs, each with a home address of its own from the home agent, download the same file.
Beside each, UDP probes each way measure what every move costs that session.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import agents
import captures
from agents import CORRESPONDENT, Choices
from lab import LabError, run, wait_until
from measure import Flow
from topologies import SESSIONS
from tour import MOST_OUTAGE_MS, PROBE_PORT, Download, Itinerary, Probes, Tour, roam

# 250 a second each way and session see an outage to 4 ms.
RATE = 250
COMMAND_SESSION = "call"
DEVICES = ("laptop1", "laptop2")


def itinerary(choices: Choices) -> Itinerary:
    """The moves of `roam`."""
    return replace(roam(choices), topology=SESSIONS, title="Three downloads behind one mobile node while it moves")


class Until:
    """Probes of a session that ends with its download: what comes later is nobody's."""

    def __init__(self, flow: Flow, download: Download):
        self.flow, self.download = flow, download

    def _end(self, end: int) -> int:
        return min(end, self.download.done_at or end)

    def lost(self, start: int, end: int) -> int:
        """As `Flow.lost`."""
        return self.flow.lost(start, max(start, self._end(end)))

    def longest_gap(self, start: int, end: int) -> int:
        """As `Flow.longest_gap`."""
        return self.flow.longest_gap(start, max(start, self._end(end)))


class Together:
    """Several downloads, or the probes of several sessions, as if they were one."""

    def __init__(self, downloads: list[Download], probes: list[Probes]):
        self.downloads, self.probes = downloads, probes
        self.size = sum(one.size for one in downloads)
        self.started = min(one.started for one in downloads)
        # The one that fails tells for all.
        self.curl = downloads[0].curl

    @property
    def received(self) -> int:
        """Bytes that have come."""
        return sum(one.received for one in self.downloads)

    @property
    def samples(self) -> list[tuple[int, int]]:
        """When how many came."""
        return sorted(sample for one in self.downloads for sample in one.samples)

    @property
    def done_at(self) -> int | None:
        """When the last was done."""
        ends = [one.done_at for one in self.downloads]
        return None if None in ends else max(ends)

    def running(self) -> bool:
        """Whether any goes on; none, once one has failed."""
        for one in self.downloads:
            if not one.running() and one.curl.returncode != 0:
                self.curl = one.curl
                return False
        return any(one.running() for one in self.downloads)

    @property
    def flows(self) -> list:
        """Of all sessions, both ways."""
        return [flow for probes, download in zip(self.probes, self.downloads) for flow in flows_of(probes, download)]

    def stop(self) -> None:
        """Ends the probes."""
        for one in self.probes:
            one.stop()


def flows_of(probes: Probes, download: Download) -> list[Until]:
    """A session's flows, both ways, while it lasts."""
    return [Until(flow, download) for flow in probes.flows]


class Sessions(Tour):
    """One run."""

    def __init__(self, options, choices: Choices, directory: Path):
        super().__init__(options, itinerary(choices), directory)
        # Name of the program's log, address and probes of each.
        self.sessions: dict[str, tuple[str, Download, Probes]] = {}
        # What the mobile node calls the session of an address.
        self.names: dict[str, str] = {}
        self.right: dict[str, bool] = {}

    def prepare(self) -> None:
        """The lab and its agents; then each laptop asks for an address."""
        super().prepare()
        script = Path(__file__).with_name("udhcpc.script")
        for node in DEVICES:
            self.lab.start(node, f"udhcpc-{node}", "busybox", "udhcpc", "-f", "-i", "eth0", "-s", script, "-x",
                           f"hostname:{node}")
        for node in DEVICES:
            if not wait_until(lambda node=node: self.address_of(node), 15):
                raise LabError(f"{node} has no address by DHCP: {self.directory}/udhcpc-{node}.log, mn.log")
            self.screen.step(f"{node} has the home address {self.address_of(node)}, by DHCP from the mobile node")

    def address_of(self, node: str) -> str | None:
        """The address on a laptop's interface."""
        shown = json.loads(self.lab.exec(node, "ip", "-4", "-json", "address", "show", "dev", "eth0"))
        return next((one["local"] for link in shown for one in link.get("addr_info", ())), None)

    def listed(self) -> list[dict]:
        """The mobile node's own list of its sessions."""
        shown = run(self.binaries / "homeport-mn", "--socket", self.lab.run / "mn.sock", "session", "list", "--json")
        answer = json.loads(shown)
        return answer["sessions"] if isinstance(answer, dict) else answer

    def load(self) -> tuple[Together, Together]:
        """A download and probes in each session."""
        downloads, probes = [], []
        program = self.binaries / "homeport-probe"
        for number, node in enumerate(DEVICES):
            address = self.address_of(node)
            probes.append(Probes(self.lab, program, node, address, PROBE_PORT + number, RATE))
        before = (self.binaries / "homeport-mn", "--socket", self.lab.run / "mn.sock", "run", "--session",
                  COMMAND_SESSION, "--")
        for node in DEVICES:
            downloads.append(Download(self.lab, self.options.bytes, node, f"curl-{node}"))
        downloads.append(Download(self.lab, self.options.bytes, "mn", f"curl-{COMMAND_SESSION}", before))
        found: dict = {}

        def begun() -> bool:
            found.update(next((one for one in self.listed() if one["kind"] == "command"), {}))
            return bool(found.get("home_address")) and self.inside(downloads[-1].curl.pid) is not None

        if not wait_until(begun, 10):
            raise LabError(f"the session of the command did not begin: {self.directory}/curl-{COMMAND_SESSION}.log")
        inside = ("nsenter", f"--net=/proc/{self.inside(downloads[-1].curl.pid)}/ns/net")
        probes.append(Probes(self.lab, program, "mn", found["home_address"], PROBE_PORT + len(DEVICES), RATE, inside))
        if not wait_until(lambda: all(len(flow.arrivals) > 20 for one in probes for flow in one.flows), 10):
            raise LabError("the probes do not arrive")
        addresses = [self.address_of(node) for node in DEVICES] + [found["home_address"]]
        self.names = {one["home_address"]: one["name"] for one in self.listed()}
        for name, address, *both in zip((*DEVICES, COMMAND_SESSION), addresses, downloads, probes):
            self.sessions[name] = (address, *both)
        together = Together(downloads, probes)
        self.screen.step(f"{len(downloads)} downloads of {self.options.bytes / 1e6:.0f} MB have begun, from "
                         + ", ".join(addresses))
        return together, together

    @staticmethod
    def inside(pid: int) -> int | None:
        """The curl that runs below a process."""
        below = {pid}
        for _ in range(6):
            for entry in Path("/proc").iterdir():
                try:
                    if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in below:
                        if (entry / "comm").read_text().strip() == "curl":
                            return int(entry.name)
                        below.add(int(entry.name))
                except OSError:
                    continue
        return None

    def note_bindings(self) -> None:
        """Beside the bindings, whose address is whose by now."""
        super().note_bindings()
        for name, (address, *_) in self.sessions.items():
            now = self.address_of(name) if name in DEVICES else next(
                (one["home_address"] for one in self.listed() if one["kind"] == "command"), address)
            if now != address:
                self.problems.append(f"at {self.moves[-1].target} {name} has the address {now}, not {address}")
        for one in self.listed():
            if one["state"] not in ("registered", "home"):
                self.problems.append(f"at {self.moves[-1].target} the session {one['name']} is {one['state']}")
        shown = run(self.binaries / "homeport-mn", "--socket", self.lab.run / "mn.sock", "session", "list", check=False)
        with open(self.directory / "sessions.txt", "a", encoding="utf-8") as file:
            file.write(f"# at {self.moves[-1].target}\n{shown.rstrip()}\n\n")

    def judge_download(self, download: Together, expected: str, name: str = "curl") -> bool:
        """Each of them."""
        self.right = {name: super(Sessions, self).judge_download(one, expected, f"curl-{name}")
                      for name, (_, one, _) in self.sessions.items()}
        return all(self.right.values())

    def perform(self) -> dict:
        """What a tour has, and of each session what the moves cost it."""
        report = super().perform()
        report["sessions"] = []
        for name, (address, download, probes) in self.sessions.items():
            costs = [move.cost(flows_of(probes, download), move.end) for move in self.moves]
            worst = round(max((outage for outage, _ in costs), default=0.0), 1)
            report["sessions"].append({
                "session": name, "sub_nai": self.names.get(address, name), "address": address,
                "sha256_ok": self.right[name], "worst_outage_ms": worst,
                "probes_lost": sum(lost for _, lost in costs)})
            if worst > MOST_OUTAGE_MS:
                self.problems.append(f"a move cost {name} {worst:.0f} ms: more than {MOST_OUTAGE_MS}")
        addresses = {one["address"] for one in report["sessions"]}
        if len(addresses) != len(self.sessions):
            self.problems.append("two sessions have the same address")
        report["session_messages"] = self.count_names()
        return report

    def count_names(self) -> dict[str, int]:
        """How many messages of the run carry a NAI, and a vendor extension, as tshark reads
        them on the home agent's link."""
        shown = run("tshark", "-n", "-r", self.directory / "core-ha.pcap", "-Y", "mip.ext.type == 134",
                    "-T", "fields", "-e", "mip.nai", "-e", "mip.ext.nvse.vendor_id", "-e", "mip.ext.nvse.vendor_type")
        rows = [line.split("\t") for line in shown.splitlines()]
        counts = {"nai": sum(1 for row in rows if re.fullmatch(re.escape(agents.NAI), row[0])),
                  "vendor": sum(1 for row in rows if len(row) > 2 and row[1] == "32473" and row[2] == "1")}
        if not counts["nai"] or not counts["vendor"]:
            self.problems.append(f"tshark finds no message with the names of sessions: {counts}")
        return counts

    def conclude(self, report: dict) -> None:
        """The sessions, below the tour's own tables."""
        super().conclude(report)
        print(f"\n  {'session':12}{'home address':16}{'worst outage':>14}{'probes lost':>14}   sha256")
        for one in report["sessions"]:
            print(f"  {one['session']:12}{one['address']:16}{one['worst_outage_ms']:11.1f} ms{one['probes_lost']:14}   "
                  f"{'ok' if one['sha256_ok'] else 'WRONG'}")
        print(f"  named        {report['session_messages']['nai']} messages with NAI and sub-NAI")
