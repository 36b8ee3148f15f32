"""A stranger at the tunnel's other end: the Linux kernel's own ipip, gre and fou.

A QEMU guest with Debian's cloud kernel and nothing of Homeport's is the mobile node. It
registers (the messages are made here and sent by the guest's own shell), and its kernel
encapsulates and decapsulates:

    cn ──────── r ──┬──────── ha            homeportd, home agent
 192.0.2.2          ├─────────────── direct ┐  bridges in `sw`; on one of
                    └──────── masq ─ nat    ┘  them the TAP of the guest

 ipip      IP in IP (RFC 2003)
 gre       GRE (RFC 2784)
 gre-key   GRE with a key (RFC 2890), asked for as RFC 6245 says
 fou       IP in plain UDP, through the masquerade, after a challenge

Each is checked by ping both ways (also longer than the tunnel, so that it is fragmented),
by TCP both ways with SHA-256, by what was really on the wire, and by the guest's and the
home agent's own counters of errors.

Writes target/interop/interop.json, a capture of the guest's wire for each, logs and
configs. Removes everything else that it made, also after ^C; the unpacked kernel package
stays in target/interop/kernel for the next time.
"""

import argparse
import base64
import hashlib
import json
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import agents
from agents import CORRESPONDENT, Choices
from guest import Guest, Kernel
from lab import LabError, build_directory, run, wait_until
from registration import (ACCEPTED, CHALLENGE, CO_LOCATED, FAILED_AUTHENTICATION, GRE, GRE_KEY, REVERSE_TUNNEL,
                          Association, RegistrationError, Reply, Request)
from runs import Run, common_arguments, guarded
from screen import GREEN, RED
from topologies import CORRESPONDENT_CABLE, HOME_CABLES, Cable, End, Topology

INTEROP = Topology(
    name="interop", summary="a QEMU guest as mobile node", picture="", hints=(),
    nodes=("cn", "r", "ha", "masq", "sw"),
    agents=("ha",),
    mobile_nodes=(),
    networks=("home", "direct", "nat"),
    cables=(
        CORRESPONDENT_CABLE,
        *HOME_CABLES,
        Cable(End("r", "direct", "10.0.8.1/24"), End("sw", "direct")),
        Cable(End("r", "masq", "10.0.5.1/24"), End("masq", "core", "10.0.5.2/24")),
        Cable(End("masq", "inside", "192.168.7.1/24"), End("sw", "nat")),
    ),
    routes={"cn": ("default via 192.0.2.1",), "r": ("10.1.0.0/24 via 10.0.1.2",), "masq": ("default via 10.0.5.1",)},
    routers=("r", "masq"),
    masquerades={"masq": "core"},
    configs=agents.interop,
)
# network: (the guest's care-of address, its gateway)
CARE_OF = {"direct": ("10.0.8.2", "10.0.8.1"), "nat": ("192.168.7.2", "192.168.7.1")}
KEY = 0xC0FFEE01
LIFETIME = 300
HTTP_PORT = 8080


@dataclass(frozen=True)
class Case:
    """One of the kernel's tunnels."""

    name: str
    # What the home agent calls it, and how tcpdump finds it on the wire.
    encapsulation: str
    wire: str
    network: str
    # `ip link add` of the guest; {care_of} and {port} are filled in.
    link: str
    flags: int = 0
    extensions: tuple[tuple[int, bytes], ...] = ()


CASES = (
    Case("ipip", "ip-in-ip", "ip proto 4", "direct", "type ipip local {care_of} remote {home_agent} ttl 64"),
    Case("gre", "gre", "ip proto 47 and ip[20:4] = 0x00000800", "direct",
         "type gre local {care_of} remote {home_agent} ttl 64", GRE),
    Case("gre-key", "gre", f"ip proto 47 and ip[20:4] = 0x20000800 and ip[24:4] = {KEY:#x}", "direct",
         f"type gre local {{care_of}} remote {{home_agent}} ttl 64 key {KEY}", GRE,
         ((GRE_KEY, KEY.to_bytes(4, "big")),)),
    Case("fou", "plain-udp", "udp port 434 and udp[8] = 0x45", "nat",
         "type ipip local {care_of} remote {home_agent} ttl 64 encap fou encap-sport {port} encap-dport 434"),
)


class Interop(Run):
    """One run."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options, INTEROP, build_directory() / "interop")
        self.path = self.directory / "served.bin"

    def main(self) -> int:
        """Everything, from the first namespace to the last."""
        results = []
        with self.alone():
            self.prepare()
            for case in CASES:
                if case.name in (self.options.only or [case.name]):
                    results.append(self.perform(case))
        report = {"guest": self.kernel, "accelerator": self.guest.accelerator, "cases": results}
        (self.directory / "interop.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        for result in results:
            ok = self.screen.color("ok", GREEN) if result["ok"] else self.screen.color("FAILED", RED)
            print(f"  {result['name']:8} {ok}")
        print(f"\n  guest   Linux {self.kernel} ({report['accelerator']})")
        print(f"  files   {self.directory}: interop.json, *.pcap, *.log, etc/")
        self.problems = [f"{result['name']}: {name}: {text}" for result in results
                         for name, text in result["checks"].items() if text.startswith("WRONG")]
        return self.verdict()

    # Before.

    def prepare(self) -> None:
        """Lays the lab, starts the home agent, boots the guest."""
        step = self.screen.step
        kernel = Kernel(self.directory / "kernel")
        step("Debian's cloud kernel is fetched, unless it is there")
        kernel.fetch()
        choices = Choices(ports=self.options.ports, nat_traversal="challenge")
        self.lab.up(choices)
        run("ip", "-n", self.lab.namespace("sw"), "tuntap", "add", "guest", "mode", "tap")
        self.lab.start_agents(choices)
        key = bytes.fromhex((self.directory / "etc" / "keys" / "mn-ha.key").read_text(encoding="ascii"))
        self.association = Association(agents.MOBILE_HOME_SPI, key)
        step(f"the home agent runs, on {self.options.ports} ports")
        self.guest = Guest(self.lab, "sw", "guest", kernel, offloads=choices.ports != "dpdk")
        step("the guest boots: some seconds by KVM, half a minute by emulation")
        self.kernel = self.guest.boot()
        step(f"the guest runs Linux {self.kernel} by {'KVM' if self.guest.accelerator == 'kvm' else 'emulation'}")
        self.path.write_bytes(secrets.token_bytes(self.options.bytes))
        self.lab.start("cn", "http", sys.executable, "-B", Path(__file__).with_name("serve.py"), self.path,
                       CORRESPONDENT, HTTP_PORT, 1 << 30)
        self.guest.run(f"head -c {self.options.bytes} /dev/urandom >/www/file; httpd -p {HTTP_PORT} -h /www")
        self.guest.run("ip link set eth0 up")

    # During.

    def perform(self, case: Case) -> dict:
        """One tunnel: registered, made, checked, taken away."""
        result = {"name": case.name, "encapsulation": case.encapsulation, "ok": False, "checks": {}}
        self.checks: dict[str, str] = result["checks"]
        self.screen.step(f"{case.name}: {case.encapsulation}, {'behind the masquerade' if case.network == 'nat' else 'no NAT'}")
        run("ip", "-n", self.lab.namespace("sw"), "link", "set", "guest", "master", f"br-{case.network}", "up")
        care_of, gateway = CARE_OF[case.network]
        self.guest.run(f"ip address flush dev eth0; ip address add {care_of}/24 dev eth0; "
                       f"ip route add default via {gateway}")
        capture = self.capture(case)
        try:
            port = self.register(case, LIFETIME)
            self.make_tunnel(case, care_of, port)
            before = self.drops()
            self.check()
            self.note("the home agent dropped", self.judge(self.drops() - before, 0))
        except (LabError, RegistrationError) as problem:
            self.note("it runs", f"WRONG: {problem}")
        finally:
            self.guest.run("ip link delete tun0; ip fou show | sed 's/ .*//;s/^port//' ; "
                           "for p in $(ip fou show | sed -n 's/^port \\([0-9]*\\).*/\\1/p'); do ip fou del port $p; done",
                           check=False)
            capture.terminate()
            capture.wait(timeout=10)
        if "it runs" not in self.checks:
            self.check_wire(case)
            try:
                self.register(case, 0)
            except (LabError, RegistrationError) as problem:
                self.note("it deregisters", f"WRONG: {problem}")
        result["ok"] = all(not text.startswith("WRONG") for text in self.checks.values())
        return result

    def register(self, case: Case, lifetime: int) -> int:
        """Registers from the guest; the UDP port that it came from."""
        care_of, _ = CARE_OF[case.network]
        self.guest.run(f"exec 3<>/dev/udp/{agents.HOME_AGENT}/434")
        try:
            def request(*more: tuple[int, bytes]) -> Request:
                return Request(agents.HOME_ADDRESS, agents.HOME_AGENT, care_of, lifetime,
                               CO_LOCATED | REVERSE_TUNNEL | case.flags, [*case.extensions, *more])

            reply = self.exchange(request())
            # Behind a NAT: denied, and asked to show that it is really there.
            if reply.code == FAILED_AUTHENTICATION and (given := dict(reply.extensions).get(CHALLENGE)):
                reply = self.exchange(request((CHALLENGE, given)))
            if reply.code not in ACCEPTED:
                raise RegistrationError(f"the home agent denies it with {reply.code}")
            listed = self.guest.run("cat /proc/net/udp")
            # sl local_address rem_address …, in hexadecimal; the home agent's port is 434.
            port = re.search(r"^\s*\d+: [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F]{8}:01B2", listed, re.MULTILINE)
            return int(port[1], 16)
        finally:
            self.guest.run("exec 3>&-")

    def exchange(self, request: Request) -> Reply:
        """A request out of the guest's own UDP socket, and the reply that comes to it."""
        text = base64.b64encode(request.emit(self.association)).decode()
        # Not by `timeout`: busybox's stays behind for a while, with the socket in its hands.
        said = self.guest.run(
            f"echo {text} | base64 -d >&3; for i in $(seq 50); do read -t 0 -u 3 && break; sleep 0.1; done; "
            "read -t 0 -u 3 && dd bs=2048 count=1 <&3 2>/dev/null | base64 -w0", check=False)
        message = base64.b64decode(said.strip())
        if not message:
            raise RegistrationError("the home agent does not answer")
        return Reply.parse(message, request, self.association)

    def make_tunnel(self, case: Case, care_of: str, port: int) -> None:
        """The guest's tunnel interface `tun0`, with the home address."""
        if "fou" in case.link:
            self.guest.run(f"ip fou add port {port} ipproto 4")
        link = case.link.format(care_of=care_of, home_agent=agents.HOME_AGENT, port=port)
        self.guest.run(f"ip link add tun0 {link} && ip address add {agents.HOME_ADDRESS}/32 dev tun0 && "
                       f"ip link set tun0 up && ip route add 192.0.2.0/24 dev tun0 src {agents.HOME_ADDRESS}")
        if (shown := self.lab.encapsulations("ha")) != [case.encapsulation]:
            raise LabError(f"the home agent shows {shown}, not {case.encapsulation}")

    def check(self) -> None:
        """Ping and TCP, both ways."""
        for size in (56, 1400, 8000):
            there = self.lab.exec("cn", "ping", "-n", "-q", "-c", "20", "-i", "0.02", "-W", "2", "-s", size,
                                  agents.HOME_ADDRESS, check=False)
            self.note(f"ping to the guest, {size} bytes", self.judge_ping(there))
            back = self.guest.run(f"ping -q -c 3 -W 2 -s {size} {CORRESPONDENT}", check=False)
            self.note(f"ping from the guest, {size} bytes", self.judge_ping(back))
        expected = hashlib.sha256(self.path.read_bytes()).hexdigest()
        got = self.guest.run(f"timeout 100 wget -q -O - http://{CORRESPONDENT}:{HTTP_PORT}/ | sha256sum", 120).split()[0]
        self.note("TCP to the guest", self.judge_sum(got, expected))
        expected = self.guest.run("sha256sum /www/file").split()[0]
        fetched = subprocess.run(
            self.lab.inside("cn", "curl", "-s", f"http://{agents.HOME_ADDRESS}:{HTTP_PORT}/file"),
            capture_output=True, timeout=120, check=False).stdout
        self.note("TCP from the guest", self.judge_sum(hashlib.sha256(fetched).hexdigest(), expected))
        statistics = self.guest.run("cat /sys/class/net/tun0/statistics/{rx,tx}_errors").split()
        self.note("errors of the guest's tunnel", self.judge(sum(map(int, statistics)), 0))

    def check_wire(self, case: Case) -> None:
        """That the wire carried this encapsulation both ways, and nothing in the clear."""
        path = self.directory / f"{case.name}.pcap"

        def count(expression: str) -> int:
            return len(run("tcpdump", "-n", "-r", path, "-Z", "root", expression).splitlines())

        for name, way in (("to the guest", "src"), ("from the guest", "dst")):
            seen = count(f"{way} host {agents.HOME_AGENT} and ({case.wire})")
            self.note(f"on the wire, {name}", f"{seen} packets" if seen > 100 else f"WRONG: only {seen} packets")
        clear = count(f"host {CORRESPONDENT}")
        self.note("on the wire, not in a tunnel", self.judge(clear, 0))

    def note(self, name: str, text: str) -> None:
        """A check, on the screen and in the report."""
        self.checks[name] = text
        print(f"            {name:32} {self.screen.color(text, RED if text.startswith('WRONG') else GREEN)}", flush=True)

    @staticmethod
    def judge(value: int, expected: int) -> str:
        return str(value) if value == expected else f"WRONG: {value}, not {expected}"

    @staticmethod
    def judge_ping(output: str) -> str:
        found = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", output)
        if not found:
            return f"WRONG: {output.strip()}"
        text = f"{found[2]} of {found[1]} came back"
        return text if found[1] == found[2] else f"WRONG: {text}"

    def judge_sum(self, got: str, expected: str) -> str:
        return f"{self.options.bytes} bytes, sha256 ok" if got == expected else "WRONG: other bytes came"

    def drops(self) -> int:
        """What the home agent has dropped so far."""
        return self.lab.show("ha", "status")["totals"]["dropped"]

    def capture(self, case: Case) -> subprocess.Popen:
        """tcpdump on the guest's wire."""
        name = f"tcpdump-{case.name}"
        child = self.lab.start("sw", name, "tcpdump", "-i", "guest", "-s", "128", "-B", "8192", "-U", "-n",
                               "-Z", "root", "-w", self.directory / f"{case.name}.pcap")
        log = self.directory / f"{name}.log"
        if not wait_until(lambda: "listening on" in log.read_text(errors="replace"), 10):
            raise LabError(f"tcpdump did not start: {log.read_text(errors='replace').strip()}")
        return child

    def clean(self) -> None:
        """Ends and removes all that the run made outside of target/."""
        self.path.unlink(missing_ok=True)
        super().clean()


def arguments() -> argparse.Namespace:
    """The command line of scripts/interop."""
    parser = argparse.ArgumentParser(prog="scripts/interop", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", choices=[case.name for case in CASES] + [[]], metavar="CASE",
                        help="ipip, gre, gre-key, fou (default: all)")
    common_arguments(parser)
    parser.add_argument("--bytes", type=int, default=20_000_000, help="size of each TCP transfer (default: 20 MB)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(guarded(lambda: Interop(arguments()).main()))
