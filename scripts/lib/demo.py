"""Homeport at work on this machine, in network namespaces, measured.

roam     (default) A 200 MB HTTP download to the mobile node's home address runs while the
         node goes home → foreign agent 1 → foreign agent 2 → a network with DHCP only → home.
         1,000 UDP probes a second each way measure what every move costs.
nat      The same download and probes; the node goes behind a masquerade, behind a link of
         1,280 bytes, behind both, and home. Once with each way to detect a NAT.
mtu      Path MTU through each encapsulation over a link of 1,280 bytes: tracepath, pings
         that must not be fragmented, pings of 8,000 bytes, and a TCP download with the MSS
         clamp on and off.
sessions Two laptops with a stock DHCP client on a LAN behind the mobile node, and a command that
         it runs, each with a home address of its own, download at once during the moves of roam.
hundred  One hundred mobile nodes with the same private care-of address, each behind its own
         home router, all behind one carrier's masquerade, download at the same time.

`scripts/lab --help` draws the networks. Everything is written to target/demo/: demo.json,
and with the tours a plot, captures, logs and the agents' configs. Nothing else is left
behind, also after ^C. The exit code is 0 only if all that was promised was kept.
"""

import argparse
import json
import sys
from dataclasses import replace

import hundred
import mtu
import sessions
import tour
from agents import ENCAPSULATIONS, Choices
from lab import build_directory
from runs import common_arguments, guarded

DIRECTORY = "demo"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line of scripts/demo."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("roam", "nat", "mtu", "sessions", "hundred"), default="roam",
                        help="see above (default: %(default)s)")
    common_arguments(parser)
    parser.add_argument("--bytes", type=int, help="size of each download (default: 200 MB; sessions: 60 MB each; hundred: 2 MB each)")
    parser.add_argument("--encap", choices=ENCAPSULATIONS,
                        help="roam: the encapsulation that the node asks for (default: ip-in-ip); "
                             "mtu: only this one (default: each in turn)")
    parser.add_argument("--nat-traversal", choices=("rfc3519", "challenge", "both"),
                        help="nat: how the home agent detects a NAT (default: both, one after the other); "
                             "hundred: rfc3519 (default) or challenge")
    parser.add_argument("--nodes", type=int, help="hundred: how many (default: 100)")
    parser.add_argument("--keep", action="store_true", help="leave the lab up afterwards, to look around")
    options = parser.parse_args(words)
    for name, of in (("encap", ("roam", "mtu")), ("nat_traversal", ("nat", "hundred")), ("nodes", ("hundred",)),
                     ("keep", ("roam", "nat", "sessions", "hundred"))):
        if getattr(options, name) and options.what not in of:
            parser.error(f"--{name.replace('_', '-')} goes with {' and '.join(of)}")
    sizes = {"hundred": 2_000_000, "sessions": 60_000_000}
    options.bytes = options.bytes if options.bytes is not None else sizes.get(options.what, 200_000_000)
    options.nodes = options.nodes if options.nodes is not None else 100
    if options.bytes < 1 or not 1 <= options.nodes <= hundred.MOST:
        parser.error(f"--bytes is at least 1, --nodes from 1 to {hundred.MOST}")
    if options.nat_traversal == "both" and options.what == "hundred":
        parser.error("hundred goes with one --nat-traversal at a time")
    if options.keep and options.what == "nat" and options.nat_traversal in (None, "both"):
        parser.error("--keep goes with one --nat-traversal at a time")
    return options


def perform(options: argparse.Namespace) -> tuple[dict, int]:
    """(what demo.json says, the exit code)."""
    directory = build_directory() / DIRECTORY
    choices = Choices(ports=options.ports)
    if options.what == "roam":
        run = tour.Tour(options, tour.roam(replace(choices, encap=options.encap or "ip-in-ip")), directory)
        return run.main(), run.verdict()
    if options.what == "sessions":
        run = sessions.Sessions(options, choices, directory)
        return run.main(), run.verdict()
    if options.what == "nat":
        modes = ("rfc3519", "challenge") if options.nat_traversal in (None, "both") else (options.nat_traversal,)
        runs, code = [], 0
        for mode in modes:
            print(f"{'' if not runs else chr(10)}nat_traversal = \"{mode}\"", flush=True)
            run = tour.Tour(options, tour.nat(replace(choices, nat_traversal=mode)), directory / mode)
            runs.append(run.main())
            code |= run.verdict()
        return {"demo": "nat", "sha256_ok": all(run["sha256_ok"] for run in runs), "runs": runs}, code
    run = {"mtu": mtu.Mtu, "hundred": hundred.Hundred}[options.what](options, choices, directory)
    return run.main(), run.verdict()


def main() -> int:
    """`scripts/demo`, after the build."""
    options = arguments()
    path = build_directory() / DIRECTORY / "demo.json"
    path.unlink(missing_ok=True)
    report, code = perform(options)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n  {path}")
    return code


if __name__ == "__main__":
    sys.exit(guarded(main))
