"""Lays a network of namespaces with Homeport in it, and leaves it up to look around in.

The node `mn` is moved by taking its link down, putting the far end on another bridge and
taking it up again: its carrier really goes and comes back, and nobody tells it where it is.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from agents import PORTS, Choices
from lab import Lab, LabError, build_directory, processes_in, run
from topologies import ROAM, TOPOLOGIES


def pictures() -> str:
    """All topologies, drawn."""
    parts = [f"{topology.name}: {topology.summary}\n\n{topology.picture}\n" for topology in TOPOLOGIES.values()]
    return "topologies:\n\n" + "\n\n".join(parts)


def arguments() -> argparse.ArgumentParser:
    """`scripts/lab`'s arguments."""
    parser = argparse.ArgumentParser(prog="scripts/lab", description=__doc__, epilog=pictures(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=os.environ.get("HOMEPORT_LAB", "hp"),
                        help="prefix of the namespaces, so that several labs can be up (default: hp, "
                             "or $HOMEPORT_LAB)")
    parser.add_argument("--binaries", type=Path, default=build_directory() / "release",
                        help="where the programs are (default: the release build)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="lay a lab, start the agents and leave it up", epilog=pictures(),
                             formatter_class=argparse.RawDescriptionHelpFormatter)
    up.add_argument("topology", nargs="?", choices=tuple(TOPOLOGIES), default=ROAM.name,
                    help="which one (default: %(default)s)")
    up.add_argument("--ports", choices=PORTS, default="af_packet",
                    help="what the agents read their interfaces with (default: %(default)s)")
    up.add_argument("--plain", action="store_true",
                    help="no Homeport: the agents are plain routers, the node has no mobility (roam only)")
    up.add_argument("--no-agents", action="store_true", help="lay the cables only; start the agents yourself")
    commands.add_parser("down", help="end everything and remove it")
    commands.add_parser("status", help="what is up and where the mobile node is")
    move = commands.add_parser("move", help="take the mobile node to another network")
    move.add_argument("network")
    show = commands.add_parser("show", help="`homeport show …` of an agent or a mobile node")
    show.add_argument("node")
    show.add_argument("what", nargs=argparse.REMAINDER, help="status, bindings, visitors, …")
    execute = commands.add_parser("exec", help="run a command in a node")
    execute.add_argument("node")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD …")
    return parser


def print_status(lab: Lab) -> None:
    """One line per node."""
    state = lab.kept() or {}
    print(f"lab `{lab.name}` ({lab.topology.name}), up since {state.get('since', 'just now')}, logs in {lab.directory}")
    for node in lab.topology.nodes:
        addresses = json.loads(run("ip", "-n", lab.namespace(node), "-json", "-4", "address"))
        listed = [f"{entry['ifname']} {address['local']}/{address['prefixlen']}" for entry in addresses
                  for address in entry["addr_info"] if entry["ifname"] != "lo"]
        programs = []
        for pid in sorted(processes_in([lab.namespace(node)])):
            try:
                programs.append(f"{Path(f'/proc/{pid}/comm').read_text().strip()}[{pid}]")
            except OSError:
                continue
        where = f"on {lab.network()}" if node == "mn" and lab.topology.networks else ""
        print(f"  {node:6} {' '.join(programs + [where] if where else programs):32} {', '.join(listed)}")


def print_hints(lab: Lab) -> None:
    """What to try."""
    print(f"\n{lab.topology.picture}\n\nTo try:")
    width = max(len(command) for command, _ in lab.topology.hints)
    for command, shows in (*lab.topology.hints, ("scripts/lab down", "end everything and remove it")):
        print(f"  {command:{width}}  # {shows}")


def bring_up(lab: Lab, options: argparse.Namespace) -> None:
    """`scripts/lab up`."""
    lab.topology = TOPOLOGIES[options.topology]
    if options.plain and not lab.topology.plain_routers:
        raise LabError(f"there is no --plain of `{lab.topology.name}`")
    choices = Choices(ports=options.ports)
    try:
        print(f"laying {len(lab.topology.nodes)} nodes and {len(lab.topology.cables)} cables", flush=True)
        lab.up(choices, plain=options.plain)
        if not (options.plain or options.no_agents):
            programs = len(lab.topology.agents) + len(lab.topology.mobile_nodes)
            print(f"starting {programs} Homeport processes", flush=True)
            lab.start_agents(choices)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            print(lab.tails(), file=sys.stderr)
        lab.down()
        raise
    lab.save(keep=True, plain=options.plain, ports=options.ports)
    if len(lab.topology.nodes) < 20:
        print_status(lab)
    print_hints(lab)


def main() -> int:
    """`scripts/lab`."""
    options = arguments().parse_args()
    lab = Lab(options.name, build_directory() / "lab", options.binaries.resolve())
    kept = lab.kept()
    if kept and options.command != "up":
        lab.resume(kept)
    if options.command in ("up", "down"):
        lab.lock()
    elif not lab.is_up():
        raise LabError(f"the lab `{options.name}` is not up: scripts/lab up")
    nodes = lab.topology.nodes
    if options.command == "show":
        nodes = (*lab.topology.agents, *lab.topology.mobile_nodes)
    if options.command in ("show", "exec") and options.node not in nodes:
        raise LabError(f"no `{options.node}` to {options.command} here: it is one of {', '.join(nodes)}")
    if options.command == "up":
        bring_up(lab, options)
    elif options.command == "down":
        lab.down()
    elif options.command == "status":
        print_status(lab)
    elif options.command == "move":
        (lab.move_plain if (kept or {}).get("plain") else lab.move)(options.network)
    elif options.command == "show":
        command = [str(lab.binaries / "homeport"), "--socket", str(lab.run / f"{options.node}.sock"), "show"]
        os.execv(command[0], command + (options.what or ["status"]))
    elif options.command == "exec":
        words = options.words or [os.environ.get("SHELL", "sh")]
        os.execvp("ip", lab.inside(options.node, *words))
    return 0


def on_signal(number, _frame):
    """Unwinds, so that what was begun is undone; also where ^C came in ignored."""
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
    try:
        sys.exit(main())
    except LabError as problem:
        sys.exit(f"lab: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Who read along has seen enough. Python shall not say so once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
