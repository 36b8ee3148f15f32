"""A tour: a TCP download keeps running while a mobile node moves.

A correspondent serves a file over HTTP; curl in the mobile node downloads it to the
node's home address, while the node goes from network to network. Beside it, 1,000 UDP
probes a second each way measure what every move costs.
"""

import argparse
import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import agents
import captures
import plot
from agents import CORRESPONDENT, Choices
from lab import Lab, LabError, run, wait_until
from measure import Flow, Move, bins, read_line
from runs import Run, machine
from screen import BOLD, CYAN, DIM, GREEN, RED, YELLOW, bar, sparkline
from topologies import NAT, ROAM, Topology

FIRST_MOVE_SECONDS = 3.2
STAY_SECONDS = 4.0
PATIENCE_SECONDS = 60
PROBES_PER_SECOND = 1000
PROBE_PORT = 7007
HTTP_PORT = 8080
MOST_OUTAGE_MS = 100
MOST_REST_CPU = 5.0
BIN_NS = 100_000_000
# What the probers have seen is known here this much later.
PROBE_LAG_NS = 150_000_000


class Stop(NamedTuple):
    """Where the tour goes: the network, what the table calls it, and the encapsulation there."""

    network: str
    name: str
    encap: str


@dataclass(frozen=True)
class Itinerary:
    """A tour's plan."""

    topology: Topology
    choices: Choices
    stops: tuple[Stop, ...]
    # (node, interface, file name) of each capture.
    captures: tuple[tuple[str, str, str], ...]
    # What it is called on the plot.
    title: str

    @property
    def seconds(self) -> float:
        """The download is paced to this length, so that it spans all moves."""
        return FIRST_MOVE_SECONDS + len(self.stops) * STAY_SECONDS


LINKS = (("r", "ha", "core-ha"), ("sw", "home", "link-home"), ("sw", "mn", "link-mobile-node"))


def roam(choices: Choices) -> Itinerary:
    """Both foreign agents and a co-located care-of address, with one encapsulation."""
    # A node alone behind no NAT asks for UDP by force; foreign agents are told to.
    stops = (Stop("visited1", "fa1", choices.encap), Stop("visited2", "fa2", choices.encap),
             Stop("visited3", "co-located", choices.encap), Stop("home", "home", "none"))
    return Itinerary(ROAM, choices, stops,
                     (*LINKS, ("r", "fa1", "core-fa1"), ("r", "fa2", "core-fa2"), ("r", "gw", "core-gw")),
                     "A TCP download while the node moves")


def nat(choices: Choices) -> Itinerary:
    """Behind a masquerade, behind a narrow link, behind both."""
    through = {"rfc3519": "udp", "challenge": "plain-udp"}[choices.nat_traversal]
    stops = (Stop("nat", "nat", through), Stop("narrow", "narrow", choices.encap),
             Stop("both", "both", through), Stop("home", "home", "none"))
    return Itinerary(NAT, choices, stops,
                     (*LINKS, ("r", "masq", "core-masq"), ("r", "thin", "core-thin"), ("r", "deep", "core-deep")),
                     f"A TCP download through masquerades and a link of 1,280 bytes ({choices.nat_traversal})")


class Download:
    """curl in the mobile node, its output read, counted and hashed here."""

    def __init__(self, lab: Lab, size: int, node: str = "mn", name: str = "curl",
                 before: tuple[object, ...] = (), source: str | None = None):
        self.size = size
        self.received = 0
        self.samples: list[tuple[int, int]] = []
        self.done_at: int | None = None
        self._digest = hashlib.sha256()
        self.started = time.monotonic_ns()
        source_words = ("--interface", source) if source else ()
        self.curl = lab.start(
            node, name, *before, "curl", "--silent", "--show-error", "--fail", *source_words,
            "--no-buffer", f"http://{CORRESPONDENT}:{HTTP_PORT}/download",
            stdout=subprocess.PIPE, stderr=open(lab.directory / f"{name}.log", "wb"), bufsize=0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while block := self.curl.stdout.read(1 << 18):
            self.samples.append((time.monotonic_ns(), len(block)))
            self.received += len(block)
            self._digest.update(block)
        self.curl.wait()
        self.done_at = time.monotonic_ns()

    def running(self) -> bool:
        """Whether it goes on."""
        return self.done_at is None

    def sha256(self) -> str:
        """Of what has arrived."""
        self._reader.join(timeout=5)
        return self._digest.hexdigest()


class Probes:
    """homeport-probe in the correspondent and in the mobile node, or behind it."""

    def __init__(self, lab: Lab, program: Path, node: str = "mn", address: str = agents.HOME_ADDRESS,
                 port: int = PROBE_PORT, rate: int = PROBES_PER_SECOND, before: tuple[object, ...] = ()):
        self.down = Flow("correspondent → mobile node")
        self.up = Flow("mobile node → correspondent")
        self._children = []
        self._readers = []
        ends = ((CORRESPONDENT, address, "cn", (), self.down, self.up),
                (address, CORRESPONDENT, node, before, self.up, self.down))
        for own, peer, where, words, outgoing, incoming in ends:
            name = f"probe-{where}-{port}"
            child = lab.start(where, name, *words, program, "--bind", f"{own}:{port}",
                              "--peer", f"{peer}:{port}", "--rate", rate,
                              stdout=subprocess.PIPE, text=True,
                              stderr=open(lab.directory / f"{name}.log", "wb"))
            reader = threading.Thread(target=self._read, args=(child, outgoing, incoming), daemon=True)
            reader.start()
            self._children.append(child)
            self._readers.append(reader)

    @staticmethod
    def _read(child: subprocess.Popen, outgoing: Flow, incoming: Flow) -> None:
        for line in child.stdout:
            read_line(line, outgoing, incoming)

    @property
    def flows(self) -> tuple[Flow, Flow]:
        """Both directions."""
        return self.down, self.up

    def stop(self) -> None:
        """Ends the sending and waits for what is still on its way."""
        for child in self._children:
            child.terminate()
        for child, reader in zip(self._children, self._readers):
            child.wait(timeout=10)
            reader.join(timeout=10)


class Tour(Run):
    """One run."""

    def __init__(self, options: argparse.Namespace, itinerary: Itinerary, directory: Path):
        super().__init__(options, itinerary.topology, directory)
        self.plan = itinerary
        self.moves: list[Move] = []
        # The encapsulation after each move.
        self.encaps: list[str] = []

    def main(self) -> dict:
        """Everything, from the first namespace to the last; the report."""
        with self.alone():
            self.prepare()
            report = self.perform()
        self.conclude(report)
        return report

    # Before.

    def prepare(self) -> None:
        """Lays the lab and starts the agents."""
        step = self.screen.step
        choices, topology = self.plan.choices, self.plan.topology
        self.lab.up(choices)
        step(f"the lab is laid: {topology.summary}")
        self.lab.start_agents(choices, record=True)
        step(f"the agents run, on {choices.ports} ports")
        reached = wait_until(
            lambda: "1 received" in self.lab.exec("mn", "ping", "-n", "-c1", "-W1", "-I", agents.HOME_ADDRESS,
                                                  CORRESPONDENT, check=False), 15, step=0.2)
        if not reached:
            raise LabError("the mobile node, at home, does not reach the correspondent")
        step(f"the mobile node is at home: {agents.HOME_ADDRESS} reaches {CORRESPONDENT}")

    def make_file(self) -> tuple[Path, str]:
        """A random file and its SHA-256."""
        path, digest, left = self.directory / "download.bin", hashlib.sha256(), self.options.bytes
        with open(path, "wb") as file:
            while left > 0:
                block = secrets.token_bytes(min(left, 1 << 20))
                digest.update(block)
                file.write(block)
                left -= len(block)
        return path, digest.hexdigest()

    # During.

    def perform(self) -> dict:
        """The download, the probes and the moves; what came of them."""
        path, expected = self.make_file()
        links = captures.start(self.lab, self.plan.captures)
        self.lab.start("cn", "http", sys.executable, "-B", Path(__file__).with_name("serve.py"), path,
                       CORRESPONDENT, HTTP_PORT, max(1, int(self.options.bytes / self.plan.seconds)))
        if not wait_until(lambda: "serving" in (self.directory / "http.log").read_text(), 10):
            raise LabError("the HTTP server did not start")
        download, probes = self.load()
        self.tour(download, probes)
        end = time.monotonic_ns()
        if self.moves:
            self.moves[-1].end = end
        probes.stop()
        path.unlink(missing_ok=True)
        self.screen.clear()

        sha256_ok = self.judge_download(download, expected)
        rest = self.cpu_at_rest(3.0)
        totals = self.totals()
        captures.stop(links)
        journals = self.replay_journals()
        self.draw_plot(download, probes)
        malformed = self.judge_captures()
        moves = []
        for move, stop, encap in zip(self.moves, self.plan.stops, self.encaps):
            outage, lost = move.cost(probes.flows, end)
            moves.append({"from": move.origin, "to": move.target, "encap": encap, "outage_ms": round(outage, 1),
                          "probes_lost": lost})
            if encap != stop.encap:
                self.problems.append(f"at {move.target} the tunnel is {encap}, not {stop.encap}")
            if outage > MOST_OUTAGE_MS:
                self.problems.append(f"the move from {move.origin} to {move.target} cost {outage:.0f} ms: more "
                                     f"than {MOST_OUTAGE_MS}")
        if len(moves) != len(self.plan.stops):
            self.problems.append(f"only {len(moves)} of {len(self.plan.stops)} moves took place before the download ended")
        self.rest = rest
        self.other_losses = sum(flow.lost(download.started, end) for flow in probes.flows) - sum(
            move["probes_lost"] for move in moves)
        return {"demo": self.plan.topology.name, "sha256_ok": sha256_ok, "bytes": download.received,
                "ports": self.options.ports, "nat_traversal": self.plan.choices.nat_traversal or "off", "moves": moves,
                "tshark_malformed": malformed, "journals": journals, **{key: totals[key] for key in
                                                  ("rx", "tx", "punted", "to_kernel", "dropped")},
                "machine": machine()}

    def load(self) -> tuple[Download, Probes]:
        """Begins what runs while the node moves."""
        probes = Probes(self.lab, self.binaries / "homeport-probe")
        if not wait_until(lambda: all(len(flow.arrivals) > 100 for flow in probes.flows), 10):
            raise LabError("the probes do not arrive")
        self.screen.step(f"download of {self.options.bytes / 1e6:.0f} MB begins, with "
                         f"{PROBES_PER_SECOND} probes/s each way")
        return Download(self.lab, self.options.bytes, source=agents.HOME_ADDRESS), probes

    def judge_download(self, download: Download, expected: str, name: str = "curl") -> bool:
        """Whether what came is what was served."""
        if download.sha256() == expected and download.curl.returncode == 0:
            return True
        said = (self.directory / f"{name}.log").read_text(errors="replace").strip()
        self.problems.append(
            f"the download ({name}) is not what was served: {download.received} of {self.options.bytes} bytes came"
            + (f" ({said})" if said else ""))
        return False

    def tour(self, download: Download, probes: Probes) -> None:
        """Moves the node at its times until the last stay is over and the download done."""
        origin, begun, look_at = "home", download.started, None
        give_up = begun + int((self.plan.seconds + PATIENCE_SECONDS) * 1e9)
        while True:
            now = time.monotonic_ns()
            due = begun + int((FIRST_MOVE_SECONDS + len(self.moves) * STAY_SECONDS) * 1e9)
            if now >= due and len(self.moves) < len(self.plan.stops):
                network, target, _ = self.plan.stops[len(self.moves)]
                if self.moves:
                    self.moves[-1].end = now
                    self.tell(self.moves[-1], probes, now)
                self.moves.append(Move(origin, target, now))
                self.lab.move(network)
                origin, look_at = target, now + int(2e9)
            if look_at and now >= look_at:
                self.note_bindings()
                look_at = None
            if now >= due and len(self.moves) == len(self.plan.stops) and not download.running():
                break
            if not download.running() and download.curl.returncode != 0:
                break
            if now >= give_up:
                self.problems.append(f"the download did not end within {PATIENCE_SECONDS} s of its time")
                break
            for name in (*self.lab.topology.agents, "mn"):
                if self.lab.dead(name):
                    raise LabError(f"{name} ended while the demo ran")
            self.draw(download, probes)
            time.sleep(0.1)
        if self.moves:
            self.tell(self.moves[-1], probes, time.monotonic_ns())

    def note_bindings(self) -> None:
        """`homeport show bindings`, as it is now, into bindings.txt."""
        shown = run(self.binaries / "homeport", "--socket", self.lab.run / "ha.sock", "show", "bindings", check=False)
        self.encaps.append(self.encapsulation())
        with open(self.directory / "bindings.txt", "a", encoding="utf-8") as file:
            file.write(f"# at {self.moves[-1].target}\n{shown.rstrip()}\n\n")

    def encapsulation(self) -> str:
        """How the home agent tunnels to the node. Of a tunnel of its own, the node must say the
        same; a foreign agent's it need not know."""
        given = next(iter(self.lab.encapsulations("ha")), "none")
        node = self.lab.show("mn", "mobile-node")
        if node["tunnel"] and node["encapsulation"] != given:
            self.problems.append(f"at {self.moves[-1].target} the node speaks of {node['encapsulation']}, its home "
                                 f"agent of {given}")
        return given

    def tell(self, move: Move, probes: Probes, now: int) -> None:
        """A line on what a move has cost so far."""
        outage, lost = Move(move.origin, move.target, move.start).cost(probes.flows, now - PROBE_LAG_NS)
        self.screen.step(f"{move.origin} → {move.target}: quiet for {outage:.1f} ms, {lost} probes lost")

    def draw(self, download: Download, probes: Probes) -> None:
        """The live picture."""
        if not self.screen.live:
            return
        now, color = time.monotonic_ns(), self.screen.color
        rates = [amount / (BIN_NS / 1e9) / 1e6 for amount in
                 bins(download.samples, max(download.started, now - 60 * BIN_NS), now, BIN_NS)]
        where = self.moves[-1].target if self.moves else "home"
        fraction = download.received / download.size
        lines = ["", f"  {color('download', BOLD)}  {bar(fraction)} {fraction:4.0%}  "
                     f"{download.received / 1e6:5.1f} MB  {sum(rates[-11:-1]) / 10:5.1f} MB/s",
                 f"            {color(sparkline(rates[-60:]), CYAN)}",
                 f"  {color('node', BOLD)}      at {color(where, YELLOW)}", "",
                 color("  move                      outage     probes lost", DIM)]
        origin = "home"
        for index, (_, target, _) in enumerate(self.plan.stops):
            label = f"  {origin} → {target}"
            if index < len(self.moves):
                outage, lost = self.moves[index].cost(probes.flows, now - PROBE_LAG_NS)
                shade = GREEN if outage <= MOST_OUTAGE_MS else RED
                lines.append(f"{label:24}{color(f'{outage:8.1f} ms', shade)}{lost:16}")
            else:
                lines.append(color(f"{label:24}{'·':>11}{'·':>16}", DIM))
            origin = target
        self.screen.draw(lines)

    # After.

    def cpu_at_rest(self, seconds: float) -> dict[str, float]:
        """Percent of a core that each agent uses while nothing flows."""
        time.sleep(0.5)
        before, start = {node: self.cpu(node) for node in self.lab.topology.agents}, time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - start
        return {node: (self.cpu(node) - before[node]) / elapsed * 100 for node in self.lab.topology.agents}

    def cpu(self, node: str) -> float:
        """CPU seconds of an agent so far."""
        fields = Path(f"/proc/{self.lab.pid(node)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def totals(self) -> dict[str, int]:
        """The agents' counters in sum, at a moment when none has a packet in its hands."""
        keys = ("rx", "tx", "punted", "to_kernel", "dropped", "held")
        sums = dict.fromkeys(keys, 0)

        def conserved(totals: dict) -> bool:
            return totals["rx"] == sum(totals[key] for key in keys[1:5]) and totals["held"] == 0

        for node in self.lab.topology.agents:
            totals: dict = {}

            # The counters are read one after the other while RX cores count on, so a
            # packet in between may show on one side only; a packet that is really
            # unaccounted for stays so.
            def settled(node=node) -> bool:
                totals.update(self.lab.show(node, "status")["totals"])
                return conserved(totals)

            if not wait_until(settled, 5, step=0.1):
                self.problems.append(f"{node} does not account for every packet: {totals}")
            for key in keys:
                sums[key] += totals[key]
        if sums["held"]:
            print(f"  {sums['held']} packets are still held for a next hop")
        return sums

    def judge_captures(self) -> int:
        """Malformed Mobile IP in the captures, as tshark sees it."""
        self.screen.step("tshark reads the captures")
        self.messages, malformed = captures.judge([self.directory / f"{name}.pcap"
                                                   for _, _, name in self.plan.captures])
        if malformed:
            self.problems.append(f"tshark finds {malformed} malformed Mobile IP messages")
        if not self.messages:
            self.problems.append("the captures hold no Mobile IP message at all")
        return malformed

    def replay_journals(self) -> dict[str, dict]:
        """Each homeportd's journal of the tour, run again: the same actions must come of it."""
        self.screen.step("the agents' journals run again")
        time.sleep(0.5)
        journals = {}
        for node in self.lab.topology.agents:
            ran = self.lab.replay(node)
            journals[node] = {key: ran[key] for key in ("inputs", "actions", "same")}
            if not ran["same"] or not ran["inputs"]:
                self.problems.append(f"the journal of {node} does not give the same actions: {ran['findings']}")
        return journals

    def draw_plot(self, download: Download, probes: Probes) -> None:
        """demo.svg."""
        end = download.done_at or time.monotonic_ns()
        rates = [amount / (BIN_NS / 1e9) / 1e6 for amount in bins(download.samples, download.started, end, BIN_NS)]
        marks = []
        for move in self.moves:
            outage, lost = move.cost(probes.flows, end)
            marks.append(plot.Mark((move.start - download.started) / 1e9, move.target, outage, lost))
        text = plot.draw(rates, BIN_NS / 1e9, "home", marks, self.plan.title,
                         f"{download.received / 1e6:.0f} MB by HTTP to the home address {agents.HOME_ADDRESS}; "
                         f"agents on {self.options.ports} ports")
        (self.directory / "demo.svg").write_text(text, encoding="utf-8")

    def conclude(self, report: dict) -> None:
        """The tables, and the verdict."""
        color = self.screen.color
        print(f"\n  {'from':12}{'to':12}{'encap':12}{'outage':>11}{'':14}{'probes lost':>12}")
        for move in report["moves"]:
            shade = GREEN if move["outage_ms"] <= MOST_OUTAGE_MS else RED
            outage = color(f"{move['outage_ms']:8.1f} ms", shade)
            shown = color(bar(move["outage_ms"] / MOST_OUTAGE_MS, 10), shade)
            print(f"  {move['from']:12}{move['to']:12}{move['encap']:12}{outage}  {shown}{move['probes_lost']:14}")
        print(color(f"  {'':47}a full bar is {MOST_OUTAGE_MS} ms", DIM))
        print(f"\n  download     {report['bytes']} bytes, sha256 {'ok' if report['sha256_ok'] else 'WRONG'}")
        print(f"  probes       {self.other_losses} more lost before the first move")
        print(f"  tshark       {self.messages} Mobile IP messages, {report['tshark_malformed']} malformed")
        print(f"  dataplane    rx {report['rx']} = tx {report['tx']} + punted {report['punted']} + "
              f"to_kernel {report['to_kernel']} + dropped {report['dropped']}")
        print("  replayed     " + ", ".join(
            f"{node} {ran['inputs']} inputs, {ran['actions']} actions{'' if ran['same'] else ' NOT'} the same"
            for node, ran in report["journals"].items()))
        print("  at rest      " + ", ".join(f"{node} {percent:.1f} %" for node, percent in self.rest.items())
              + " of a core")
        print(f"  files        {self.directory}: demo.svg, *.pcap, *.log, etc/")
        for node, percent in self.rest.items():
            if percent > MOST_REST_CPU:
                self.problems.append(f"{node} uses {percent:.1f} % of a core at rest: more than {MOST_REST_CPU:.0f}")
        if not self.options.keep:
            print("  left behind  nothing")

    def clean(self) -> None:
        """Ends and removes all that the run made outside of target/, unless told to keep it."""
        (self.directory / "download.bin").unlink(missing_ok=True)
        if self.options.keep and self.lab.is_up():
            self.lab.save(keep=True, ports=self.options.ports)
            print("  the lab stays up: scripts/lab status, scripts/lab exec mn …, scripts/lab down")
            return
        self.lab.down()
