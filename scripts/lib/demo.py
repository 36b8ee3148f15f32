"""The demo: a TCP download keeps running while a mobile node moves.

A correspondent serves a file over HTTP; curl in the mobile node downloads it to the
node's home address, while the node goes home, to foreign agent 1, to foreign agent 2,
to a network with DHCP only, and home again. Beside it, 1,000 UDP probes a second each
way measure what every move costs.

Writes target/demo/demo.json, demo.svg, a capture of each link and the agents' logs and
configs. Removes everything else that it made, also after ^C.
"""

import argparse
import hashlib
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import agents
import plot
from agents import CORRESPONDENT, Choices
from lab import Lab, LabError, build_directory, run, wait_until
from measure import Flow, Move, bins, read_line
from screen import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Screen, bar, sparkline

# (network, what the table calls it)
TOUR = (("visited1", "fa1"), ("visited2", "fa2"), ("visited3", "co-located"), ("home", "home"))
FIRST_MOVE_SECONDS = 3.2
STAY_SECONDS = 4.0
# The download is paced to this length, so that it spans all moves.
DOWNLOAD_SECONDS = FIRST_MOVE_SECONDS + len(TOUR) * STAY_SECONDS
PATIENCE_SECONDS = 60
PROBES_PER_SECOND = 1000
PROBE_PORT = 7007
HTTP_PORT = 8080
MOST_OUTAGE_MS = 100
MOST_REST_CPU = 5.0
BIN_NS = 100_000_000
# tshark takes minutes for some 100,000 packets; so tcpdump first sifts out what cannot be
# Mobile IP, in a tunnel (IP in IP, without options) or not. Fragments stay in.
SIFT = ("udp port 434 or icmp or (ip[6:2] & 0x1fff != 0) or (ip proto 4 and (ip[29] = 1 or "
        "(ip[29] = 17 and (ip[40:2] = 434 or ip[42:2] = 434))))")
# What the probers have seen is known here this much later.
PROBE_LAG_NS = 150_000_000
CAPTURES = (("r", "ha", "core-ha"), ("r", "fa1", "core-fa1"), ("r", "fa2", "core-fa2"), ("r", "gw", "core-gw"),
            ("sw", "home", "link-home"), ("sw", "mn", "link-mobile-node"))


class Download:
    """curl in the mobile node, its output read, counted and hashed here."""

    def __init__(self, lab: Lab, size: int):
        self.size = size
        self.received = 0
        self.samples: list[tuple[int, int]] = []
        self.done_at: int | None = None
        self._digest = hashlib.sha256()
        self.started = time.monotonic_ns()
        self.curl = lab.start(
            "mn", "curl", "curl", "--silent", "--show-error", "--fail", "--interface", agents.HOME_ADDRESS,
            "--no-buffer", f"http://{CORRESPONDENT}:{HTTP_PORT}/download",
            stdout=subprocess.PIPE, stderr=open(lab.directory / "curl.log", "wb"), bufsize=0)
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
    """homeport-probe in the correspondent and in the mobile node."""

    def __init__(self, lab: Lab, program: Path):
        self.down = Flow("correspondent → mobile node")
        self.up = Flow("mobile node → correspondent")
        self._children = []
        self._readers = []
        ends = ((CORRESPONDENT, agents.HOME_ADDRESS, "cn", self.down, self.up),
                (agents.HOME_ADDRESS, CORRESPONDENT, "mn", self.up, self.down))
        for own, peer, node, outgoing, incoming in ends:
            child = lab.start(node, f"probe-{node}", program, "--bind", f"{own}:{PROBE_PORT}",
                              "--peer", f"{peer}:{PROBE_PORT}", "--rate", PROBES_PER_SECOND,
                              stdout=subprocess.PIPE, text=True,
                              stderr=open(lab.directory / f"probe-{node}.log", "wb"))
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


class Demo:
    """One run."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.screen = Screen()
        self.directory = build_directory() / "demo"
        self.binaries = Path(options.binaries).resolve() if options.binaries else build_directory() / "release"
        self.choices = Choices(ports=options.ports)
        self.lab = Lab(options.name, self.directory, self.binaries)
        self.moves: list[Move] = []
        self.problems: list[str] = []
        self.up = False

    def main(self) -> int:
        """Everything, from the first namespace to the last."""
        self.lab.lock()
        if kept := self.lab.kept():
            raise LabError(f"the lab `{self.options.name}` was left up on purpose at {kept['since']}: "
                           "take it down first with `scripts/lab down`")
        try:
            self.prepare()
            report = self.perform()
        except BaseException:
            self.screen.clear()
            raise
        finally:
            self.clean()
        self.conclude(report)
        return 1 if self.problems else 0

    # Before.

    def prepare(self) -> None:
        """Lays the lab and starts the agents."""
        step = self.screen.step
        self.directory.mkdir(parents=True, exist_ok=True)
        for old in self.directory.glob("*"):
            if old.is_file():
                old.unlink()
        self.up = True
        self.lab.up(self.choices)
        step("the lab is laid: correspondent, router, home agent, two foreign agents, DHCP network, mobile node")
        self.lab.start_agents(self.choices)
        step(f"the agents run, on {self.options.ports} ports")
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

    def start_captures(self) -> list[subprocess.Popen]:
        """tcpdump on the core and access links, as the wires see it."""
        children = []
        for node, interface, name in CAPTURES:
            children.append(self.lab.start(
                node, f"tcpdump-{name}", "tcpdump", "-i", interface, "-s", "256", "-B", "8192", "-U", "-n",
                "-Z", "root", "-w", self.directory / f"{name}.pcap"))
        for _, _, name in CAPTURES:
            log = self.directory / f"tcpdump-{name}.log"
            if not wait_until(lambda log=log: "listening on" in log.read_text(errors="replace"), 10):
                raise LabError(f"tcpdump did not start: {log.read_text(errors='replace').strip()}")
        return children

    # During.

    def perform(self) -> dict:
        """The download, the probes and the moves; what came of them."""
        path, expected = self.make_file()
        captures = self.start_captures()
        self.lab.start("cn", "http", sys.executable, "-B", Path(__file__).with_name("serve.py"), path,
                       CORRESPONDENT, HTTP_PORT, max(1, int(self.options.bytes / DOWNLOAD_SECONDS)))
        if not wait_until(lambda: "serving" in (self.directory / "http.log").read_text(), 10):
            raise LabError("the HTTP server did not start")
        probes = Probes(self.lab, self.binaries / "homeport-probe")
        if not wait_until(lambda: all(len(flow.arrivals) > 100 for flow in probes.flows), 10):
            raise LabError("the probes do not arrive")
        self.screen.step(f"download of {self.options.bytes / 1e6:.0f} MB begins, with "
                         f"{PROBES_PER_SECOND} probes/s each way")
        download = Download(self.lab, self.options.bytes)
        self.tour(download, probes)
        end = time.monotonic_ns()
        if self.moves:
            self.moves[-1].end = end
        probes.stop()
        path.unlink(missing_ok=True)
        self.screen.clear()

        sha256_ok = download.sha256() == expected and download.curl.returncode == 0
        if not sha256_ok:
            said = (self.directory / "curl.log").read_text(errors="replace").strip()
            self.problems.append(
                f"the download is not what was served: {download.received} of {self.options.bytes} bytes came"
                + (f" ({said})" if said else ""))
        rest = self.cpu_at_rest(3.0)
        totals = self.totals()
        for capture in captures:
            capture.terminate()
        for capture in captures:
            capture.wait(timeout=10)
        self.draw_plot(download, probes)
        malformed = self.judge_captures()
        moves = []
        for move in self.moves:
            outage, lost = move.cost(probes.flows, end)
            moves.append({"from": move.origin, "to": move.target, "outage_ms": round(outage, 1),
                          "probes_lost": lost})
            if outage > MOST_OUTAGE_MS:
                self.problems.append(f"the move from {move.origin} to {move.target} cost {outage:.0f} ms: more "
                                     f"than {MOST_OUTAGE_MS}")
        if len(moves) != len(TOUR):
            self.problems.append(f"only {len(moves)} of {len(TOUR)} moves took place before the download ended")
        self.rest = rest
        self.other_losses = sum(flow.lost(download.started, end) for flow in probes.flows) - sum(
            move["probes_lost"] for move in moves)
        return {"sha256_ok": sha256_ok, "bytes": download.received, "ports": self.options.ports, "moves": moves,
                "tshark_malformed": malformed, **{key: totals[key] for key in
                                                  ("rx", "tx", "punted", "to_kernel", "dropped")},
                "machine": machine()}

    def tour(self, download: Download, probes: Probes) -> None:
        """Moves the node at its times until the last stay is over and the download done."""
        origin, begun, look_at = "home", download.started, None
        give_up = begun + int((DOWNLOAD_SECONDS + PATIENCE_SECONDS) * 1e9)
        while True:
            now = time.monotonic_ns()
            due = begun + int((FIRST_MOVE_SECONDS + len(self.moves) * STAY_SECONDS) * 1e9)
            if now >= due and len(self.moves) < len(TOUR):
                network, target = TOUR[len(self.moves)]
                if self.moves:
                    self.moves[-1].end = now
                    self.tell(self.moves[-1], probes, now)
                self.moves.append(Move(origin, target, now))
                self.lab.move(network)
                origin, look_at = target, now + int(2e9)
            if look_at and now >= look_at:
                self.note_bindings()
                look_at = None
            if now >= due and len(self.moves) == len(TOUR) and not download.running():
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
        with open(self.directory / "bindings.txt", "a", encoding="utf-8") as file:
            file.write(f"# at {self.moves[-1].target}\n{shown.rstrip()}\n\n")

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
        fraction = download.received / self.options.bytes
        lines = ["", f"  {color('download', BOLD)}  {bar(fraction)} {fraction:4.0%}  "
                     f"{download.received / 1e6:5.1f} MB  {sum(rates[-11:-1]) / 10:5.1f} MB/s",
                 f"            {color(sparkline(rates[-60:]), CYAN)}",
                 f"  {color('node', BOLD)}      at {color(where, YELLOW)}", "",
                 color("  move                      outage     probes lost", DIM)]
        origin = "home"
        for index, (_, target) in enumerate(TOUR):
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
        pid = int((self.lab.run / f"{node}.pid").read_text())
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
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
        # Not by `mip`: that does not match a message so malformed that tshark gave up on it.
        ours = "udp.port == 434 || icmp.type == 9 || icmp.type == 10"

        def count(name: str) -> tuple[int, int]:
            output = run("bash", "-o", "pipefail", "-c",
                         'tcpdump -n -r "$1" -w - -Z root "$2" 2>/dev/null | '
                         'tshark -n -r - -Y "$3" -T fields -e frame.number -e _ws.malformed',
                         "count", self.directory / f"{name}.pcap", SIFT, ours)
            rows = [line.split("\t") for line in output.splitlines()]
            return len(rows), sum(1 for row in rows if len(row) > 1 and row[1])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            counts = list(pool.map(count, [name for _, _, name in CAPTURES]))
        self.messages = sum(messages for messages, _ in counts)
        malformed = sum(bad for _, bad in counts)
        if malformed:
            self.problems.append(f"tshark finds {malformed} malformed Mobile IP messages")
        if not self.messages:
            self.problems.append("the captures hold no Mobile IP message at all")
        return malformed

    def draw_plot(self, download: Download, probes: Probes) -> None:
        """demo.svg."""
        end = download.done_at or time.monotonic_ns()
        rates = [amount / (BIN_NS / 1e9) / 1e6 for amount in bins(download.samples, download.started, end, BIN_NS)]
        marks = []
        for move in self.moves:
            outage, lost = move.cost(probes.flows, end)
            marks.append(plot.Mark((move.start - download.started) / 1e9, move.target, outage, lost))
        text = plot.draw(rates, BIN_NS / 1e9, "home", marks, "A TCP download while the node moves",
                         f"{download.received / 1e6:.0f} MB by HTTP to the home address {agents.HOME_ADDRESS}; "
                         f"agents on {self.options.ports} ports")
        (self.directory / "demo.svg").write_text(text, encoding="utf-8")

    def conclude(self, report: dict) -> None:
        """The tables, and the verdict."""
        (self.directory / "demo.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        color = self.screen.color
        print(f"\n  {'from':12}{'to':12}{'outage':>11}{'probes lost':>14}")
        for move in report["moves"]:
            shade = GREEN if move["outage_ms"] <= MOST_OUTAGE_MS else RED
            outage = color(f"{move['outage_ms']:8.1f} ms", shade)
            print(f"  {move['from']:12}{move['to']:12}{outage}{move['probes_lost']:14}")
        print(f"\n  download     {report['bytes']} bytes, sha256 {'ok' if report['sha256_ok'] else 'WRONG'}")
        print(f"  probes       {self.other_losses} more lost before the first move")
        print(f"  tshark       {self.messages} Mobile IP messages, {report['tshark_malformed']} malformed")
        print(f"  dataplane    rx {report['rx']} = tx {report['tx']} + punted {report['punted']} + "
              f"to_kernel {report['to_kernel']} + dropped {report['dropped']}")
        print("  at rest      " + ", ".join(f"{node} {percent:.1f} %" for node, percent in self.rest.items())
              + " of a core")
        print(f"  files        {self.directory}: demo.json, demo.svg, *.pcap, *.log, etc/")
        for node, percent in self.rest.items():
            if percent > MOST_REST_CPU:
                self.problems.append(f"{node} uses {percent:.1f} % of a core at rest: more than {MOST_REST_CPU:.0f}")
        if not self.options.keep:
            print("  left behind  nothing")
        for problem in self.problems:
            print(color(f"\nFAILED: {problem}", RED), file=sys.stderr)
        if self.problems:
            print(self.lab.tails(), file=sys.stderr)

    def clean(self) -> None:
        """Ends and removes all that the run made outside of target/."""
        if not self.up:
            return
        # From here on ^C is not heard: it would leave the very things behind that it
        # shall remove. Every wait in here is bounded.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.screen.clear()
        (self.directory / "download.bin").unlink(missing_ok=True)
        if self.options.keep and self.lab.is_up():
            self.lab.save(keep=True, ports=self.options.ports)
            print("  the lab stays up: scripts/lab status, scripts/lab exec mn …, scripts/lab down")
            return
        self.lab.down()


def machine() -> dict[str, object]:
    """What it ran on."""
    model, memory = "unknown", 0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory = int(line.split()[1]) // 1024
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return {"cpu": model, "cpus": os.cpu_count(), "memory_mib": memory, "kernel": platform.release(),
            "system": system}


def on_signal(number, _frame):
    """Unwinds, so that what was begun is undone; also where ^C came in ignored."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def arguments() -> argparse.Namespace:
    """The command line of scripts/demo."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", choices=("af_packet", "dpdk"), default="af_packet",
                        help="what the agents read their interfaces with (default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=200_000_000, help="size of the download (default: 200 MB)")
    parser.add_argument("--keep", action="store_true", help="leave the lab up afterwards, to look around")
    parser.add_argument("--name", default=os.environ.get("HOMEPORT_LAB", "hp"),
                        help="prefix of the namespaces (default: hp, or $HOMEPORT_LAB)")
    parser.add_argument("--binaries", help="where the programs are, instead of building them")
    options = parser.parse_args()
    if options.bytes < 1:
        parser.error("--bytes is at least 1")
    return options


def main() -> int:
    """`scripts/demo`, after the build."""
    demo = Demo(arguments())
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
    try:
        return demo.main()
    except KeyboardInterrupt as stop:
        print(f"\nstopped by {stop}; everything is cleaned up", file=sys.stderr)
        return 130
    except (LabError, OSError, subprocess.SubprocessError) as problem:
        print(f"\nFAILED: {problem}\n{demo.lab.tails()}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
