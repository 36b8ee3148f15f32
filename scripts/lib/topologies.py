"""What the labs look like: who is there, which cable goes where, and a picture of it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, NamedTuple

import agents
from agents import CORRESPONDENT, Choices


class End(NamedTuple):
    """An end of a cable: a node's interface, and its IPv4 address if it has one.

    An agent's interfaces carry no address: its dataplane takes them, and homeportd puts
    the addresses on the ports' kernel twins.
    """

    node: str
    interface: str
    address: str | None = None


class Cable(NamedTuple):
    """A cable between two nodes, and the longest IPv4 packet that it takes."""

    near: End
    far: End
    mtu: int = 1500


class Dhcp(NamedTuple):
    """A DHCP server: where it listens, which addresses it gives, and itself as router."""

    node: str
    interface: str
    first: str
    last: str
    router: str


@dataclass(frozen=True)
class Topology:
    """A lab's plan."""

    name: str
    summary: str
    picture: str
    # Commands to try once it is up: (command, what it shows).
    hints: tuple[tuple[str, str], ...]
    nodes: tuple[str, ...]
    # Who runs homeportd, and who homeport-mn.
    agents: tuple[str, ...]
    mobile_nodes: tuple[str, ...]
    # The access networks: a bridge each in `sw`, on one of which `mn` hangs. The bridge's
    # own port to its router has its name.
    networks: tuple[str, ...]
    cables: tuple[Cable, ...]
    routes: dict[str, tuple[str, ...]]
    # Plain Linux routers, and which of them masquerade out of which interface.
    routers: tuple[str, ...]
    masquerades: dict[str, str] = field(default_factory=dict)
    # Further bridges in `sw`, which `mn` does not move between.
    bridges: tuple[str, ...] = ()
    # Further interfaces of `sw`, and which network or bridge each belongs to.
    switch_ports: dict[str, str] = field(default_factory=dict)
    dhcp: tuple[Dhcp, ...] = ()
    # The agents' configuration files, by node.
    configs: Callable[[Path, Choices], dict[str, str]] = lambda run, choices: {}
    # `--plain`: the agents are plain routers, and the mobile node takes another address
    # on each link, without mobility.
    plain_routers: dict[str, tuple[tuple[str, str], tuple[str, str], str]] = field(default_factory=dict)
    plain_mobile_node: dict[str, tuple[str, str]] = field(default_factory=dict)


CORRESPONDENT_CABLE = Cable(End("cn", "eth0", f"{CORRESPONDENT}/24"), End("r", "cn", "192.0.2.1/24"))
HOME_CABLES = (
    Cable(End("r", "ha", "10.0.1.1/24"), End("ha", "core")),
    Cable(End("ha", "home"), End("sw", "home")),
)
MOBILE_NODE_CABLE = Cable(End("mn", "eth0"), End("sw", "mn"))

ROAM = Topology(
    name="roam",
    summary="a home agent, two foreign agents, a network with DHCP only",
    picture="""\
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
mn    homeport-mn: eth0, whose other end is a port of one bridge; home address 10.1.0.10""",
    hints=(
        ("scripts/lab move visited1", "take the node to foreign agent 1"),
        ("scripts/lab show ha bindings", "where the home agent sees it"),
        ("scripts/lab exec cn ping 10.1.0.10", "reach it at its home address, wherever it is"),
        ("scripts/lab move visited3", "where there is only DHCP: a co-located care-of address"),
        ("scripts/lab show mn mobile-node", "where the node sees itself"),
    ),
    nodes=("cn", "r", "ha", "fa1", "fa2", "gw", "sw", "mn"),
    agents=("ha", "fa1", "fa2"),
    mobile_nodes=("mn",),
    networks=("home", "visited1", "visited2", "visited3"),
    cables=(
        CORRESPONDENT_CABLE,
        *HOME_CABLES,
        Cable(End("r", "fa1", "10.0.2.1/24"), End("fa1", "core")),
        Cable(End("fa1", "visited"), End("sw", "visited1")),
        Cable(End("r", "fa2", "10.0.3.1/24"), End("fa2", "core")),
        Cable(End("fa2", "visited"), End("sw", "visited2")),
        Cable(End("r", "gw", "10.0.4.1/24"), End("gw", "core", "10.0.4.2/24")),
        Cable(End("gw", "visited", "10.2.3.1/24"), End("sw", "visited3")),
        MOBILE_NODE_CABLE,
    ),
    routes={
        "cn": ("default via 192.0.2.1",),
        "r": ("10.1.0.0/24 via 10.0.1.2", "10.2.1.0/24 via 10.0.2.2", "10.2.2.0/24 via 10.0.3.2",
              "10.2.3.0/24 via 10.0.4.2"),
        "gw": ("default via 10.0.4.1",),
    },
    routers=("r", "gw"),
    dhcp=(Dhcp("gw", "visited", "10.2.3.100", "10.2.3.200", "10.2.3.1"),),
    configs=agents.roam,
    plain_routers={
        "ha": (("core", "10.0.1.2/24"), ("home", "10.1.0.1/24"), "10.0.1.1"),
        "fa1": (("core", "10.0.2.2/24"), ("visited", "10.2.1.1/24"), "10.0.2.1"),
        "fa2": (("core", "10.0.3.2/24"), ("visited", "10.2.2.1/24"), "10.0.3.1"),
    },
    plain_mobile_node={"home": ("10.1.0.10/24", "10.1.0.1"), "visited1": ("10.2.1.10/24", "10.2.1.1"),
                       "visited2": ("10.2.2.10/24", "10.2.2.1"), "visited3": ("10.2.3.10/24", "10.2.3.1")},
)

SESSIONS = replace(
    ROAM,
    name="sessions",
    summary="the same, and two laptops on a LAN of the mobile node",
    picture=ROAM.picture + """

laptop1, laptop2   plain Linux hosts with a stock DHCP client, on the LAN behind mn
                   (mn: lan ─── bridge `lan` in sw ─── eth0 of each)""",
    hints=(
        ("scripts/lab move visited1", "take the node, and all behind it, to foreign agent 1"),
        ("scripts/lab show ha sessions", "whose address is whose"),
        ("scripts/lab exec laptop1 busybox udhcpc -f -n -q -i eth0 -s scripts/lib/udhcpc.script",
         "give a laptop an address; then reach it from anywhere"),
    ),
    nodes=(*ROAM.nodes, "laptop1", "laptop2"),
    bridges=("lan",),
    switch_ports={"lan-mn": "lan", "lan-1": "lan", "lan-2": "lan"},
    cables=(
        *ROAM.cables,
        Cable(End("mn", "lan"), End("sw", "lan-mn")),
        Cable(End("laptop1", "eth0"), End("sw", "lan-1")),
        Cable(End("laptop2", "eth0"), End("sw", "lan-2")),
    ),
    configs=agents.sessions,
    plain_routers={},
    plain_mobile_node={},
)

NAT = Topology(
    name="nat",
    summary="a home agent, and networks behind a masquerade, a link of 1,280 bytes, and both",
    picture="""\
    cn ──────── r ──┬──────── ha ──────────── home    ┐
 192.0.2.2          ├──────── masq ────────── nat     │  bridges in `sw`;
                    ├─ 1280 ─ thin ────────── narrow  ├─ `mn` hangs on one of them
                    └─ 1280 ─ deep ────────── both    ┘  and is moved to another

cn    correspondent node, a plain Linux host, 192.0.2.2
r     plain Linux router: 192.0.2.1, 10.0.1.1, 10.0.5.1, 10.0.6.1, 10.0.7.1
ha    homeportd, home agent: core 10.0.1.2, home link 10.1.0.1/24
masq  Linux router that masquerades (nftables): outside 10.0.5.2, inside 192.168.7.1/24, DHCP
thin  Linux router behind a link of 1,280 bytes: outside 10.0.6.2, link 10.2.6.1/24, DHCP
deep  both at once: outside 10.0.7.2 by 1,280 bytes, and inside once more 192.168.7.1/24, DHCP
sw    a switch per access network: the bridges home, nat, narrow, both
mn    homeport-mn: eth0, whose other end is a port of one bridge; home address 10.1.0.10""",
    hints=(
        ("scripts/lab move nat", "take the node behind the masquerade"),
        ("scripts/lab show ha bindings", "the care-of address that it has, and the one that the home agent sees"),
        ("scripts/lab exec masq conntrack -L", "the masquerade's own view (package conntrack)"),
        ("scripts/lab move narrow", "behind the link of 1,280 bytes"),
        ("scripts/lab exec cn ping -M do -s 1300 10.1.0.10", "too long for the tunnel: Fragmentation Needed"),
        ("scripts/lab exec cn tracepath -n 10.1.0.10", "finds the tunnel's MTU"),
        ("scripts/lab move both", "the same private address behind another masquerade"),
    ),
    nodes=("cn", "r", "ha", "masq", "thin", "deep", "sw", "mn"),
    agents=("ha",),
    mobile_nodes=("mn",),
    networks=("home", "nat", "narrow", "both"),
    cables=(
        CORRESPONDENT_CABLE,
        *HOME_CABLES,
        Cable(End("r", "masq", "10.0.5.1/24"), End("masq", "core", "10.0.5.2/24")),
        Cable(End("masq", "inside", "192.168.7.1/24"), End("sw", "nat")),
        Cable(End("r", "thin", "10.0.6.1/24"), End("thin", "core", "10.0.6.2/24"), mtu=1280),
        Cable(End("thin", "inside", "10.2.6.1/24"), End("sw", "narrow")),
        Cable(End("r", "deep", "10.0.7.1/24"), End("deep", "core", "10.0.7.2/24"), mtu=1280),
        Cable(End("deep", "inside", "192.168.7.1/24"), End("sw", "both")),
        MOBILE_NODE_CABLE,
    ),
    routes={
        "cn": ("default via 192.0.2.1",),
        "r": ("10.1.0.0/24 via 10.0.1.2", "10.2.6.0/24 via 10.0.6.2"),
        "masq": ("default via 10.0.5.1",),
        "thin": ("default via 10.0.6.1",),
        "deep": ("default via 10.0.7.1",),
    },
    routers=("r", "masq", "thin", "deep"),
    masquerades={"masq": "core", "deep": "core"},
    dhcp=(
        Dhcp("masq", "inside", "192.168.7.100", "192.168.7.100", "192.168.7.1"),
        Dhcp("thin", "inside", "10.2.6.100", "10.2.6.200", "10.2.6.1"),
        Dhcp("deep", "inside", "192.168.7.100", "192.168.7.100", "192.168.7.1"),
    ),
    configs=agents.nat,
)

# Home addresses end at 10.1.0.254.
MOST_NODES = 200


def hundred(count: int) -> Topology:
    """So many mobile nodes, each behind a router of its own, all behind a carrier's NAT."""
    numbers = range(1, count + 1)
    cables = [
        CORRESPONDENT_CABLE,
        HOME_CABLES[0],
        Cable(End("r", "carrier", "10.0.9.1/24"), End("carrier", "core", "10.0.9.2/24")),
        Cable(End("carrier", "inside", "100.64.0.1/16"), End("sw", "carrier")),
    ]
    for number in numbers:
        cables.append(Cable(End(f"home{number}", "core", f"100.64.1.{number}/16"), End("sw", f"home{number}")))
        cables.append(Cable(End(f"home{number}", "inside", "192.168.7.1/24"), End(f"mn{number}", "eth0")))
    homes = [f"home{number}" for number in numbers]
    return Topology(
        name="hundred",
        summary=f"{count} nodes with one private care-of address behind one carrier's NAT",
        picture=f"""\
    cn ──── r ──── ha
 192.0.2.2  └───── carrier ────┬──── home1 ──── mn1    each at 192.168.7.100
                  masquerades  ├──── home2 ──── mn2    by DHCP, each home router
                               │      …          …     with masquerade, too
                               └──── home{count} ── mn{count}

cn       correspondent node, a plain Linux host, 192.0.2.2
r        plain Linux router
ha       homeportd, home agent: core 10.0.1.2; the home network 10.1.0.0/24 is virtual
carrier  Linux router that masquerades: outside 10.0.9.2, inside 100.64.0.1/16
homeN    Linux router that masquerades: outside 100.64.1.N, inside 192.168.7.1/24, DHCP
mnN      homeport-mn, care-of address 192.168.7.100; home addresses from 10.1.0.11 on""",
        hints=(
            ("scripts/lab show ha bindings", "one outer address, and a port for each node"),
            ("scripts/lab exec mn7 ping 192.0.2.2", "from the seventh node"),
            ("scripts/lab exec cn ping 10.1.0.17", "to it, at its home address"),
            ("scripts/lab show mn7 mobile-node", "where it sees itself"),
        ),
        nodes=("cn", "r", "ha", "carrier", "sw", *homes, *(f"mn{number}" for number in numbers)),
        agents=("ha",),
        mobile_nodes=tuple(f"mn{number}" for number in numbers),
        networks=("carrier",),
        cables=tuple(cables),
        switch_ports={home: "carrier" for home in homes},
        routes={"cn": ("default via 192.0.2.1",), "r": ("10.1.0.0/24 via 10.0.1.2",),
                "carrier": ("default via 10.0.9.1",), **{home: ("default via 100.64.0.1",) for home in homes}},
        routers=("r", "carrier", *homes),
        masquerades={"carrier": "core", **{home: "core" for home in homes}},
        dhcp=tuple(Dhcp(home, "inside", "192.168.7.100", "192.168.7.100", "192.168.7.1") for home in homes),
        configs=lambda run, choices: agents.hundred(run, choices, count),
    )


TOPOLOGIES = {topology.name: topology for topology in (ROAM, SESSIONS, NAT, hundred(100))}
