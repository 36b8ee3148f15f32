"""A lab: mobile nodes, their agents and a correspondent, in network namespaces.

Moving the mobile node takes its link down, puts the far end on another bridge and takes
it up again: its carrier really goes and comes back.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import agents
from agents import Choices
from topologies import ROAM, TOPOLOGIES, Topology

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = Path("/run/netns")
READY_SECONDS = 20
STOP_SECONDS = 5
MOST_TAILS = 8
MASQUERADE = """table ip outside {{
    chain post {{ type nat hook postrouting priority srcnat; oifname "{outside}" masquerade; }}
}}
"""


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


def build_directory() -> Path:
    """Cargo's target directory."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def wait_until(condition, seconds: float, step: float = 0.05) -> bool:
    """Polls `condition` until it holds; whether it did in time."""
    end = time.monotonic() + seconds
    while True:
        if condition():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(step)


def processes_in(namespaces: list[str]) -> set[int]:
    """Who runs in these network namespaces, this process excepted. (`ip netns pids` reads
    all of /proc once for each.)"""
    wanted = {(NAMESPACES / name).stat().st_ino for name in namespaces if (NAMESPACES / name).exists()}
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "ns" / "net").stat().st_ino in wanted:
                found.add(int(entry.name))
        except OSError:
            continue
    return found - {os.getpid()}


class Lab:
    """The namespaces called `NAME-cn`, `NAME-r`, … and what runs in them."""

    def __init__(self, name: str, directory: Path, binaries: Path, topology: Topology = ROAM):
        self.name = name
        self.topology = topology
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

    def unlock(self) -> None:
        """Gives the name back."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def kept(self) -> dict | None:
        """What `scripts/lab up` (or `scripts/demo --keep`) left up on purpose."""
        state = self._state()
        return state if state and state.get("keep") else None

    def resume(self, state: dict) -> None:
        """Becomes the lab that is up already."""
        self.directory, self.binaries = Path(state["directory"]), Path(state["binaries"])
        self.topology = TOPOLOGIES[state["topology"]]

    def _state(self) -> dict | None:
        try:
            return json.loads((self.run / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def save(self, keep: bool, **more: object) -> None:
        """Writes down what this lab is, for later calls."""
        self.run.mkdir(parents=True, exist_ok=True)
        state = {"keep": keep, "topology": self.topology.name, "nodes": self.topology.nodes,
                 "directory": str(self.directory), "binaries": str(self.binaries),
                 "since": time.strftime("%F %T"), **more}
        (self.run / "state.json").write_text(json.dumps(state), encoding="utf-8")

    # Up and down.

    def up(self, choices: Choices = Choices(), plain: bool = False) -> None:
        """Lays the cables. Nothing runs yet, except the DHCP servers."""
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: run it with sudo")
        self.down()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.save(keep=False)
        for node in self.topology.nodes:
            run("ip", "netns", "add", self.namespace(node))
        self._tune()
        self._lay_cables()
        if choices.ports == "dpdk" and not plain:
            self._without_offloads()
        if choices.ports == "af_xdp" and not plain:
            self._forwarding_agents()
        if plain:
            self._plain_routers()
        for node, outside in self.topology.masquerades.items():
            run(*self.inside(node, "nft", "-f", "-"), stdin=MASQUERADE.format(outside=outside))
        if "mn" in self.topology.nodes:
            self.move(self.topology.networks[0])
        self._start_dhcp()

    def down(self) -> None:
        """Ends what runs in the namespaces and removes them, whoever made them."""
        nodes = {node for topology in TOPOLOGIES.values() for node in topology.nodes}
        nodes.update(self.topology.nodes, (self._state() or {}).get("nodes", ()))
        mine = [name for name in map(self.namespace, sorted(nodes)) if (NAMESPACES / name).exists()]
        # The mobile nodes first, so that they can still deregister; then the rest.
        self._end_processes([name for name in mine if name.startswith(self.namespace("mn"))])
        self._end_processes(mine)
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
        return all((NAMESPACES / self.namespace(node)).exists() for node in self.topology.nodes)

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

    def start_agents(self, choices: Choices = Choices(), record: bool = False) -> None:
        """Starts every homeportd and homeport-mn, and waits until each answers; with a journal
        of each homeportd in journal/ if asked."""
        shutil.rmtree(self.directory / "journal", ignore_errors=True)
        paths = agents.write(self.directory / "etc", self.topology.configs(self.run, choices))
        nodes = (*self.topology.agents, *self.topology.mobile_nodes)
        for node in nodes:
            is_agent = node in self.topology.agents
            program = self.binaries / ("homeportd" if is_agent else "homeport-mn")
            if not program.exists():
                raise LabError(f"{program} is not built: cargo build --release")
            recorded = ("--record", self.journal(node)) if record and is_agent else ()
            self.start(node, node, program, "--config", paths[node], *recorded)
        for node in nodes:
            if not wait_until(lambda node=node: self.dead(node) or self.answers(node), READY_SECONDS):
                raise LabError(f"{node} did not answer on its admin socket within {READY_SECONDS} s")
            if self.dead(node):
                raise LabError(f"{node} ended at its start")

    def journal(self, node: str) -> Path:
        """Where a homeportd that is recorded keeps its journal."""
        return self.directory / "journal" / node

    def replay(self, node: str) -> dict:
        """What comes of running a homeportd's journal again."""
        shown = run(self.binaries / "homeport", "--json", "replay", "--journal", self.journal(node), check=False)
        return json.loads(shown)

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

    def show_list(self, node: str, what: str) -> list[dict]:
        """What `show` lists under the noun itself."""
        return self.show(node, what)[what]

    def encapsulations(self, node: str) -> list[str]:
        """How a home agent reaches its nodes."""
        return [care_of["encapsulation"] for binding in self.show_list(node, "bindings")
                for care_of in binding["care_of_addresses"]]

    def pid(self, name: str) -> int:
        """The process of a program that was started."""
        return int((self.run / f"{name}.pid").read_text())

    def move(self, network: str) -> None:
        """Takes the mobile node's link down, and up again on another network."""
        if network not in self.topology.networks:
            raise LabError(f"no network `{network}`: it is one of {', '.join(self.topology.networks) or 'none'}")
        run("ip", "-n", self.namespace("sw"), "-batch", "-",
            stdin=f"link set mn down\nlink set mn master br-{network}\nlink set mn up\n")
        (self.run / "network").write_text(network, encoding="ascii")

    def move_plain(self, network: str) -> None:
        """A move without mobility: the node takes an address of the new link."""
        self.move(network)
        address, gateway = self.topology.plain_mobile_node[network]
        run("ip", "-n", self.namespace("mn"), "-batch", "-",
            stdin=f"address flush dev eth0\naddress add {address} dev eth0\nroute add default via {gateway}\n")

    def network(self) -> str:
        """Where the mobile node hangs."""
        ports = json.loads(run("ip", "-n", self.namespace("sw"), "-json", "link", "show", "dev", "mn"))
        return ports[0].get("master", "br-nowhere").removeprefix("br-")

    def tails(self, lines: int = 15) -> str:
        """The last lines of every program's log, for a failure."""
        text = ""
        for name in [*self.topology.agents, *self.topology.mobile_nodes, *self._children][:MOST_TAILS]:
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
        for node in self.topology.nodes:
            conf = "/proc/sys/net/ipv4/conf"
            script = ("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do [ -e $f ] && echo 1 >$f; done; "
                      f"echo 0 >{conf}/all/rp_filter; echo 0 >{conf}/default/rp_filter; ")
            if node in self.topology.routers:
                script += "echo 1 >/proc/sys/net/ipv4/ip_forward; "
            self.exec(node, "sh", "-c", script + "ip link set lo up")

    def _lay_cables(self) -> None:
        networks, nodes = self.topology.networks, self.topology.nodes
        switch_ports = {**{network: network for network in networks}, **self.topology.switch_ports}
        bridges = "".join(f"link add br-{bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                          f"link set br-{bridge} up\n" for bridge in (*networks, *self.topology.bridges))
        if bridges:
            run("ip", "-n", self.namespace("sw"), "-batch", "-", stdin=bridges)
        for number, cable in enumerate(self.topology.cables):
            # The two ends get different indexes: where a veth's own index equals its
            # peer's, Linux takes it for a device of its own and may report its carrier
            # up to a second late (net/core/link_watch.c, linkwatch_urgent_event).
            index = 100 + 2 * number
            words = []
            for offset, end in enumerate((cable.near, cable.far)):
                who = nodes.index(end.node) << 16 | index + offset
                mac = "02:48:" + who.to_bytes(4, "big").hex(":")
                words.append((end.interface, "index", index + offset, "mtu", cable.mtu, "address", mac))
            run("ip", "-n", self.namespace(cable.near.node), "link", "add", "name", *words[0], "type", "veth",
                "peer", "name", *words[1], "netns", self.namespace(cable.far.node))
            for node, interface, address in (cable.near, cable.far):
                lines = ""
                if node == "sw" and interface in switch_ports:
                    lines += f"link set dev {interface} master br-{switch_ports[interface]}\n"
                if address:
                    lines += f"address add {address} dev {interface}\n"
                if (node, interface) != ("sw", "mn"):
                    lines += f"link set dev {interface} up\n"
                if lines:
                    run("ip", "-n", self.namespace(node), "-batch", "-", stdin=lines)
        for node, routes in self.topology.routes.items():
            run("ip", "-n", self.namespace(node), "-batch", "-",
                stdin="".join(f"route add {route}\n" for route in routes))

    def _without_offloads(self) -> None:
        """Nobody leaves checksums or segments to the NIC: DPDK's net_af_packet neither
        finishes checksums nor splits super-frames. (A real NIC under DPDK needs none of
        this, nor do AF_PACKET ports.)"""
        for cable in self.topology.cables:
            for node, interface, _ in (cable.near, cable.far):
                self.exec(node, "ethtool", "-K", interface, "tx", "off", "rx", "off", "sg", "off", "tso", "off",
                          "gso", "off", "gro", "off")

    def _forwarding_agents(self) -> None:
        """On AF_XDP ports the kernel keeps what is not claimed, such as the packets of a
        node at home: there it is the kernel that forwards them."""
        for node in self.topology.agents:
            self.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")

    def _plain_routers(self) -> None:
        for node, ((if1, address1), (if2, address2), gateway) in self.topology.plain_routers.items():
            self.exec(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
            run("ip", "-n", self.namespace(node), "-batch", "-",
                stdin=f"address add {address1} dev {if1}\naddress add {address2} dev {if2}\n"
                      f"route add default via {gateway}\n")
        address, gateway = self.topology.plain_mobile_node["home"]
        run("ip", "-n", self.namespace("mn"), "-batch", "-",
            stdin=f"address add {address} dev eth0\nroute add default via {gateway}\n")

    def _start_dhcp(self) -> None:
        for server in self.topology.dhcp:
            # --no-ping: else it pings an address for three seconds before it offers it.
            self.start(server.node, f"dnsmasq-{server.node}", "dnsmasq", "--keep-in-foreground", "--log-facility=-",
                       "--conf-file=/dev/null", "--port=0", f"--interface={server.interface}", "--bind-interfaces",
                       "--no-ping", "--dhcp-authoritative", "--dhcp-rapid-commit",
                       f"--dhcp-range={server.first},{server.last},255.255.255.0,1h",
                       f"--dhcp-option=option:router,{server.router}", "--user=root", "--log-dhcp",
                       f"--dhcp-leasefile={self.run}/leases-{server.node}",
                       f"--pid-file={self.run}/dnsmasq-{server.node}.own.pid")
        for server in self.topology.dhcp:
            name = f"dnsmasq-{server.node}"
            log = self.directory / f"{name}.log"
            if not wait_until(lambda: "DHCP, IP range" in log.read_text(errors="replace") or self.dead(name), 5) \
                    or self.dead(name):
                raise LabError(f"dnsmasq did not start: {log.read_text(errors='replace').strip()}")

    def _end_processes(self, namespaces: list[str]) -> None:
        def running() -> set[int]:
            for child in self._children.values():
                child.poll()
            return processes_in(namespaces)

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
