"""The lab: a mobile node, its agents and a correspondent, in network namespaces.

    cn ──────── r ──┬──────── ha ──────── home      ┐
 192.0.2.2          ├──────── fa1 ─────── visited1  │  bridges in `sw`;
                    ├──────── fa2 ─────── visited2  ├─ `mn` hangs on one of them
                    └──────── gw ──────── visited3  ┘  and is moved to another

cn    correspondent node, a plain Linux host, 192.0.2.2
r     plain Linux router: 192.0.2.1, 10.0.1.1, 10.0.2.1, 10.0.3.1, 10.0.4.1
ha    homeportd, home agent: core 10.0.1.2, home link 10.1.0.1/24
fa1   homeportd, foreign agent: core 10.0.2.2 (its care-of address), link 10.2.1.1/24
fa2   homeportd, foreign agent: core 10.0.3.2 (its care-of address), link 10.2.2.1/24
gw    plain Linux router with DHCP and no agent: core 10.0.4.2, link 10.2.3.1/24
sw    a switch per access network: the bridges home, visited1, visited2, visited3
mn    homeport-mn: eth0, whose other end is a port of one bridge; home address 10.1.0.10

Moving the mobile node takes the link down, puts its far end on another bridge and
takes it up again: its carrier really goes and comes back.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import agents

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("home", "visited1", "visited2", "visited3")
NODES = ("cn", "r", "ha", "fa1", "fa2", "gw", "sw", "mn")
AGENTS = ("ha", "fa1", "fa2")
CORRESPONDENT = "192.0.2.2"

# (node, interface, its IPv4 address or none) at both ends of each cable. An agent's
# interfaces carry no address: its dataplane takes them, and homeportd puts the
# addresses on the ports' kernel twins.
CABLES = (
    (("cn", "eth0", f"{CORRESPONDENT}/24"), ("r", "cn", "192.0.2.1/24")),
    (("r", "ha", "10.0.1.1/24"), ("ha", "core", None)),
    (("r", "fa1", "10.0.2.1/24"), ("fa1", "core", None)),
    (("r", "fa2", "10.0.3.1/24"), ("fa2", "core", None)),
    (("r", "gw", "10.0.4.1/24"), ("gw", "core", "10.0.4.2/24")),
    (("ha", "home", None), ("sw", "home", None)),
    (("fa1", "visited", None), ("sw", "visited1", None)),
    (("fa2", "visited", None), ("sw", "visited2", None)),
    (("gw", "visited", "10.2.3.1/24"), ("sw", "visited3", None)),
    (("mn", "eth0", None), ("sw", "mn", None)),
)
ROUTES = {
    "cn": ("default via 192.0.2.1",),
    "r": ("10.1.0.0/24 via 10.0.1.2", "10.2.1.0/24 via 10.0.2.2", "10.2.2.0/24 via 10.0.3.2",
          "10.2.3.0/24 via 10.0.4.2"),
    "gw": ("default via 10.0.4.1",),
}
# `--plain`: the agents are plain routers, and the mobile node takes another address
# on each link, without mobility.
PLAIN_ADDRESSES = {
    "ha": (("core", "10.0.1.2/24"), ("home", "10.1.0.1/24"), "10.0.1.1"),
    "fa1": (("core", "10.0.2.2/24"), ("visited", "10.2.1.1/24"), "10.0.2.1"),
    "fa2": (("core", "10.0.3.2/24"), ("visited", "10.2.2.1/24"), "10.0.3.1"),
}
PLAIN_MOBILE_NODE = {"home": ("10.1.0.10/24", "10.1.0.1"), "visited1": ("10.2.1.10/24", "10.2.1.1"),
                     "visited2": ("10.2.2.10/24", "10.2.2.1"), "visited3": ("10.2.3.10/24", "10.2.3.1")}

READY_SECONDS = 20
STOP_SECONDS = 5


class LabError(Exception):
    """Something that the person at the keyboard should read, in a sentence."""


def run(*command: object, stdin: str | None = None, check: bool = True) -> str:
    """Runs a command; its standard output, or a `LabError` with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=60, check=False,
                              start_new_session=True)
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is missing: scripts/setup installs what Debian has, cargo builds the rest") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(words)}` did not end within a minute") from error
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(words)}` failed: {said}")
    return done.stdout


def wait_until(condition, seconds: float, step: float = 0.05) -> bool:
    """Polls `condition` until it holds; whether it did in time."""
    end = time.monotonic() + seconds
    while True:
        if condition():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(step)


class Lab:
    """The namespaces called `NAME-cn`, `NAME-r`, … and what runs in them."""

    def __init__(self, name: str, directory: Path, binaries: Path):
        self.name = name
        self.directory = directory
        self.binaries = binaries
        self.run = Path("/run/homeport-lab") / name
        self._lock: socket.socket | None = None
        self._children: dict[str, subprocess.Popen] = {}

    # Who may touch it.

    def lock(self) -> None:
        """Takes the name for this process; an abstract socket dies with its owner."""
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0homeport-lab-{self.name}")
        except OSError as error:
            lock.close()
            raise LabError(f"another run uses the lab `{self.name}` now; wait for it, or choose "
                           "another name with --name") from error
        self._lock = lock

    def kept(self) -> dict | None:
        """What `scripts/lab up` (or `scripts/demo --keep`) left up on purpose."""
        try:
            state = json.loads((self.run / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return state if state.get("keep") else None

    def save(self, keep: bool, **more: object) -> None:
        """Writes down what this lab is, for later calls."""
        self.run.mkdir(parents=True, exist_ok=True)
        state = {"keep": keep, "directory": str(self.directory), "binaries": str(self.binaries),
                 "since": time.strftime("%F %T"), **more}
        (self.run / "state.json").write_text(json.dumps(state), encoding="utf-8")

    # Up and down.

    def up(self, ports: str = "af_packet", plain: bool = False) -> None:
        """Lays the cables. Nothing runs yet, except the DHCP server."""
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: run it with sudo")
        self.down()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(parents=True, exist_ok=True)
        for node in NODES:
            run("ip", "netns", "add", self.namespace(node))
        self._tune()
        self._lay_cables()
        if ports == "dpdk" and not plain:
            self._without_offloads()
        if plain:
            self._plain_routers()
        self.move("home")
        self._start_dhcp()

    def down(self) -> None:
        """Ends what runs in the namespaces and removes them, whoever made them."""
        present = set(run("ip", "netns", "list").split())
        mine = [self.namespace(node) for node in NODES if self.namespace(node) in present]
        # The mobile node first, so that it can still deregister; then the rest.
        for group in ([self.namespace("mn")], mine):
            self._end_processes([name for name in group if name in present])
        for name in mine:
            run("ip", "netns", "delete", name)
        self._children.clear()
        shutil.rmtree(self.run, ignore_errors=True)
        try:
            self.run.parent.rmdir()
        except OSError:
            pass

    def is_up(self) -> bool:
        """Whether all its namespaces are there."""
        present = set(run("ip", "netns", "list").split())
        return all(self.namespace(node) in present for node in NODES)

    # What people and programs do with it.

    def namespace(self, node: str) -> str:
        """The network namespace of a node."""
        return f"{self.name}-{node}"

    def inside(self, node: str, *command: object) -> list[str]:
        """The command line that runs `command` in a node."""
        return ["ip", "netns", "exec", self.namespace(node), *(str(word) for word in command)]

    def exec(self, node: str, *command: object, check: bool = True) -> str:
        """Runs a command in a node to its end; its standard output."""
        return run(*self.inside(node, *command), check=check)

    def start(self, node: str, name: str, *command: object, **options) -> subprocess.Popen:
        """Starts a program in a node, out of reach of the terminal's ^C, and logs it."""
        log = self.directory / f"{name}.log"
        if "stdout" not in options:
            options["stdout"] = open(log, "wb")
        if "stderr" not in options:
            options["stderr"] = subprocess.STDOUT
        child = subprocess.Popen(self.inside(node, *command), stdin=subprocess.DEVNULL,
                                 start_new_session=True, **options)
        (self.run / f"{name}.pid").write_text(f"{child.pid}\n", encoding="ascii")
        self._children[name] = child
        return child

    def start_agents(self, ports: str) -> None:
        """Starts the three homeportd and homeport-mn, and waits until each answers."""
        paths = agents.write(self.directory / "etc", self.run, ports)
        for node in (*AGENTS, "mn"):
            program = self.binaries / ("homeport-mn" if node == "mn" else "homeportd")
            if not program.exists():
                raise LabError(f"{program} is not built: cargo build --release")
            self.start(node, node, program, "--config", paths[node])
        for node in (*AGENTS, "mn"):
            if not wait_until(lambda node=node: self.dead(node) or self.answers(node), READY_SECONDS):
                raise LabError(f"{node} did not answer on its admin socket within {READY_SECONDS} s")
            if self.dead(node):
                raise LabError(f"{node} ended at its start")

    def dead(self, name: str) -> bool:
        """Whether a program that this object started has ended."""
        return self._children[name].poll() is not None

    def answers(self, node: str) -> bool:
        """Whether the agent's admin socket answers."""
        try:
            self.show(node, "status")
        except (LabError, ValueError):
            return False
        return True

    def show(self, node: str, what: str) -> object:
        """`homeport --json show WHAT` of the agent in `node`."""
        return json.loads(run(self.binaries / "homeport", "--socket", self.run / f"{node}.sock", "--json",
                              "show", *what.split()))

    def move(self, network: str) -> None:
        """Takes the mobile node's link down, and up again on another network."""
        if network not in NETWORKS:
            raise LabError(f"no network `{network}`: it is one of {', '.join(NETWORKS)}")
        run("ip", "-n", self.namespace("sw"), "-batch", "-",
            stdin=f"link set mn down\nlink set mn master br-{network}\nlink set mn up\n")
        (self.run / "network").write_text(network, encoding="ascii")

    def move_plain(self, network: str) -> None:
        """A move without mobility: the node takes an address of the new link."""
        self.move(network)
        address, gateway = PLAIN_MOBILE_NODE[network]
        run("ip", "-n", self.namespace("mn"), "-batch", "-",
            stdin=f"address flush dev eth0\naddress add {address} dev eth0\nroute add default via {gateway}\n")

    def network(self) -> str:
        """Where the mobile node hangs."""
        ports = json.loads(run("ip", "-n", self.namespace("sw"), "-json", "link", "show", "dev", "mn"))
        return ports[0].get("master", "br-nowhere").removeprefix("br-")

    def tails(self, lines: int = 15) -> str:
        """The last lines of every program's log, for a failure."""
        text = ""
        for name in (*AGENTS, "mn", "dnsmasq", *self._children):
            path = self.directory / f"{name}.log"
            if f"── {path}" in text or not path.exists():
                continue
            last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            text += f"── {path}\n" + "".join(f"   {line}\n" for line in last)
        return text

    # How it is made.

    def _tune(self) -> None:
        """IPv6 off everywhere (its chatter only blurs the captures); forwarding on in the
        plain routers; no reverse-path filter, which would refuse what a tunnel brings."""
        for node in NODES:
            conf = "/proc/sys/net/ipv4/conf"
            script = ("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do [ -e $f ] && echo 1 >$f; done; "
                      f"echo 0 >{conf}/all/rp_filter; echo 0 >{conf}/default/rp_filter; ")
            if node in ("r", "gw"):
                script += "echo 1 >/proc/sys/net/ipv4/ip_forward; "
            self.exec(node, "sh", "-c", script + "ip link set lo up")

    def _lay_cables(self) -> None:
        bridges = "".join(f"link add br-{network} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                          f"link set br-{network} up\n" for network in NETWORKS)
        run("ip", "-n", self.namespace("sw"), "-batch", "-", stdin=bridges)
        for number, (near, far) in enumerate(CABLES):
            # The two ends get different indexes: where a veth's own index equals its
            # peer's, Linux takes it for a device of its own and may report its carrier
            # up to a second late (net/core/link_watch.c, linkwatch_urgent_event).
            index = 100 + 2 * number
            ends = []
            for offset, (node, interface, _) in enumerate((near, far)):
                mac = f"02:48:50:00:{NODES.index(node):02x}:{index + offset:02x}"
                ends.append((self.namespace(node), interface, index + offset, mac))
            (ns1, if1, index1, mac1), (ns2, if2, index2, mac2) = ends
            run("ip", "-n", ns1, "link", "add", if1, "index", index1, "address", mac1, "type", "veth",
                "peer", "name", if2, "index", index2, "address", mac2, "netns", ns2)
            for node, interface, address in (near, far):
                lines = ""
                if node == "sw" and interface in NETWORKS:
                    lines += f"link set {interface} master br-{interface}\n"
                if address:
                    lines += f"address add {address} dev {interface}\n"
                if (node, interface) != ("sw", "mn"):
                    lines += f"link set {interface} up\n"
                run("ip", "-n", self.namespace(node), "-batch", "-", stdin=lines)
        for node, routes in ROUTES.items():
            run("ip", "-n", self.namespace(node), "-batch", "-",
                stdin="".join(f"route add {route}\n" for route in routes))

    def _without_offloads(self) -> None:
        """Nobody leaves checksums or segments to the NIC: DPDK's net_af_packet neither
        finishes checksums nor splits super-frames. (A real NIC under DPDK needs none of
        this, nor do AF_PACKET ports.)"""
        for cable in CABLES:
            for node, interface, _ in cable:
                self.exec(node, "ethtool", "-K", interface, "tx", "off", "rx", "off", "sg", "off", "tso", "off",
                          "gso", "off", "gro", "off")

    def _plain_routers(self) -> None:
        for node, ((if1, address1), (if2, address2), gateway) in PLAIN_ADDRESSES.items():
            self.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
            run("ip", "-n", self.namespace(node), "-batch", "-",
                stdin=f"address add {address1} dev {if1}\naddress add {address2} dev {if2}\n"
                      f"route add default via {gateway}\n")
        address, gateway = PLAIN_MOBILE_NODE["home"]
        run("ip", "-n", self.namespace("mn"), "-batch", "-",
            stdin=f"address add {address} dev eth0\nroute add default via {gateway}\n")

    def _start_dhcp(self) -> None:
        # --no-ping: else it pings an address for three seconds before it offers it.
        self.start("gw", "dnsmasq", "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null",
                   "--port=0", "--interface=visited", "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
                   "--dhcp-rapid-commit", "--dhcp-range=10.2.3.100,10.2.3.200,255.255.255.0,1h",
                   "--dhcp-option=option:router,10.2.3.1", "--user=root", "--log-dhcp",
                   f"--dhcp-leasefile={self.run}/leases", f"--pid-file={self.run}/dnsmasq.own.pid")
        log = self.directory / "dnsmasq.log"
        if not wait_until(lambda: "DHCP, IP range" in log.read_text(errors="replace") or self.dead("dnsmasq"), 5) \
                or self.dead("dnsmasq"):
            raise LabError(f"dnsmasq did not start: {log.read_text(errors='replace').strip()}")

    def _end_processes(self, namespaces: list[str]) -> None:
        def running() -> set[int]:
            pids: set[int] = set()
            for name in namespaces:
                pids.update(int(pid) for pid in run("ip", "netns", "pids", name, check=False).split())
            pids.discard(os.getpid())
            for child in self._children.values():
                child.poll()
            return pids

        def send(number: signal.Signals) -> None:
            for pid in running():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

        # A stopped process hears SIGTERM only when it goes on.
        send(signal.SIGTERM)
        send(signal.SIGCONT)
        if not wait_until(lambda: not running(), STOP_SECONDS):
            send(signal.SIGKILL)
            wait_until(lambda: not running(), STOP_SECONDS)


# The command line.

def build_directory() -> Path:
    """Cargo's target directory."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def arguments() -> argparse.ArgumentParser:
    """`scripts/lab`'s arguments."""
    parser = argparse.ArgumentParser(prog="scripts/lab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=os.environ.get("HOMEPORT_LAB", "hp"),
                        help="prefix of the namespaces, so that several labs can be up (default: hp, "
                             "or $HOMEPORT_LAB)")
    parser.add_argument("--binaries", type=Path, default=build_directory() / "release",
                        help="where the programs are (default: the release build)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="lay the lab, start the agents and leave it up")
    up.add_argument("--ports", choices=("af_packet", "dpdk"), default="af_packet",
                    help="what the agents read their interfaces with (default: %(default)s)")
    up.add_argument("--plain", action="store_true",
                    help="no Homeport: the agents are plain routers, the node has no mobility")
    up.add_argument("--no-agents", action="store_true", help="lay the cables only; start the agents yourself")
    commands.add_parser("down", help="end everything and remove it")
    commands.add_parser("status", help="what is up and where the mobile node is")
    move = commands.add_parser("move", help="take the mobile node to another network")
    move.add_argument("network", choices=NETWORKS)
    show = commands.add_parser("show", help="`homeport show …` of an agent")
    show.add_argument("node", choices=(*AGENTS, "mn"))
    show.add_argument("what", nargs=argparse.REMAINDER, help="status, bindings, visitors, …")
    execute = commands.add_parser("exec", help="run a command in a node")
    execute.add_argument("node", choices=NODES)
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD …")
    return parser


def print_status(lab: Lab) -> None:
    """One line per node."""
    state = lab.kept() or {}
    print(f"lab `{lab.name}`, up since {state.get('since', 'just now')}, logs in {lab.directory}")
    for node in NODES:
        addresses = json.loads(run("ip", "-n", lab.namespace(node), "-json", "-4", "address"))
        listed = [f"{entry['ifname']} {address['local']}/{address['prefixlen']}" for entry in addresses
                  for address in entry["addr_info"] if entry["ifname"] != "lo"]
        programs = []
        for pid in run("ip", "netns", "pids", lab.namespace(node)).split():
            try:
                programs.append(f"{Path(f'/proc/{pid}/comm').read_text().strip()}[{pid}]")
            except OSError:
                continue
        where = f"on {lab.network()}" if node == "mn" else ""
        print(f"  {node:4} {' '.join(programs + [where] if where else programs):32} {', '.join(listed)}")


def main() -> int:
    """`scripts/lab`."""
    options = arguments().parse_args()
    lab = Lab(options.name, build_directory() / "lab", options.binaries.resolve())
    kept = lab.kept()
    if kept and options.command != "up":
        lab.directory, lab.binaries = Path(kept["directory"]), Path(kept["binaries"])
    if options.command in ("up", "down"):
        lab.lock()
    elif not lab.is_up():
        raise LabError(f"the lab `{options.name}` is not up: scripts/lab up")
    if options.command == "up":
        try:
            lab.up(ports=options.ports, plain=options.plain)
            if not (options.plain or options.no_agents):
                lab.start_agents(options.ports)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                print(lab.tails(), file=sys.stderr)
            lab.down()
            raise
        lab.save(keep=True, plain=options.plain, ports=options.ports)
        print_status(lab)
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
