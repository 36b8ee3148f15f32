"""Path MTU through each encapsulation, over a link of 1,280 bytes."""

import argparse
import hashlib
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import agents
from agents import CORRESPONDENT, Choices
from lab import LabError, run, wait_until
from runs import Run, machine
from screen import DIM, GREEN, RED
from topologies import NAT

LINK_MTU = 1280
LONG_PING = 8000
HTTP_PORT = 8080
MOST_HOPS = 6
# IPv4 and TCP headers without options; IPv4 and ICMP headers.
TCP_HEADERS, PING_HEADERS = 40, 28


@dataclass(frozen=True)
class Case:
    """An encapsulation, and how many bytes it adds to a packet."""

    encap: str
    network: str
    overhead: int
    nat_traversal: str = "rfc3519"

    @property
    def mtu(self) -> int:
        """The longest packet that it takes over the narrow link."""
        return LINK_MTU - self.overhead


# Minimal encapsulation with the original source in it (RFC 2004, 3.1); RFC 3519's UDP with
# its tunnel data header (3.3); plain UDP without one.
CASES = (Case("ip-in-ip", "narrow", 20), Case("minimal", "narrow", 12), Case("gre", "narrow", 24),
         Case("udp", "both", 20 + 8 + 4), Case("plain-udp", "both", 20 + 8, "challenge"))


def pmtu_of_tracepath(output: str, end: str = "reached") -> int | None:
    """The path MTU that tracepath came to, if it got to its end."""
    found = re.search(r"Resume: pmtu (\d+)", output)
    return int(found[1]) if found and end in output else None


def mtu_of_ping(output: str) -> int | None:
    """The MTU that a ping which was too long was told."""
    found = re.findall(r"mtu ?= ?(\d+)", output)
    return int(found[-1]) if found else None


def received_of_ping(output: str) -> tuple[int, int]:
    """(sent, answered)."""
    found = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", output)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def segment_sizes(output: str) -> list[int]:
    """The MSS options in what tcpdump printed of SYN segments."""
    return [int(size) for size in re.findall(r"options \[.*?mss (\d+)", output)]


class Mtu(Run):
    """All cases, one after the other."""

    def __init__(self, options: argparse.Namespace, choices: Choices, directory: Path):
        super().__init__(options, NAT, directory)
        self.choices = choices
        self.path = directory / "served.bin"
        self.expected = ""

    def main(self) -> dict:
        """The report."""
        cases = []
        with self.alone():
            self.make_file()
            for case in CASES:
                if self.options.encap in (None, case.encap):
                    cases.append(self.perform(case))
        outcomes = [check["ok"] for case in cases for check in case["checks"]]
        ok = all(outcomes)
        print(f"\n  checks       {len(outcomes)}, of which {outcomes.count(False)} failed")
        return {"demo": "mtu", "ok": ok, "link_mtu": LINK_MTU, "ports": self.choices.ports,
                "bytes": self.options.bytes, "cases": cases, "machine": machine()}

    def clean(self) -> None:
        self.path.unlink(missing_ok=True)
        super().clean()

    def make_file(self) -> None:
        """What is downloaded."""
        digest, left = hashlib.sha256(), self.options.bytes
        with open(self.path, "wb") as file:
            while left > 0:
                block = secrets.token_bytes(min(left, 1 << 20))
                digest.update(block)
                file.write(block)
                left -= len(block)
        self.expected = digest.hexdigest()

    def perform(self, case: Case) -> dict:
        """One encapsulation, with the MSS clamp off and on."""
        self.checks: list[dict] = []
        self.screen.step(f"{case.encap}: {LINK_MTU} - {case.overhead} = {case.mtu} bytes at most")
        try:
            for clamp in (False, True):
                self.lay(case, clamp)
                self.download(case, clamp)
            self.paths(case)
        except LabError as problem:
            self.note("it runs", False, str(problem))
        for check in self.checks:
            if not check["ok"]:
                self.problems.append(f"{case.encap}: {check['name']}: {check['found']}")
        return {"encap": case.encap, "network": case.network, "overhead": case.overhead, "mtu": case.mtu,
                "checks": self.checks}

    def note(self, name: str, ok: bool, found: str) -> None:
        """A check, on the screen and in the report."""
        self.checks.append({"name": name, "ok": ok, "found": found})
        print(f"            {name:40} {self.screen.color(found, GREEN if ok else RED)}", flush=True)

    def lay(self, case: Case, clamp: bool) -> None:
        """A lab with the node where the case wants it."""
        choices = replace(self.choices, encap="ip-in-ip" if case.encap == "plain-udp" else case.encap,
                          nat_traversal=case.nat_traversal, mss_clamp=clamp)
        self.lab.up(choices)
        self.lab.start_agents(choices)
        self.lab.start("cn", "http", sys.executable, "-B", Path(__file__).with_name("serve.py"), self.path,
                       CORRESPONDENT, HTTP_PORT, 1 << 30)
        log = self.directory / "http.log"
        if not wait_until(lambda: "serving" in log.read_text(errors="replace"), 10):
            raise LabError(f"the HTTP server did not start: {log.read_text(errors='replace').strip()}")
        self.lab.move(case.network)
        if not wait_until(lambda: case.encap in self.lab.encapsulations("ha"), 10):
            raise LabError(f"the node does not register with {case.encap}: {self.lab.encapsulations('ha')}")
        if not wait_until(lambda: received_of_ping(self.ping("mn", 56, "-c1")) == (1, 1), 5):
            raise LabError("the node does not reach the correspondent")

    def ping(self, node: str, size: int, *options: str) -> str:
        """ping from one end to the other; all that it said."""
        target = ("-I", agents.HOME_ADDRESS, CORRESPONDENT) if node == "mn" else (agents.HOME_ADDRESS,)
        command = self.lab.inside(node, "ping", "-n", "-W", "2", "-s", size, *options, *target)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def forget(self) -> None:
        """Both ends forget the path MTUs that they learned."""
        for node in ("cn", "mn"):
            self.lab.exec(node, "ip", "route", "flush", "cache")

    def paths(self, case: Case) -> None:
        """tracepath, and pings at the limit, from both ends."""
        for node, target, way in (("cn", agents.HOME_ADDRESS, "to the node"), ("mn", CORRESPONDENT, "from the node")):
            self.forget()
            said = self.lab.exec(node, "tracepath", "-n", "-m", MOST_HOPS, target, check=False)
            # In minimal encapsulation the packet's own TTL counts on inside the tunnel
            # (RFC 2004, 3.1). Of one that ends there its sender is told that the host is
            # unreachable (RFC 2003, 4.4), and tracepath stops, having found the MTU.
            end = "!H" if case.encap == "minimal" and node == "cn" else "reached"
            found = pmtu_of_tracepath(said, end)
            self.note(f"tracepath {way}", found == case.mtu, f"pmtu {found}" if found else " ".join(said.split()))
            self.forget()
            # The first may be what the narrow link's router must drop to be asked.
            self.ping(node, case.mtu - PING_HEADERS + 1, "-c2", "-i0.2", "-Mdo")
            told = mtu_of_ping(self.ping(node, case.mtu - PING_HEADERS + 1, "-c2", "-i0.2", "-Mdo"))
            self.note(f"DF ping of {case.mtu + 1} {way}", told == case.mtu, f"told {told}")
            sent, came = received_of_ping(self.ping(node, case.mtu - PING_HEADERS, "-c5", "-i0.05", "-Mdo"))
            self.note(f"DF ping of {case.mtu} {way}", sent == came == 5, f"{came} of {sent}")
            self.forget()
            sent, came = received_of_ping(self.ping(node, LONG_PING, "-c10", "-i0.05"))
            self.note(f"ping of {LONG_PING:,} bytes {way}", sent == came == 10, f"{came} of {sent}")

    def download(self, case: Case, clamp: bool) -> None:
        """A TCP download to the home address; what segments it used, and what it had to be told.

        The home agent knows the tunnel's MTU, the node does not yet: so it asks for
        segments that are too long, and what the server hears of is the clamp's doing.
        """
        for _ in range(2):
            self.ping("cn", case.mtu - PING_HEADERS + 1, "-c2", "-i0.2", "-Mdo")
        self.forget()
        log = self.directory / "syn.txt"
        tcpdump = self.lab.start("cn", "syn", "tcpdump", "-n", "-l", "-i", "eth0", "-c", "1", "-Z", "root",
                                 "tcp dst port 8080 and tcp[tcpflags] & tcp-syn != 0", stdout=open(log, "wb"),
                                 stderr=open(self.directory / "tcpdump.log", "wb"))
        wait_until(lambda: "listening on" in (self.directory / "tcpdump.log").read_text(errors="replace"), 10)
        told, begun = self.told(), time.monotonic()
        command = (f"curl -sSf --max-time 300 --speed-time 20 --speed-limit 1 --interface {agents.HOME_ADDRESS} http://{CORRESPONDENT}:{HTTP_PORT}/ "
                   "| sha256sum")
        done = subprocess.run(self.lab.inside("mn", "sh", "-c", command), capture_output=True, text=True, timeout=330,
                              check=False)
        seconds = time.monotonic() - begun
        ok = done.stdout.split()[:1] == [self.expected]
        name = f"MSS clamp {'on' if clamp else 'off'}: "
        self.note(name + "download", ok,
                  f"{self.options.bytes / 1e6:.0f} MB in {seconds:.1f} s" if ok else f"other bytes came {done.stderr}")
        tcpdump.wait(timeout=10)
        sizes = segment_sizes(log.read_text(errors="replace"))
        fits = bool(sizes) and sizes[0] <= case.mtu - TCP_HEADERS
        self.note(name + "segment size at the server", bool(sizes) and fits == clamp, f"{sizes[0] if sizes else 'none'}")
        told = self.told() - told
        self.note(name + "Fragmentation Needed", told == 0 if clamp else told > 0, f"told {told} times")

    def told(self) -> int:
        """How many ICMP Destination Unreachable the correspondent has had."""
        lines = [line.split() for line in self.lab.exec("cn", "cat", "/proc/net/snmp").splitlines()
                 if line.startswith("Icmp:")]
        return int(dict(zip(*lines))["InDestUnreachs"])
