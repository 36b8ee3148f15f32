"""The configuration files of the lab's agents, as an operator would write them.

One file per agent, plus the key files that they name: random, hex, mode 0600.
"""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

CORRESPONDENT = "192.0.2.2"
HOME_ADDRESS = "10.1.0.10"
HOME_PREFIX = "10.1.0.0/24"
HOME_AGENT = "10.0.1.2"
NAI = "phone@train.example"
CARE_OF_ADDRESSES = {"fa1": "10.0.2.2", "fa2": "10.0.3.2"}

# Security parameter indexes below 256 are reserved (RFC 5944, 1.6).
MOBILE_HOME_SPI = 256
MOBILE_FOREIGN_SPI = 257
FOREIGN_HOME_SPI = 300

KEY_BYTES = 16

# What a mobile node may ask for; beside these there is "plain-udp", by a challenge.
ENCAPSULATIONS = ("ip-in-ip", "minimal", "gre", "udp")

# What an agent may read its interfaces with.
PORTS = ("af_packet", "af_xdp", "dpdk")


@dataclass(frozen=True)
class Choices:
    """What may differ between two runs of one topology."""

    ports: str = "af_packet"
    # The encapsulation that the mobile node asks for.
    encap: str = "ip-in-ip"
    # How the home agent detects a NAT.
    nat_traversal: str | None = None
    mss_clamp: bool = False


def port(number: int, name: str, ports: str, address: str) -> str:
    """A `[[port]]` on the interface of the same name, by AF_PACKET, AF_XDP or as a DPDK vdev."""
    if ports == "dpdk":
        where = f'backend = "dpdk"\ndevice = "net_af_packet{number},iface={name}"'
    else:
        where = f'backend = "{ports}"\ninterface = "{name}"'
    return f'[[port]]\nname = "{name}"\n{where}\nmtu = 1500\naddresses = ["{address}"]\n\n'


def daemon(run: Path, node: str, metrics: bool = True) -> str:
    """The `[daemon]` table."""
    text = f'[daemon]\nadmin_socket = "{run}/{node}.sock"\n'
    if metrics:
        text += 'metrics = "127.0.0.1:9434"\n'
    return text + 'log = "info"\n\n'


def default_route(gateway: str) -> str:
    """A `[[route]]` to everywhere."""
    return f'[[route]]\ndestination = "0.0.0.0/0"\ngateway = "{gateway}"\n\n'


def association(table: str, peer: str, address: str, spi: int, algorithm: str, key: str,
                timestamps: bool = True) -> str:
    """A `[[….security_association]]`."""
    text = (f'[[{table}.security_association]]\n{peer} = "{address}"\nspi = {spi}\n'
            f'algorithm = "{algorithm}"\nkey_file = "keys/{key}.key"\n')
    if timestamps:
        text += 'replay = "timestamps"\n'
    return text + "\n"


def encapsulations(choices: Choices) -> str:
    """What an agent allows."""
    if choices == Choices(ports=choices.ports):
        return ""
    return f'encapsulations = [{", ".join(f"{chr(34)}{name}{chr(34)}" for name in ENCAPSULATIONS)}]\n'


def home_agent_table(choices: Choices) -> str:
    """The `[[home_agent]]` itself."""
    text = (f'[[home_agent]]\nname = "ha"\naddress = "{HOME_AGENT}"\nmax_lifetime = "600s"\n'
            'max_bindings = 1000\nmax_simultaneous = 4\nreverse_tunnel = true\n')
    text += encapsulations(choices)
    if choices.nat_traversal:
        text += f'nat_traversal = "{choices.nat_traversal}"\n'
    if choices.encap == "udp":
        text += "forced_udp = true\n"
    if choices.mss_clamp:
        text += "mss_clamp = true\n"
    return text + "\n"


def home_agent(run: Path, choices: Choices, foreign_agents: dict[str, str]) -> str:
    """`ha.toml`: the home agent with its home link."""
    text = "# The home agent of the lab.\n" + daemon(run, "ha")
    text += '[dataplane]\npoll = "adaptive"\n\n'
    text += port(0, "core", choices.ports, "10.0.1.2/24")
    text += port(1, "home", choices.ports, "10.1.0.1/24")
    text += default_route("10.0.1.1") + home_agent_table(choices)
    text += f'[[home_agent.home_network]]\nprefix = "{HOME_PREFIX}"\nport = "home"\n\n'
    text += association("home_agent", "mobile_node", HOME_ADDRESS, MOBILE_HOME_SPI, "hmac-md5", "mn-ha")
    for name, care_of in foreign_agents.items():
        text += association("home_agent", "foreign_agent", care_of, FOREIGN_HOME_SPI, "hmac-sha1",
                            f"{name}-ha", timestamps=False)
    return text + '[[advertiser]]\nport = "home"\nhome_agent = "ha"\ninterval = "1s"\n'


def foreign_agent(run: Path, choices: Choices, number: int) -> str:
    """`fa1.toml`, `fa2.toml`: a foreign agent with its visited link."""
    name = f"fa{number}"
    core = f"10.0.{number + 1}"
    text = f"# Foreign agent {number} of the lab.\n" + daemon(run, name)
    text += '[dataplane]\npoll = "adaptive"\n\n'
    text += port(0, "core", choices.ports, f"{core}.2/24")
    text += port(1, "visited", choices.ports, f"10.2.{number}.1/24")
    text += default_route(f"{core}.1")
    text += (f'[[foreign_agent]]\nname = "{name}"\ncare_of_address = "{CARE_OF_ADDRESSES[name]}"\n'
             'ports = ["visited"]\nmax_lifetime = "300s"\nreverse_tunnel = true\n'
             'encapsulating_delivery = true\n' + encapsulations(choices))
    if choices.encap == "udp":
        text += 'udp_tunnel = "forced"\n'
    if choices.mss_clamp:
        text += "mss_clamp = true\n"
    text += "\n"
    text += association("foreign_agent", "home_agent", HOME_AGENT, FOREIGN_HOME_SPI, "hmac-sha1",
                        f"{name}-ha", timestamps=False)
    text += association("foreign_agent", "mobile_node", HOME_ADDRESS, MOBILE_FOREIGN_SPI, "hmac-md5",
                        f"mn-{name}", timestamps=False)
    return text + f'[[advertiser]]\nport = "visited"\nforeign_agent = "{name}"\ninterval = "1s"\n'


def mobile_node(run: Path, choices: Choices, foreign_agents: dict[str, str], name: str = "mn",
                home_address: str = HOME_ADDRESS) -> str:
    """`mn.toml`: the mobile node."""
    text = "# The mobile node of the lab.\n" + daemon(run, name, metrics=False)
    text += (f'[mobile_node]\ninterface = "eth0"\ntunnel = "hp-mn"\nhome_address = "{home_address}"\n'
             f'home_prefix = "{HOME_PREFIX}"\nhome_agent = "{HOME_AGENT}"\nlifetime = "60s"\n'
             'reverse_tunnel = "direct"\nco_located = true\n')
    if choices.nat_traversal:
        text += "nat_traversal = true\n"
    if choices.encap != "ip-in-ip":
        text += f'encapsulation = "{choices.encap}"\n'
    if choices.mss_clamp:
        text += "mss_clamp = true\n"
    text += "\n" + association("mobile_node", "home_agent", HOME_AGENT, MOBILE_HOME_SPI, "hmac-md5", f"{name}-ha")
    for agent, care_of in foreign_agents.items():
        text += association("mobile_node", "foreign_agent", care_of, MOBILE_FOREIGN_SPI, "hmac-md5",
                            f"mn-{agent}", timestamps=False)
    return text.rstrip() + "\n"


def roam(run: Path, choices: Choices) -> dict[str, str]:
    """The files of the topology `roam`."""
    return {"ha": home_agent(run, choices, CARE_OF_ADDRESSES), "fa1": foreign_agent(run, choices, 1),
            "fa2": foreign_agent(run, choices, 2), "mn": mobile_node(run, choices, CARE_OF_ADDRESSES)}


def sessions(run: Path, choices: Choices) -> dict[str, str]:
    """The files of the topology `sessions`: the node, its laptops and its commands are one
    subscriber, with one key."""
    texts = roam(run, choices)
    head, own, rest = texts["ha"].partition('mobile_node = "')
    text = f'{head}nai = "{NAI}"\n{own}{rest}'
    pool = ('[[home_agent.pool]]\nname = "train"\nrealm = "train.example"\n'
            'ranges = ["10.1.0.100-10.1.0.199"]\n\n')
    texts["ha"] = text.replace("[[home_agent.home_network]]", pool + "[[home_agent.home_network]]", 1)
    texts["ha"] = texts["ha"].replace("[daemon]\n", f'[daemon]\nstate_dir = "{run}/ha.state"\n', 1)
    texts["mn"] = texts["mn"].replace(
        "[mobile_node]\n", f'[mobile_node.lan]\ninterface = "lan"\n\n[mobile_node]\nnai = "{NAI}"\n', 1)
    return texts


def nat(run: Path, choices: Choices) -> dict[str, str]:
    """The files of the topology `nat`."""
    return {"ha": home_agent(run, choices, {}), "mn": mobile_node(run, choices, {})}


def hundred_home_address(number: int) -> str:
    """The home address of `mn1`, `mn2`, ..."""
    return f"10.1.0.{10 + number}"


def hundred(run: Path, choices: Choices, count: int) -> dict[str, str]:
    """The files of the topology `hundred`."""
    text = "# The home agent of the lab.\n" + daemon(run, "ha") + '[dataplane]\npoll = "adaptive"\n\n'
    text += port(0, "core", choices.ports, "10.0.1.2/24") + default_route("10.0.1.1") + home_agent_table(choices)
    # Nobody is ever at home: the network is virtual.
    text += f'[[home_agent.home_network]]\nprefix = "{HOME_PREFIX}"\n\n'
    texts = {}
    for number in range(1, count + 1):
        name, address = f"mn{number}", hundred_home_address(number)
        text += association("home_agent", "mobile_node", address, MOBILE_HOME_SPI, "hmac-md5", f"{name}-ha")
        texts[name] = mobile_node(run, choices, {}, name, address)
    return {"ha": text, **texts}


def interop(run: Path, choices: Choices) -> dict[str, str]:
    """The file of the home agent of scripts/interop."""
    return {"ha": home_agent(run, choices, {})}


def write(directory: Path, texts: dict[str, str]) -> dict[str, Path]:
    """Writes these files, and new keys wherever they name one; returns the path of each."""
    keys = directory / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    keys.chmod(0o700)
    for name in sorted(set(re.findall(r'key_file = "keys/([^"]+)"', "".join(texts.values())))):
        path = keys / name
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
    paths = {}
    for node, text in texts.items():
        paths[node] = directory / f"{node}.toml"
        paths[node].write_text(text, encoding="utf-8")
    return paths
