//! One renderer for what the API shows: the CLI prints with it, and so do tests
//! that fail.
//!
//! Text that came from outside (names, devices, refusals) is escaped here, so
//! that nothing on the wire or in a file can speak to a terminal.

use std::fmt::Write;

use serde_json::Value;

use super::api::{
    AgentView, BindingView, CareOfView, Cleared, CounterView, DropView, Encapsulation,
    MobileNodeView, NaptView, NeighborView, Plane, PortView, ReverseTunnel, RouteView,
    SecurityAssociationView, Status, Totals, TunnelView, VisitorState, VisitorView,
};
pub use super::table::{Table, age, clean, is_obeyed, lifetime, scaled};
use crate::config::{ConfigDiff, Effect};

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn encapsulation(value: Encapsulation) -> String {
    match value {
        Encapsulation::IpInIp => "IP-in-IP",
        Encapsulation::Minimal => "minimal",
        Encapsulation::Gre => "GRE",
        Encapsulation::Udp => "UDP",
        Encapsulation::PlainUdp => "plain UDP",
    }
    .into()
}

fn reverse_tunnel(value: ReverseTunnel) -> String {
    match value {
        ReverseTunnel::None => "none",
        ReverseTunnel::Direct => "direct",
        ReverseTunnel::Encapsulating => "encapsulating",
    }
    .into()
}

/// The conservation law, as it stands.
pub fn totals(totals: &Totals) -> String {
    let Totals { rx, tx, punted, to_kernel, dropped, held } = totals;
    let equals = if totals.is_conserved() { "=" } else { "≈ (counting while packets move)" };
    format!(
        "rx {rx} {equals} tx {tx} + punted {punted} + to kernel {to_kernel} + dropped {dropped} + \
         held {held}"
    )
}

/// `show status`.
pub fn status(status: &Status) -> String {
    let mut out = format!(
        "homeport {}, process {}, up {}\n\
         config    {} (number {} since the start)\n\
         workers   {}, {} poll\n\
         ports     {} of {} up\n\
         bindings  {}, of {} subscribers\n\
         visitors  {}\n\n",
        clean(&status.version),
        status.pid,
        age(status.uptime_seconds),
        clean(&status.config_file),
        status.config_generation,
        status.workers,
        clean(&status.poll),
        status.ports_up,
        status.ports,
        status.bindings,
        status.subscribers,
        status.visitors,
    );
    out.push_str(&agents(&status.agents));
    out.push_str(&format!("\n{}\n", totals(&status.totals)));
    if status.held_back_seconds >= 2 {
        out.push_str(&format!(
            "\nAn RX core has not passed a quiescent point for {}; {} table entries wait for it.\n",
            age(status.held_back_seconds),
            status.held_back_entries,
        ));
    }
    out
}

fn agents(agents: &[AgentView]) -> String {
    let mut table = Table::new(&["AGENT", "ROLE", "#TENANT", "ADDRESS", "#REGISTERED", "#LIMIT"]);
    for agent in agents {
        table.row([
            agent.name.clone(),
            agent.role.text().into(),
            agent.tenant.to_string(),
            agent.address.to_string(),
            agent.registrations.to_string(),
            agent.limit.to_string(),
        ]);
    }
    table.render("No agents.")
}

/// `show ports`: what they are, then what they counted.
pub fn ports(ports: &[PortView]) -> String {
    let mut table = Table::new(&[
        "PORT",
        "LINK",
        "BACKEND",
        "MODE",
        "DEVICE",
        "MAC",
        "#MTU",
        "TWIN",
        "ADDRESSES",
    ]);
    for port in ports {
        table.row([
            port.name.clone(),
            if port.up { "up" } else { "down" }.into(),
            port.backend.clone(),
            or_dash(port.mode.as_ref()),
            port.device.clone(),
            port.mac.clone(),
            port.mtu.to_string(),
            or_dash(port.kernel_twin.as_ref()),
            port.addresses.join(" "),
        ]);
    }
    let mut out = table.render("No ports.");
    if ports.is_empty() {
        return out;
    }
    let mut table = Table::new(&[
        "PORT",
        "#RX",
        "#RX-BYTES",
        "#TX",
        "#TX-BYTES",
        "#FROM-KERNEL",
        "#TO-KERNEL",
        "#INJECTED",
        "#ORIGINATED",
        "#PUNTED",
        "#DROPPED",
        "#HELD",
        "#ENCAP",
        "#DECAP",
    ]);
    for port in ports {
        let numbers = [
            port.rx,
            port.rx_bytes,
            port.tx,
            port.tx_bytes,
            port.from_kernel,
            port.to_kernel,
            port.injected,
            port.originated,
            port.punted,
            port.dropped,
            port.held,
            port.encapsulated,
            port.decapsulated,
        ];
        table.row(
            std::iter::once(port.name.clone()).chain(numbers.map(|number| number.to_string())),
        );
    }
    out.push('\n');
    out.push_str(&table.render(""));
    let mut table = Table::new(&[
        "PORT",
        "#CORE",
        "#RX",
        "#TX",
        "#PUNTED",
        "#DROPPED",
        "#HANDED-OVER",
        "#TAKEN-OVER",
    ]);
    for port in ports.iter().filter(|port| port.cores.len() > 1) {
        for at in &port.cores {
            let numbers = [at.rx, at.tx, at.punted, at.dropped, at.handed_over, at.taken_over];
            let numbers = std::iter::once(u64::from(at.core)).chain(numbers);
            table.row(std::iter::once(port.name.clone()).chain(numbers.map(|n| n.to_string())));
        }
    }
    if !table.is_empty() {
        out.push('\n');
        out.push_str(&table.render(""));
    }
    let mut table = Table::new(&["PORT", "DEVICE COUNTER", "#COUNT"]);
    for port in ports {
        for (name, count) in port.device_counters.iter().filter(|(_, count)| **count > 0) {
            table.row([&port.name, name, &count.to_string()]);
        }
    }
    if !table.is_empty() {
        out.push('\n');
        out.push_str(&table.render(""));
    }
    out
}

/// `show bindings`.
pub fn bindings(bindings: &[BindingView]) -> String {
    let mut table = Table::new(&[
        "HOME-ADDRESS",
        "CARE-OF-ADDRESS",
        "HOME-AGENT",
        "#TENANT",
        "TUNNEL",
        "REVERSE",
        "VIA",
        "HOME-LINK",
        "#LIFETIME",
        "#LEFT",
        "#AGE",
    ]);
    for binding in bindings {
        for care_of in &binding.care_of_addresses {
            table.row([
                binding.home_address.to_string(),
                care_of.address.to_string(),
                binding.home_agent.to_string(),
                binding.tenant.to_string(),
                encapsulation(care_of.encapsulation),
                yes(care_of.reverse_tunnel),
                if care_of.co_located { "co-located" } else { "foreign agent" }.into(),
                binding.home_link.clone().unwrap_or_else(|| "virtual".into()),
                lifetime(care_of.lifetime_seconds),
                lifetime(care_of.remaining_seconds),
                age(binding.age_seconds),
            ]);
        }
    }
    let mut out = table.render("No bindings: every node is at home, or away from us.");
    let mut table =
        Table::new(&["HOME-ADDRESS", "UDP-TO", "#PORT", "REGISTERED-AS", "STATE", "#KEEPALIVE"]);
    for binding in bindings {
        let over_udp = |care_of: &&CareOfView| care_of.udp_port.is_some() || care_of.half_bound;
        for care_of in binding.care_of_addresses.iter().filter(over_udp) {
            let state = match (care_of.half_bound, care_of.unproven) {
                (true, _) => "half-bound",
                (false, true) => "unproven",
                (false, false) => "bound",
            };
            table.row([
                binding.home_address.to_string(),
                care_of.address.to_string(),
                or_dash(care_of.udp_port.as_ref()),
                care_of.registered.to_string(),
                state.into(),
                lifetime(care_of.keepalive_seconds),
            ]);
        }
    }
    append(&mut out, &table);
    let mut table = Table::new(&["HOME-ADDRESS", "MOBILE-NETWORK"]);
    for binding in bindings {
        for network in &binding.mobile_networks {
            table.row([&binding.home_address.to_string(), network]);
        }
    }
    append(&mut out, &table);
    out
}

/// Another table below, if there is anything in it.
fn append(out: &mut String, table: &Table) {
    if !table.is_empty() {
        out.push('\n');
        out.push_str(&table.render(""));
    }
}

/// `show visitors`.
pub fn visitors(visitors: &[VisitorView]) -> String {
    let mut table = Table::new(&[
        "HOME-ADDRESS",
        "HOME-AGENT",
        "CARE-OF-ADDRESS",
        "#TENANT",
        "MAC",
        "PORT",
        "STATE",
        "TUNNEL",
        "REVERSE",
        "#LIFETIME",
        "#LEFT",
        "#AGE",
    ]);
    for visitor in visitors {
        table.row([
            visitor.home_address.to_string(),
            visitor.home_agent.to_string(),
            visitor.care_of_address.to_string(),
            visitor.tenant.to_string(),
            visitor.mac.clone(),
            visitor.port.clone(),
            match visitor.state {
                VisitorState::Pending => "pending",
                VisitorState::Registered => "registered",
            }
            .into(),
            encapsulation(visitor.encapsulation),
            reverse_tunnel(visitor.reverse_tunnel),
            lifetime(visitor.lifetime_seconds),
            lifetime(visitor.remaining_seconds),
            age(visitor.age_seconds),
        ]);
    }
    let mut out = table.render("No visitors.");
    let mut table = Table::new(&["HOME-ADDRESS", "HOME-AGENT", "TUNNEL", "#KEEPALIVE"]);
    for visitor in visitors.iter().filter(|visitor| visitor.keepalive_seconds.is_some()) {
        table.row([
            visitor.home_address.to_string(),
            visitor.home_agent.to_string(),
            encapsulation(visitor.encapsulation),
            lifetime(visitor.keepalive_seconds),
        ]);
    }
    append(&mut out, &table);
    out
}

/// `show tunnels`.
pub fn tunnels(tunnels: &[TunnelView]) -> String {
    let mut table =
        Table::new(&["LOCAL", "REMOTE", "TUNNEL", "TO", "OF", "#TENANT", "#NODES", "#REVERSE"]);
    for tunnel in tunnels {
        table.row([
            tunnel.local.to_string(),
            tunnel.remote.to_string(),
            encapsulation(tunnel.encapsulation),
            match (tunnel.udp_port, tunnel.gre_key) {
                (Some(port), _) => format!("port {port}"),
                (None, Some(key)) => format!("key {key}"),
                (None, None) => "-".into(),
            },
            tunnel.role.text().into(),
            tunnel.tenant.to_string(),
            tunnel.nodes.to_string(),
            tunnel.reverse.to_string(),
        ]);
    }
    table.render("No tunnels.")
}

/// `show routes`.
pub fn routes(routes: &[RouteView]) -> String {
    let mut table = Table::new(&["DESTINATION", "GATEWAY", "PORT"]);
    for route in routes {
        let gateway = match route.gateway {
            _ if route.unreachable => "unreachable".into(),
            Some(gateway) => gateway.to_string(),
            None => match route.mobile_router {
                Some(router) => format!("behind {router}"),
                None => "on the link".into(),
            },
        };
        table.row([route.destination.clone(), gateway, or_dash(route.port.as_ref())]);
    }
    table.render("No routes: does the kernel have any out of the twins?")
}

/// `show neighbors`.
pub fn neighbors(neighbors: &[NeighborView]) -> String {
    let mut table = Table::new(&["ADDRESS", "MAC", "PORT"]);
    for neighbor in neighbors {
        table.row([&neighbor.address.to_string(), &neighbor.mac, &neighbor.port]);
    }
    table.render("No neighbours have answered yet.")
}

/// `show napt`: each NAPT, what it has counted, and who has which ports.
pub fn napt(napts: &[NaptView]) -> String {
    if napts.is_empty() {
        return "No NAPT: add a [[napt]] section to the config.\n".into();
    }
    let mut text = String::new();
    for (at, napt) in napts.iter().enumerate() {
        let addresses: Vec<String> = napt.addresses.iter().map(ToString::to_string).collect();
        let gap = if at == 0 { "" } else { "\n" };
        let _ = writeln!(
            text,
            "{gap}{}: {} -> {} as {}, ports {}\nmapping {}, filtering {}, at most {} sessions\n",
            clean(&napt.name),
            clean(&napt.inside.join(", ")),
            clean(&napt.outside),
            addresses.join(", "),
            clean(&napt.port_range),
            clean(&napt.mapping),
            clean(&napt.filtering),
            napt.max_sessions,
        );
        let mut counters = Table::new(&["COUNTER", "#VALUE"]);
        for (name, value) in &napt.counters {
            counters.row([name.clone(), value.to_string()]);
        }
        text += &counters.render("Nothing is counted.");
        let mut blocks = Table::new(&["INSIDE", "MAC", "#TENANT", "EXTERNAL", "PORTS", "#AGE"]);
        for block in &napt.blocks {
            blocks.row([
                block.inside.to_string(),
                or_dash(block.mac.as_ref()),
                block.tenant.to_string(),
                block.external.to_string(),
                format!("{}-{}", block.first_port, block.last_port),
                format!("{}s", block.age_seconds),
            ]);
        }
        text.push('\n');
        text += &blocks.render("No host has ports.");
    }
    text
}

/// `show drops`; counters that are zero only if `all` are wanted.
pub fn drops(drops: &[DropView], all: bool) -> String {
    let mut table = Table::new(&["WHERE", "REASON", "#COUNT", "MEANING"]);
    for row in drops.iter().filter(|row| all || row.count > 0) {
        let place = match (row.plane, &row.port, row.tenant) {
            (Plane::Dataplane, Some(port), _) => format!("port {port}"),
            (Plane::Dataplane, None, _) => "dataplane".into(),
            (Plane::Control, _, Some(tenant)) => format!("tenant {tenant}"),
            (Plane::Control, _, None) => "control".into(),
        };
        table.row([&place, &row.reason, &row.count.to_string(), &row.text]);
    }
    table.render("Nothing was dropped.")
}

/// `show counters`.
pub fn counters(counters: &[CounterView]) -> String {
    let mut table = Table::new(&["COUNTER", "OF", "#VALUE", "MEANING"]);
    for counter in counters {
        let labels = [
            counter.tenant.map(|tenant| format!("tenant {tenant}")),
            counter.port.as_ref().map(|port| format!("port {port}")),
            counter.reason.clone(),
            counter.code.map(|code| format!("code {code}")),
        ];
        let of: Vec<String> = labels.into_iter().flatten().collect();
        table.row([&counter.name, &of.join(", "), &counter.value.to_string(), &counter.text]);
    }
    table.render("No counters.")
}

/// `show security-associations`.
pub fn security_associations(associations: &[SecurityAssociationView]) -> String {
    let mut table =
        Table::new(&["AGENT", "PEER", "PEER-ROLE", "#SPI", "ALGORITHM", "REPLAY", "#TENANT"]);
    for association in associations {
        let replay = match association.tolerance_seconds {
            Some(seconds) => format!("{} ±{seconds}s", association.replay),
            None => association.replay.clone(),
        };
        table.row([
            association.agent.clone(),
            association.peer.to_string(),
            association.peer_role.text().into(),
            association.spi.to_string(),
            association.algorithm.clone(),
            replay,
            association.tenant.to_string(),
        ]);
    }
    table.render("No security associations: nobody can register.")
}

/// `show mobile-node`.
pub fn mobile_node(node: &MobileNodeView) -> String {
    let place = match (node.care_of_address, node.foreign_agent) {
        (Some(care_of), Some(agent)) => format!("at {care_of}, through the foreign agent {agent}"),
        (Some(care_of), None) if node.co_located => format!("at {care_of}, co-located"),
        (Some(care_of), None) => format!("at {care_of}"),
        (None, _) => "without a care-of address".into(),
    };
    let mut out = format!(
        "{} on {} {}, for {}\nhome address    {}\nhome agent      {}\nreverse tunnel  {}\n",
        clean(&node.state),
        clean(&node.interface),
        place,
        age(node.age_seconds),
        node.home_address,
        node.home_agent,
        reverse_tunnel(node.reverse_tunnel),
    );
    if let Some(kind) = node.encapsulation {
        let nat = if node.nat { ", through a NAT" } else { "" };
        out.push_str(&format!("encapsulation   {}{nat}\n", encapsulation(kind)));
    }
    if let Some(tunnel) = &node.tunnel {
        let end = |address, port: Option<u16>| match port {
            Some(port) => format!("{address}:{port}"),
            None => format!("{address}"),
        };
        let (local, remote) =
            (end(tunnel.local, tunnel.local_port), end(tunnel.remote, tunnel.remote_port));
        out.push_str(&format!(
            "tunnel          {local} to {remote}, MTU {}\n",
            node.tunnel_mtu_bytes
        ));
    }
    if let Some(seconds) = node.keepalive_seconds {
        out.push_str(&format!("keepalive       after {} of silence\n", age(seconds)));
    }
    if node.state == "registered" {
        let left = lifetime(node.remaining_seconds);
        out.push_str(&format!(
            "lifetime        {}, {left} left\n",
            lifetime(node.lifetime_seconds)
        ));
    }
    if let Some(code) = node.last_code {
        out.push_str(&format!("last reply      code {code}\n"));
    }
    out
}

/// What `clear binding` did.
pub fn cleared(cleared: &Cleared) -> String {
    let Cleared { tenant, home_address, care_of_addresses } = cleared;
    let noun = if *care_of_addresses == 1 { "address" } else { "addresses" };
    format!(
        "The binding of {home_address} (tenant {tenant}) with {care_of_addresses} care-of {noun} \
         was cleared.\n"
    )
}

/// What changes from one config to the next.
pub fn config_diff(diff: &ConfigDiff) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut table = Table::new(&["KEY", "OLD", "NEW", "EFFECT"]);
    for change in &diff.changes {
        let effect = match change.effect {
            Effect::Live => "at once",
            Effect::Restart => "after a restart",
        };
        table.row([&change.path, &text(&change.old), &text(&change.new), effect]);
    }
    table.render("Nothing changes.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::Role;
    use std::net::Ipv4Addr;

    #[test]
    fn text_from_outside_cannot_speak_to_the_terminal() {
        let evil = "a\x1b[2Jb\r\nc\u{202e}d\u{9b}1m";
        assert_eq!(clean(evil), "a\\u{1b}[2Jb\\r\\nc\\u{202e}d\\u{9b}1m");
        assert_eq!(clean("Zürich ±7s"), "Zürich ±7s");
        let route = RouteView {
            destination: evil.into(),
            port: Some(evil.into()),
            gateway: None,
            mobile_router: None,
            unreachable: false,
        };
        let shown = routes(&[route]);
        assert!(shown.lines().count() == 2 && !shown.contains('\x1b'), "{shown:?}");
    }

    #[test]
    fn a_binding_has_a_line_for_each_care_of_address() {
        let care_of = |last, lifetime_seconds| CareOfView {
            address: Ipv4Addr::new(10, 0, 2, last),
            registered: Ipv4Addr::new(10, 0, 2, last),
            encapsulation: Encapsulation::IpInIp,
            udp_port: None,
            half_bound: false,
            unproven: false,
            keepalive_seconds: None,
            gre_key: None,
            reverse_tunnel: true,
            co_located: last == 9,
            broadcast: false,
            lifetime_seconds,
            remaining_seconds: lifetime_seconds.map(|seconds| seconds - 108),
        };
        let binding = BindingView {
            tenant: 0,
            home_address: Ipv4Addr::new(10, 1, 0, 10),
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            care_of_addresses: vec![care_of(2, Some(300)), care_of(9, None)],
            home_link: Some("home".into()),
            mobile_networks: Vec::new(),
            age_seconds: 4000,
        };
        assert_eq!(
            bindings(core::slice::from_ref(&binding)),
            "HOME-ADDRESS  CARE-OF-ADDRESS  HOME-AGENT  TENANT  TUNNEL    REVERSE  VIA            HOME-LINK  LIFETIME      LEFT    AGE\n\
             10.1.0.10     10.0.2.2         10.0.1.2         0  IP-in-IP  yes      foreign agent  home          5m00s     3m12s  1h06m\n\
             10.1.0.10     10.0.2.9         10.0.1.2         0  IP-in-IP  yes      co-located     home       infinite  infinite  1h06m\n"
        );
    }

    /// B-04, B-10.
    #[test]
    fn what_is_behind_a_nat_or_a_mobile_router_is_shown_below() {
        let care_of = |udp_port, unproven| CareOfView {
            address: Ipv4Addr::new(203, 0, 113, 7),
            registered: Ipv4Addr::new(192, 168, 1, 2),
            encapsulation: Encapsulation::Udp,
            udp_port,
            half_bound: udp_port.is_none(),
            unproven,
            keepalive_seconds: Some(110),
            gre_key: None,
            reverse_tunnel: true,
            co_located: true,
            broadcast: false,
            lifetime_seconds: Some(60),
            remaining_seconds: Some(60),
        };
        let binding = BindingView {
            tenant: 0,
            home_address: Ipv4Addr::new(10, 1, 0, 10),
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            care_of_addresses: vec![
                care_of(Some(61_001), false),
                care_of(Some(61_002), true),
                care_of(None, true),
            ],
            home_link: None,
            mobile_networks: vec!["10.9.0.0/24".into()],
            age_seconds: 1,
        };
        let shown = bindings(&[binding]);
        let below: Vec<&str> = shown.split("\n\n").skip(1).collect();
        assert_eq!(
            below,
            [
                "HOME-ADDRESS  UDP-TO        PORT  REGISTERED-AS  STATE       KEEPALIVE\n\
                 10.1.0.10     203.0.113.7  61001  192.168.1.2    bound           1m50s\n\
                 10.1.0.10     203.0.113.7  61002  192.168.1.2    unproven        1m50s\n\
                 10.1.0.10     203.0.113.7      -  192.168.1.2    half-bound      1m50s",
                "HOME-ADDRESS  MOBILE-NETWORK\n\
                 10.1.0.10     10.9.0.0/24\n",
            ]
        );
    }

    #[test]
    fn drops_show_what_they_mean_and_zeros_only_when_asked() {
        let row = |plane, reason: &str, count| DropView {
            plane,
            port: (plane == Plane::Dataplane).then(|| "core".into()),
            tenant: (plane == Plane::Control).then_some(0),
            reason: reason.into(),
            text: "It means this.".into(),
            count,
        };
        let rows = [row(Plane::Dataplane, "no-route", 7), row(Plane::Control, "malformed", 0)];
        assert_eq!(
            drops(&rows, false),
            "WHERE      REASON    COUNT  MEANING\nport core  no-route      7  It means this.\n"
        );
        assert!(drops(&rows, true).contains("tenant 0   malformed      0"));
        assert_eq!(drops(&rows[1..], false), "Nothing was dropped.\n");
    }

    #[test]
    fn the_status_says_whether_every_packet_is_accounted_for() {
        let mut shown = Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_seconds: 192,
            config_file: "/etc/homeport/ha.toml".into(),
            config_generation: 2,
            poll: "adaptive".into(),
            workers: 1,
            held_back_entries: 0,
            held_back_seconds: 0,
            ports: 2,
            ports_up: 1,
            bindings: 1,
            subscribers: 2,
            visitors: 0,
            agents: vec![AgentView {
                name: "ha".into(),
                role: Role::HomeAgent,
                tenant: 0,
                address: Ipv4Addr::new(10, 0, 1, 2),
                registrations: 1,
                limit: 1000,
            }],
            totals: Totals { rx: 15, tx: 5, punted: 4, to_kernel: 3, dropped: 2, held: 1 },
        };
        let text = status(&shown);
        assert!(text.starts_with("homeport 0.1.0, process 7, up 3m12s\n"), "{text}");
        assert!(text.contains("ports     1 of 2 up\n"), "{text}");
        assert!(
            text.ends_with("rx 15 = tx 5 + punted 4 + to kernel 3 + dropped 2 + held 1\n"),
            "{text}"
        );
        shown.totals.rx += 1;
        assert!(status(&shown).contains("rx 16 ≈"));
    }
}
