"""Captures of a run's links, and tshark's judgement of the Mobile IP in them."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import Lab, LabError, run, wait_until

# tshark takes minutes for some 100,000 packets; so tcpdump first sifts out what cannot be
# a registration or an advertisement, in a tunnel (IP in IP, without options) or not.
# Tunnel data shares the port: RFC 3519's begins with 4, plain tunnel data with an IPv4
# header, so 0x45 to 0x4f. Fragments stay in.
SIFT = ("(udp port 434 and udp[8] != 4 and udp[8] & 0xf0 != 0x40) or icmp or (ip[6:2] & 0x1fff != 0) or "
        "(ip proto 4 and (ip[29] = 1 or (ip[29] = 17 and (ip[40:2] = 434 or ip[42:2] = 434))))")
# Of RFC 3519's tunnel data, the first this many of each capture.
TUNNEL_DATA = "udp port 434 and udp[8] = 4"
TUNNEL_DATA_COUNT = 500
# Not by `mip`: that does not match a message so malformed that tshark gave up on it.
OURS = "udp.port == 434 || icmp.type == 9 || icmp.type == 10"


def start(lab: Lab, places: tuple[tuple[str, str, str], ...]) -> list[subprocess.Popen]:
    """tcpdump at each (node, interface, name), as the wires see it."""
    children = []
    for node, interface, name in places:
        children.append(lab.start(
            node, f"tcpdump-{name}", "tcpdump", "-i", interface, "-s", "256", "-B", "8192", "-U", "-n",
            "-Z", "root", "-w", lab.directory / f"{name}.pcap"))
    for _, _, name in places:
        log = lab.directory / f"tcpdump-{name}.log"
        if not wait_until(lambda log=log: "listening on" in log.read_text(errors="replace"), 10):
            raise LabError(f"tcpdump did not start: {log.read_text(errors='replace').strip()}")
    return children


def stop(children: list[subprocess.Popen]) -> None:
    """Ends them, their files whole."""
    for capture in children:
        capture.terminate()
    for capture in children:
        capture.wait(timeout=10)


def judge(paths: list[Path]) -> tuple[int, int]:
    """(Mobile IP messages, malformed among them) of these captures, as tshark sees it."""
    def count(job: tuple[Path, str, int]) -> tuple[int, int]:
        path, sift, most = job
        output = run("bash", "-o", "pipefail", "-c",
                     'tcpdump -n -r "$1" -w - -Z root -c "$4" "$2" 2>/dev/null | '
                     'tshark -n -r - -Y "$3" -T fields -e frame.number -e _ws.malformed',
                     "count", path, sift, OURS, most)
        rows = [line.split("\t") for line in output.splitlines()]
        return len(rows), sum(1 for row in rows if len(row) > 1 and row[1])

    jobs = [(path, sift, most) for path in paths
            for sift, most in ((SIFT, 1 << 30), (TUNNEL_DATA, TUNNEL_DATA_COUNT))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(count, jobs))
    return sum(messages for messages, _ in counts), sum(bad for _, bad in counts)
