//! Nodes, as people see them: who is where, through which tunnels, and by whose keys.

use super::{age, append, clean, lifetime, or_dash, yes};
use crate::admin::api::{
    BindingView, CareOfView, Cleared, Encapsulation, MobileNodeView, ReverseTunnel,
    SecurityAssociationView, TunnelView, VisitorState, VisitorView, VisitorsCleared,
};
use crate::admin::table::Table;

/// The columns of nodes that are known by NAI: there only where there are any.
const NAMES: [&str; 2] = ["NAI", "SESSION"];

/// What stands in them.
fn names(nai: Option<&String>, session: Option<&String>) -> [String; 2] {
    [or_dash(nai), or_dash(session.filter(|session| !session.is_empty()))]
}

/// `show bindings`.
pub fn bindings(bindings: &[BindingView]) -> String {
    let mut headings = vec![
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
    ];
    let is_named = bindings.iter().any(|binding| binding.nai.is_some());
    if is_named {
        headings.extend(NAMES);
    }
    let mut table = Table::new(&headings);
    for binding in bindings {
        for care_of in &binding.care_of_addresses {
            let row = [
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
            ];
            let names = names(binding.nai.as_ref(), binding.session.as_ref());
            table.row(row.into_iter().chain(names.into_iter().filter(|_| is_named)));
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

/// `show visitors`.
pub fn visitors(visitors: &[VisitorView]) -> String {
    let mut headings = vec![
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
    ];
    let is_named = visitors.iter().any(|visitor| visitor.nai.is_some());
    if is_named {
        headings.extend(NAMES);
    }
    let mut table = Table::new(&headings);
    for visitor in visitors {
        let row = [
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
        ];
        let names = names(visitor.nai.as_ref(), visitor.session.as_ref());
        table.row(row.into_iter().chain(names.into_iter().filter(|_| is_named)));
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
            association.nai.clone().unwrap_or_else(|| or_dash(association.peer)),
            association.peer_role.text().into(),
            association.spi.to_string(),
            association.algorithm.clone(),
            replay,
            association.tenant.to_string(),
        ]);
    }
    table.render("No security associations: nobody can register.")
}

fn own_address(node: &MobileNodeView) -> String {
    match node.home_address {
        Some(address) if node.home_address_given => format!("{address}, given by the home agent"),
        Some(address) => address.to_string(),
        None => "none yet: the home agent is to give one".into(),
    }
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
        own_address(node),
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
    if node.sessions > 0 {
        let (all, with) = (node.sessions, node.sessions_with_address);
        out.push_str(&format!("sessions        {all}, {with} with a home address\n"));
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
    if let Some(said) = &node.last_text {
        let (role, text) = (said.role.text(), clean(&said.text));
        out.push_str(&format!("in words        {text} (the {role} says)\n"));
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

/// `clear visitor`.
pub fn visitors_cleared(cleared: &VisitorsCleared) -> String {
    let VisitorsCleared { tenant, home_address, visitors } = cleared;
    match visitors {
        1 => format!("The visitor {home_address} (tenant {tenant}) was cleared.\n"),
        _ => format!("{visitors} visitors {home_address} (tenant {tenant}) were cleared.\n"),
    }
}

pub(super) fn encapsulation(value: Encapsulation) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

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
            nai: None,
            session: None,
            age_seconds: 4000,
        };
        assert_eq!(
            bindings(core::slice::from_ref(&binding)),
            "HOME-ADDRESS  CARE-OF-ADDRESS  HOME-AGENT  TENANT  TUNNEL    REVERSE  VIA            HOME-LINK  LIFETIME      LEFT    AGE\n\
             10.1.0.10     10.0.2.2         10.0.1.2         0  IP-in-IP  yes      foreign agent  home          5m00s     3m12s  1h06m\n\
             10.1.0.10     10.0.2.9         10.0.1.2         0  IP-in-IP  yes      co-located     home       infinite  infinite  1h06m\n"
        );
    }

    #[test]
    fn nais_have_columns_only_where_there_are_any() {
        let care_of = CareOfView {
            address: Ipv4Addr::new(10, 0, 2, 2),
            registered: Ipv4Addr::new(10, 0, 2, 2),
            encapsulation: Encapsulation::Gre,
            udp_port: None,
            half_bound: false,
            unproven: false,
            keepalive_seconds: None,
            gre_key: None,
            reverse_tunnel: false,
            co_located: false,
            broadcast: false,
            lifetime_seconds: None,
            remaining_seconds: None,
        };
        let binding = |nai: Option<&str>, session: Option<&str>| BindingView {
            tenant: 0,
            home_address: Ipv4Addr::new(10, 1, 0, 10),
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            care_of_addresses: vec![care_of.clone()],
            home_link: None,
            mobile_networks: Vec::new(),
            nai: nai.map(Into::into),
            session: session.map(Into::into),
            age_seconds: 1,
        };
        let plain = bindings(&[binding(None, None)]);
        assert!(!plain.contains("NAI") && plain.lines().all(|line| line.ends_with(['E', 's'])));
        let named = [("a@b", "laptop"), ("a@b", "")];
        let named = named.map(|(nai, session)| binding(Some(nai), Some(session)));
        let [laptop, node] = named;
        let shown = bindings(&[binding(None, None), laptop, node]);
        let ends = ["AGE  NAI  SESSION", "1s  -    -", "1s  a@b  laptop", "1s  a@b  -"];
        for (line, end) in shown.lines().zip(ends) {
            assert!(line.ends_with(end), "{line}");
        }
        assert_eq!(shown.lines().count(), ends.len());
    }

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
            nai: None,
            session: None,
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
}
