"""Many mobile nodes with one private care-of address behind one masquerade."""

import argparse
import hashlib
import json
import secrets
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from agents import CORRESPONDENT, Choices, hundred_home_address
from lab import LabError, wait_until
from runs import Run, machine
from screen import BOLD, GREEN, RED, bar
from topologies import MOST_NODES as MOST
from topologies import hundred

HTTP_PORT = 8080
REGISTER_SECONDS = 60
DOWNLOAD_SECONDS = 300
CONNECT_SECONDS = 20


class Hundred(Run):
    """One run."""

    def __init__(self, options: argparse.Namespace, choices: Choices, directory: Path):
        super().__init__(options, hundred(options.nodes), directory)
        self.choices = replace(choices, nat_traversal=options.nat_traversal or "rfc3519")
        self.numbers = range(1, options.nodes + 1)
        self.served, self.received = directory / "served", directory / "received"

    def main(self) -> dict:
        """The report."""
        with self.alone():
            sums = self.make_files()
            self.lay()
            bindings = self.bindings()
            report = self.download(sums)
        report = {"demo": "hundred", "nodes": len(self.numbers), "ports": self.choices.ports,
                  "nat_traversal": self.choices.nat_traversal, **bindings, **report, "machine": machine()}
        color, right = self.screen.color, report["nodes_right"]
        print(f"\n  nodes         {report['nodes']}, of which {color(str(right), GREEN if report['sha256_ok'] else RED)} "
              f"got their own {self.options.bytes} bytes")
        print(f"  care-of       all have registered {', '.join(report['care_of_addresses'])}; the home agent sees "
              f"{', '.join(report['outer_addresses'])} with {report['outer_ports']} ports")
        print(f"  downloads     {report['seconds']:.1f} s, {report['megabytes_per_second']:.0f} MB/s in sum")
        print(f"  homeport-mn   {report['node_rss_mib']:.1f} MiB each; homeportd {report['agent_rss_mib']:.1f} MiB")
        return report

    def clean(self) -> None:
        shutil.rmtree(self.served, ignore_errors=True)
        shutil.rmtree(self.received, ignore_errors=True)
        if self.options.keep and self.lab.is_up():
            self.lab.save(keep=True, ports=self.choices.ports)
            print("  the lab stays up: scripts/lab status, scripts/lab exec mn1 …, scripts/lab down")
            return
        super().clean()

    def make_files(self) -> dict[int, str]:
        """A file of its own for each node; their sums."""
        sums = {}
        for directory in (self.served, self.received):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        for number in self.numbers:
            content = secrets.token_bytes(self.options.bytes)
            sums[number] = hashlib.sha256(content).hexdigest()
            (self.served / f"mn{number}").write_bytes(content)
        return sums

    def lay(self) -> None:
        """The lab, its agents, and all nodes registered."""
        step = self.screen.step
        step(f"laying {len(self.lab.topology.nodes)} nodes and {len(self.lab.topology.cables)} cables")
        self.lab.up(self.choices)
        step(f"{len(self.numbers)} homeport-mn and a homeportd are started")
        self.lab.start_agents(self.choices)
        begun, registered = time.monotonic(), 0

        def all_registered() -> bool:
            nonlocal registered
            registered = len(self.lab.show_list("ha", "bindings"))
            self.screen.draw([f"  registered  {bar(registered / len(self.numbers))} {registered}"])
            return registered == len(self.numbers)

        done = wait_until(all_registered, REGISTER_SECONDS, step=0.2)
        if not done:
            raise LabError(f"only {registered} of {len(self.numbers)} nodes registered within {REGISTER_SECONDS} s")
        step(f"all have registered, {time.monotonic() - begun:.1f} s after the last was started")

    def bindings(self) -> dict:
        """What the home agent knows of them."""
        care_of = [entry for binding in self.lab.show_list("ha", "bindings") for entry in binding["care_of_addresses"]]
        registered = sorted({entry["registered"] for entry in care_of})
        outer = {(entry["address"], entry["udp_port"]) for entry in care_of}
        if len(registered) != 1:
            self.problems.append(f"the nodes do not share one care-of address: {', '.join(registered)}")
        if len({address for address, _ in outer}) != 1 or len(outer) != len(self.numbers):
            self.problems.append(f"the home agent does not see one outer address and a port for each: {sorted(outer)}")
        encaps = sorted({entry["encapsulation"] for entry in care_of})
        return {"care_of_addresses": registered, "outer_addresses": sorted({address for address, _ in outer}),
                "outer_ports": len(outer), "encap": encaps}

    def download(self, sums: dict[int, str]) -> dict:
        """All at once; who got what."""
        self.lab.start("cn", "http", sys.executable, "-B", Path(__file__).with_name("serve.py"), self.served,
                       CORRESPONDENT, HTTP_PORT, 1 << 30)
        if not wait_until(lambda: "serving" in (self.directory / "http.log").read_text(), 10):
            raise LabError("the HTTP server did not start")
        self.screen.step(f"{len(self.numbers)} downloads of {self.options.bytes / 1e6:.1f} MB begin")
        begun = time.monotonic()
        children = {number: self.lab.start(
            f"mn{number}", f"curl-mn{number}", "curl", "-sSf", "--max-time", DOWNLOAD_SECONDS,
            "--connect-timeout", CONNECT_SECONDS, "--interface", hundred_home_address(number), "-o", self.received / f"mn{number}",
            f"http://{CORRESPONDENT}:{HTTP_PORT}/mn{number}") for number in self.numbers}
        total = self.options.bytes * len(self.numbers)

        def all_done() -> bool:
            ended = sum(child.poll() is not None for child in children.values())
            if self.screen.live:
                amount = sum(path.stat().st_size for path in self.received.iterdir())
                self.screen.draw([f"  {self.screen.color('downloads', BOLD)}  {bar(amount / total)} "
                                  f"{amount / 1e6:6.1f} MB, {ended} have ended"])
            return ended == len(children)

        wait_until(all_done, DOWNLOAD_SECONDS + 10, step=0.1)
        seconds = time.monotonic() - begun
        self.screen.clear()
        memory = {node: resident(self.lab.pid(node)) for node in ("ha", *(f"mn{number}" for number in self.numbers))}
        right, whose = 0, {digest: number for number, digest in sums.items()}
        for number in self.numbers:
            path = self.received / f"mn{number}"
            content = path.read_bytes() if path.exists() else b""
            digest = hashlib.sha256(content).hexdigest()
            if digest == sums[number]:
                right += 1
            elif digest in whose:
                self.problems.append(f"mn{number} got what was mn{whose[digest]}'s")
            else:
                said = (self.directory / f"curl-mn{number}.log").read_text(errors="replace").strip()
                self.problems.append(f"mn{number} got {len(content)} of {self.options.bytes} bytes, or wrong ones {said}")
        totals = self.lab.show("ha", "status")["totals"]
        del memory["ha"], totals["held"]
        return {"sha256_ok": right == len(self.numbers), "nodes_right": right, "bytes": self.options.bytes,
                "seconds": round(seconds, 2), "megabytes_per_second": round(total / seconds / 1e6, 1),
                "node_rss_mib": round(sum(memory.values()) / len(memory), 1),
                "agent_rss_mib": round(resident(self.lab.pid("ha")), 1), **totals}


def resident(pid: int) -> float:
    """The memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
