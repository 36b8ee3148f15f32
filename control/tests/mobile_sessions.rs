//! Sessions of `homeport-mn` as people have them: devices with a stock DHCP client on a
//! LAN, commands, and further addresses. (S1-01, S1-02, S1-13, S1-14, S1-16)

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use homeport_control::mobile::frame;
use homeport_control::mobile::host::index_of;
use homeport_control::mobile::sockets::PacketSocket;
use homeport_control::mobile::tunnel_sockets::TunnelSocket;
use homeport_proto::message::advertisement::AgentFlags;
use homeport_wire::{IpProtocol, Ipv4Header, Ipv4Packet};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use zerocopy::IntoBytes;

use crate::daemon::Daemon;
use crate::namespace::{unavailable, wait_for};
use crate::session_net::{
    Answer, CORRESPONDENT, Client, GATEWAY, HOME, HOME_AGENT, HOME_ROUTER, LAN, LIMIT, Net,
    counter, pings, session,
};

// Shows S1-01, S1-02, S1-13, S1-14.
#[test]
fn a_device_with_a_stock_dhcp_client_gets_an_address_and_packets_both_ways() {
    if unavailable("a_device_with_a_stock_dhcp_client") {
        return;
    }
    let net = Net::abroad("udhcpc", LAN);
    let before = net.host();
    let mut mn = net.start();
    let client = net.dhcp_client("");
    wait_for("an address", LIMIT, || net.address_of_device());
    let address = net.agent.given(b"camera").unwrap();
    assert_eq!(net.address_of_device().unwrap(), format!("{address}/24"));
    let view = session(&mn, "camera").unwrap();
    assert_eq!(view["kind"], "device");
    assert_eq!(view["state"], "registered");
    assert_eq!(view["home_address"], address.to_string());
    assert_eq!(view["interface"], "lan0");
    assert!(view["lease_seconds"].as_u64().unwrap() > 100);
    assert!(pings(&net.device, CORRESPONDENT));
    // Its home prefix is on its link, as far as it knows: others of it are not there.
    net.other.ip("addr add 10.1.0.77/32 dev lo");
    assert!(pings(&net.device, Ipv4Addr::new(10, 1, 0, 77)));
    assert!(pings(&net.device, HOME));
    assert!(pings(&net.other, address));
    // What it sends with another's address goes nowhere, also when the LAN's interface has
    // an address and so a looser kernel would let it through.
    net.node.ip("addr add 172.16.9.1/24 dev lan0");
    net.device.ip("addr add 10.1.0.98/32 dev eth0");
    let heard = net.other.inside(|| TunnelSocket::open("visited", IpProtocol::ICMP).unwrap());
    net.device.output("ping", &format!("-c1 -W1 -I 10.1.0.98 {CORRESPONDENT}"));
    assert!(pings(&net.device, CORRESPONDENT));
    let mut bytes = [0; 256];
    let mut sources = Vec::new();
    while let Some(len) = heard.receive(&mut bytes).unwrap() {
        sources.push(Ipv4Packet::new_checked(&bytes[..len]).unwrap().header().source());
    }
    assert!(!sources.is_empty() && sources.iter().all(|one| *one == address), "{sources:?}");
    net.node.ip("addr del 172.16.9.1/24 dev lan0");
    // It renews at its server, which no rule or port keeps from hearing it.
    let confirmed = counter(&mn, "dhcp_confirmed");
    client.signal(Signal::USR1);
    wait_for("a renewal", LIMIT, || (counter(&mn, "dhcp_confirmed") > confirmed).then_some(()));
    // A link that is gone for a moment takes the routes with it, and no session.
    net.node.ip("link set lan0 down");
    net.node.ip("link set lan0 up");
    wait_for("a packet through", LIMIT, || pings(&net.device, CORRESPONDENT).then_some(()));
    // It gives the address back.
    client.signal(Signal::USR2);
    net.agent.wait_for_release(b"camera");
    assert_eq!(session(&mn, "camera"), None);
    assert_eq!(counter(&mn, "dhcp_released"), 1);
    drop(client);
    mn.stop();
    assert_eq!(net.host(), before);
}

/// Replies come for addresses that the host does not have, or for everybody.
#[test]
fn each_reply_to_a_session_is_handled_once_and_none_is_forwarded() {
    if unavailable("each_reply_to_a_session") {
        return;
    }
    let net = Net::abroad("replies", LAN);
    let mn = net.start();
    net.agent.set(Answer::DenyByBroadcast);
    let client = net.dhcp_client("");
    let denied = wait_for("a denial", LIMIT, || {
        session(&mn, "camera").filter(|view| view["last_code"] == 66)
    });
    assert_eq!(denied["home_address"], Value::Null);
    // What the node's kernel forwards goes to the device, or back to the agent.
    let hear = |name| PacketSocket::open(index_of(name).unwrap()).unwrap();
    let forwarded = [net.device.inside(|| hear("eth0")), net.other.inside(|| hear("visited"))];
    net.agent.set(Answer::Accept);
    wait_for("an address", LIMIT, || net.address_of_device());
    assert_eq!(session(&mn, "camera").unwrap()["last_code"], Value::Null);
    // Renewed at the agent, the route to the device is there.
    client.signal(Signal::USR2);
    net.agent.wait_for_release(b"camera");
    let mut bytes = [0; 2048];
    for socket in forwarded {
        while let Some(received) = socket.receive(&mut bytes).unwrap() {
            let heard = frame::parse(&bytes[..received.len], true);
            assert!(matches!(heard, Some(frame::Heard::Dhcp { .. })), "{heard:?}");
        }
    }
    let drops = mn.get("drops");
    let drops = drops["drops"].as_array().unwrap();
    let twice = drops.iter().find(|one| one["reason"] == "not-pending").unwrap();
    assert_eq!(twice["count"], 0, "{twice}");
}

// Shows S1-14.
#[test]
fn after_a_kill_the_next_program_gives_a_device_its_address_again() {
    if unavailable("after_a_kill_the_next_program") {
        return;
    }
    let net = Net::abroad("again", LAN);
    let before = net.host();
    let mut mn = net.start();
    let client = net.dhcp_client("");
    let address = wait_for("an address", LIMIT, || net.address_of_device());
    mn.kill();
    assert_ne!(net.host(), before);
    let mut mn = net.start();
    assert_eq!(session(&mn, "camera"), None);
    // Nothing of the killed one is left to lead packets astray.
    for words in ["route show table 99", "neigh show nud permanent dev lan0"] {
        let left = String::from_utf8(net.node.output("ip", words).stdout).unwrap();
        assert!(!left.contains(address.trim_end_matches("/24")), "{left}");
    }
    client.signal(Signal::USR1);
    wait_for("the session", LIMIT, || {
        let view = session(&mn, "camera")?;
        address.starts_with(view["home_address"].as_str()?).then_some(())
    });
    wait_for("a packet through", LIMIT, || pings(&net.device, CORRESPONDENT).then_some(()));
    assert_eq!(net.address_of_device().unwrap(), address);
    assert_eq!(counter(&mn, "dhcp_refused"), 0);
    drop(client);
    mn.stop();
    assert_eq!(net.host(), before);
}

/// What comes out of the tunnel for a stranger goes nowhere, and the home agent's
/// questions about the path are answered for a device, be it there or not.
// Shows S1-13, S1-16.
#[test]
fn without_an_agent_packets_of_sessions_and_of_nobody_else_go_through_the_tunnel() {
    if unavailable("without_an_agent_packets_of_sessions") {
        return;
    }
    let net = Net::new("tunnel", AgentFlags::default(), LAN);
    let leases = net.folder.path("leases");
    let dnsmasq = net
        .other
        .command("dnsmasq")
        .args("--keep-in-foreground --conf-file=/dev/null --port=0 --interface=visited".split(' '))
        .args("--bind-interfaces --no-ping --dhcp-authoritative --user=root --pid-file=".split(' '))
        .arg("--dhcp-range=10.2.3.100,10.2.3.200,255.255.255.0,2m")
        .arg(format!("--dhcp-option=option:router,{GATEWAY}"))
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _dnsmasq = Client(dnsmasq);
    wait_for("dnsmasq", LIMIT, || leases.exists().then_some(()));
    let mn = net.start();
    let care_of: Ipv4Addr =
        mn.get("mobile-node")["care_of_address"].as_str().unwrap().parse().unwrap();
    let client = net.dhcp_client("");
    wait_for("an address", LIMIT, || net.address_of_device());
    let address = net.agent.given(b"camera").unwrap();
    let tunnel = net.other.inside(|| TunnelSocket::open("visited", IpProtocol::IP_IN_IP).unwrap());
    let mut ping = net.device.command("ping");
    let mut ping = ping.args(["-c1", "-W5", &CORRESPONDENT.to_string()]).spawn().unwrap();
    let (from, to, icmp) = inner(&tunnel, (care_of, HOME_AGENT));
    assert_eq!((from, to, icmp[0]), (address, CORRESPONDENT, 8));
    send_inner(&tunnel, care_of, (CORRESPONDENT, address), &of_type(0, &icmp));
    assert!(ping.wait().unwrap().success());
    let traffic = || {
        let view = session(&mn, "camera").unwrap();
        ["sent_packets", "sent_bytes", "received_packets", "received_bytes"]
            .map(|name| view[format!("tunnel_{name}")].as_u64().unwrap())
    };
    let counted = traffic();
    let [sent, sent_bytes, received, received_bytes] = counted;
    // The echo and its answer of 84 bytes, and whatever else the device had to say.
    assert!(sent >= 1 && sent_bytes >= 84 && (received, received_bytes) == (1, 84), "{counted:?}");

    let bad = counter(&mn, "tunnel_bad_inner");
    send_inner(&tunnel, care_of, (CORRESPONDENT, Ipv4Addr::new(10, 1, 0, 99)), &of_type(8, &icmp));
    wait_for("a refusal", LIMIT, || (counter(&mn, "tunnel_bad_inner") > bad).then_some(()));
    net.device.ip("link set eth0 down");
    send_inner(&tunnel, care_of, (HOME_AGENT, address), &of_type(8, &icmp));
    let (from, to, answer) = inner(&tunnel, (care_of, HOME_AGENT));
    assert_eq!((from, to, answer[0]), (address, HOME_AGENT, 0));
    // Neither what is for nobody nor what is about the path is the device's.
    assert_eq!(traffic(), counted);
    // Nobody is there any more: the LAN has lost its link.
    wait_for("the end", LIMIT, || session(&mn, "camera").is_none().then_some(()));
    net.agent.wait_for_release(b"camera");
    assert!(counter(&mn, "lan_link_losses") > 0);
    drop(client);
}

/// Or the agent would not take them (RFC 3024 §5.2).
#[test]
fn to_an_agent_that_takes_encapsulated_packets_each_session_encapsulates_its_own() {
    if unavailable("to_an_agent_that_takes_encapsulated_packets") {
        return;
    }
    let lan = format!("reverse_tunnel = \"encapsulating\"\n{LAN}");
    let net = Net::abroad("delivery", &lan);
    let mn = net.start();
    let client = net.dhcp_client("");
    wait_for("an address", LIMIT, || net.address_of_device());
    let address = net.agent.given(b"camera").unwrap();
    let tunnel = net.other.inside(|| TunnelSocket::open("visited", IpProtocol::IP_IN_IP).unwrap());
    for (namespace, source) in [(&net.device, address), (&net.node, HOME)] {
        let mut ping = namespace.command("ping");
        let mut ping = ping.args(["-c1", "-W1", &CORRESPONDENT.to_string()]).spawn().unwrap();
        let (from, to, icmp) = inner(&tunnel, (source, GATEWAY));
        assert_eq!((from, to, icmp[0]), (source, CORRESPONDENT, 8));
        ping.wait().unwrap();
    }
    drop((client, mn));
}

/// The next ICMP message out of a tunnel between these ends, with its own.
fn inner(tunnel: &TunnelSocket, ends: (Ipv4Addr, Ipv4Addr)) -> (Ipv4Addr, Ipv4Addr, Vec<u8>) {
    wait_for("a tunnelled packet", LIMIT, || {
        let mut bytes = [0; 2048];
        let len = tunnel.receive(&mut bytes).unwrap()?;
        let outer = Ipv4Packet::new_checked(&bytes[..len]).unwrap();
        assert_eq!((outer.header().source(), outer.header().destination()), ends);
        let inner = Ipv4Packet::new_checked(outer.payload()).unwrap();
        let header = inner.header();
        let icmp = header.protocol() == IpProtocol::ICMP;
        icmp.then(|| (header.source(), header.destination(), inner.payload().to_vec()))
    })
}

/// The same echo with another type.
fn of_type(kind: u8, icmp: &[u8]) -> Vec<u8> {
    let mut icmp = icmp.to_vec();
    icmp[0] = kind;
    icmp[2..4].copy_from_slice(&[0, 0]);
    let sum = homeport_wire::checksum::checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp
}

fn send_inner(
    tunnel: &TunnelSocket,
    care_of: Ipv4Addr,
    (from, to): (Ipv4Addr, Ipv4Addr),
    icmp: &[u8],
) {
    let len = (20 + icmp.len()) as u16;
    let inner = Ipv4Header::new(from, to, IpProtocol::ICMP, 64, len);
    let outer = Ipv4Header::new(HOME_AGENT, care_of, IpProtocol::IP_IN_IP, 64, len + 20);
    tunnel.send(&[outer.as_bytes(), inner.as_bytes(), icmp].concat(), care_of).unwrap();
}

#[test]
fn at_home_others_reach_a_device_and_a_local_session_by_arp() {
    if unavailable("at_home_others_reach_a_device") {
        return;
    }
    let net = Net::new("home", AgentFlags::HOME_AGENT, &format!("{LAN}\nprobe = \"1s\""));
    net.other.ip(&format!("addr del {GATEWAY}/24 dev visited"));
    net.other.ip(&format!("addr add {HOME_ROUTER}/24 dev visited"));
    let mn = net.start();
    assert_eq!(mn.get("mobile-node")["state"], "home");
    let client = net.dhcp_client("");
    wait_for("an address", LIMIT, || net.address_of_device());
    let address = net.agent.given(b"camera").unwrap();
    assert_eq!(session(&mn, "camera").unwrap()["state"], "home");
    assert!(pings(&net.other, address));
    // Not only the announcements tell where it is.
    let answered = String::from_utf8(net.node.output("ip", "neigh show proxy").stdout).unwrap();
    assert!(answered.contains(&format!("{address} dev eth0")), "{answered}");
    assert!(pings(&net.device, HOME_ROUTER));
    assert!(net.said(&["session", "add", "local"]).status.success());
    let local = net.agent.given(b"local").unwrap();
    wait_for("an answer", LIMIT, || pings(&net.other, local).then_some(()));
    let on_link = net.node.output("ip", "-4 addr show dev eth0").stdout;
    assert!(String::from_utf8(on_link).unwrap().contains(&format!("{local}/32")));
    // One that goes without a word is missed.
    drop(client);
    net.device.ip("addr flush dev eth0");
    wait_for("the end", LIMIT, || session(&mn, "camera").is_none().then_some(()));
    assert_eq!(counter(&mn, "lan_devices_gone"), 1);
    net.agent.wait_for_release(b"camera");
    assert!(!pings(&net.other, address));
    assert!(pings(&net.other, local));
}

// Shows S1-01, S1-02.
#[test]
fn a_command_runs_in_a_namespace_of_its_own_with_a_sessions_address() {
    if unavailable("a_command_runs_in_a_namespace") {
        return;
    }
    let net = Net::abroad("run", "");
    let before = net.host();
    let mut mn = net.start();
    let look = "ip -4 -o addr show dev eth0; ip route; ping -c1 -W2 192.0.2.2 >/dev/null || exit 9; exit 7";
    let output = net.said(&["run", "--session", "app", "--", "sh", "-c", look]);
    let (text, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{text}{error}");
    assert!(text.contains("inet 10.1.0.20/32"), "{text}");
    assert!(text.contains(&format!("default via {HOME}")), "{text}");
    net.agent.wait_for_release(b"app");
    assert_eq!(session(&mn, "app"), None);

    // What cannot be run says so as shells do, and leaves no session.
    let output = net.said(&["run", "--session", "app", "--", "/no/such/program"]);
    assert_eq!(output.status.code(), Some(127));
    let output = net.said(&["run", "--session", "app", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(128 + 15));
    assert_eq!(session(&mn, "app"), None);

    // The session ends with the process that runs the command, however that ends.
    for signal in [Signal::TERM, Signal::KILL] {
        let mut words = net.homeport_mn(&["run", "--session", "app", "--", "sleep", "1000"]);
        let mut child = words.stdin(Stdio::null()).spawn().unwrap();
        wait_for("the session", LIMIT, || {
            session(&mn, "app").filter(|view| !view["home_address"].is_null())
        });
        // Twice the same name is refused, in words.
        let twice = net.said(&["run", "--session", "app", "--", "true"]);
        assert_eq!(twice.status.code(), Some(125));
        let error = String::from_utf8_lossy(&twice.stderr).into_owned();
        assert!(error.contains("there is a session with this name"), "{error}");
        assert!(session(&mn, "app").is_some(), "the first one goes on");
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
        wait_for("the end", LIMIT, || session(&mn, "app").is_none().then_some(()));
        wait_for("the interface to go", LIMIT, || {
            let links = net.node.output("ip", "-o link").stdout;
            let links = String::from_utf8(links).unwrap();
            let left = links.lines().any(|line| line.contains(": hp-") && line.contains('@'));
            (!left).then_some(())
        });
    }
    mn.stop();
    assert_eq!(net.host(), before);
}

/// What the mobile node has lost by a kill, its next start has again, and the command has
/// not noticed.
// Shows S1-14.
#[test]
fn a_command_keeps_its_address_when_the_mobile_node_is_started_anew() {
    if unavailable("a_command_keeps_its_address") {
        return;
    }
    let net = Net::abroad("anew", "");
    let mut mn = net.start();
    let words = ["run", "--session", "app", "--", "sh", "-c", "read line; ping -c1 -W2 192.0.2.2"];
    let mut command = net.homeport_mn(&words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let address = |mn: &Daemon| {
        wait_for("an address", LIMIT, || {
            let address = session(mn, "app")?["home_address"].clone();
            (!address.is_null()).then_some(address)
        })
    };
    let first = address(&mn);
    mn.kill();
    let mn = net.start();
    assert_eq!(address(&mn), first);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    net.agent.wait_for_release(b"app");
}

#[test]
fn a_command_waits_for_its_address_and_says_so() {
    if unavailable("a_command_waits_for_its_address") {
        return;
    }
    let net = Net::abroad("wait", "");
    let _mn = net.start();
    net.agent.set(Answer::Silence);
    let mut words = net.homeport_mn(&["run", "--session", "app", "--", "true"]);
    let mut child = words.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut error = child.stderr.take().unwrap();
    let mut said = String::new();
    while !said.contains("waiting for an address for app: registering") {
        let mut bytes = [0; 256];
        let len = error.read(&mut bytes).unwrap();
        assert!(len > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..len]));
    }
    net.agent.set(Answer::Accept);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_local_session_is_an_address_to_bind_to_and_all_are_listed_in_a_line() {
    if unavailable("a_local_session_is_an_address") {
        return;
    }
    let net = Net::abroad("local", "");
    let mut mn = net.start();
    let output = net.said(&["session", "add", "two\nlines"]);
    let address = net.agent.given(b"two\nlines").unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{address}\n"));
    let ping = net.node.output("ping", &format!("-c1 -W2 -I {address} {CORRESPONDENT}"));
    assert!(ping.status.success());
    assert!(pings(&net.other, address));
    let list = String::from_utf8(net.said(&["session", "list"]).stdout).unwrap();
    let words: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    let expected =
        ["two\\nlines", "local", &address.to_string(), "registered", "10.0.2.2", "hp-mn"];
    assert_eq!(words[..6], expected, "{list}");
    let json = net.said(&["session", "list", "--json"]).stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["sessions"][0]["name"], "two\\nlines");
    assert_eq!(mn.get("mobile-node")["sessions_with_address"], 1);
    let none = net.said(&["session", "remove", "three"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("There is no session \"three\""));
    assert_eq!(none.status.code(), Some(1));
    let long = "x".repeat(248);
    let refused = net.said(&["session", "add", &long]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("247 bytes"));
    assert!(net.said(&["session", "remove", "two\\nlines"]).status.success());
    net.agent.wait_for_release(b"two\nlines");
    assert!(!pings(&net.other, address));
    // All at once, with those of other nodes; and at a stop each by itself.
    for name in ["four", "five"] {
        assert!(net.said(&["session", "add", name]).status.success());
    }
    assert_eq!(net.said(&["session", "remove"]).status.code(), Some(2));
    assert!(net.said(&["session", "remove", "--all"]).status.success());
    net.agent.wait_for_release(b"");
    assert_eq!(mn.get("sessions")["sessions"].as_array().unwrap().len(), 0);
    assert!(!net.agent.has_released(b"four") && !net.agent.has_released(b"five"));
    for name in ["six", "seven"] {
        assert!(net.said(&["session", "add", name]).status.success());
    }
    // What is no JSON of ours is refused.
    let mut stream = UnixStream::connect(net.folder.path("mn.sock")).unwrap();
    let body = "{\"name\": 7}";
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    mn.stop();
    assert!(net.agent.has_released(b"six") && net.agent.has_released(b"seven"));
}
