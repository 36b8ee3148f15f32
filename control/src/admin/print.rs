//! One renderer for what the API shows: the CLI prints with it, and so do tests
//! that fail.
//!
//! Text that came from outside (names, devices, refusals) is escaped here, so
//! that nothing on the wire or in a file can speak to a terminal.

mod explain;
mod nodes;
mod sessions;
mod trace;

use std::fmt::Write;

use serde_json::Value;

pub use self::explain::explanation;
pub use self::nodes::{
    bindings, cleared, mobile_node, security_associations, tunnels, visitors, visitors_cleared,
};
pub use self::sessions::{pools, sessions};
pub use self::trace::{explained, lost, walk};
use super::api::{
    AgentView, CounterView, DropView, NaptView, NeighborView, Plane, PortView, RouteView, Status,
    Totals,
};
pub use super::table::{Table, age, clean, is_obeyed, lifetime, scaled};
use crate::config::{ConfigDiff, Effect};

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
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
            if agent.address.is_unspecified() { "-".into() } else { agent.address.to_string() },
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
    append(&mut out, &table);
    let mut table = Table::new(&["PORT", "DEVICE COUNTER", "#COUNT"]);
    for port in ports {
        for (name, count) in port.device_counters.iter().filter(|(_, count)| **count > 0) {
            table.row([&port.name, name, &count.to_string()]);
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

    /// B-04, B-10.
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
                sessions: None,
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
