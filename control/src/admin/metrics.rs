//! Metrics in the text format of Prometheus.
//!
//! Labels are bounded: names from the config, reasons, tenants and reply codes;
//! never an address, so that nobody outside can make the list grow.

use std::fmt::Write;

use super::api::{
    Answer, CoreView, CounterView, DropView, NaptView, Plane, PoolView, PortView, SessionCounts,
    Status,
};

/// The media type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that metrics are made of.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The process.
    pub status: Option<Status>,
    /// Its ports.
    pub ports: Vec<PortView>,
    /// Its NAPTs.
    pub napts: Vec<NaptView>,
    /// The pools of its home agents.
    pub pools: Vec<PoolView>,
    /// Its drops and discards.
    pub drops: Vec<DropView>,
    /// Its other counters.
    pub counters: Vec<CounterView>,
}

impl Snapshot {
    /// Adds an answer of the event loop.
    pub fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Status(status) => self.status = Some(status),
            Answer::Ports { ports } => self.ports = ports,
            Answer::Napt { napt } => self.napts = napt,
            Answer::Pools { pools } => self.pools = pools,
            Answer::Drops { drops } => self.drops = drops,
            Answer::Counters { counters } => self.counters = counters,
            _ => {}
        }
    }
}

/// The metrics as text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = Exposition::default();
    if let Some(status) = &snapshot.status {
        process(&mut text, status);
    }
    ports(&mut text, &snapshot.ports);
    napts(&mut text, &snapshot.napts);
    pools(&mut text, &snapshot.pools);
    drops(&mut text, &snapshot.drops);
    counters(&mut text, &snapshot.counters);
    text.0
}

fn process(text: &mut Exposition, status: &Status) {
    text.family("build_info", Kind::Gauge, "Always 1; the version is a label.");
    text.sample("build_info", &[("version", &status.version)], 1);
    for (name, value, help) in [
        ("uptime_seconds", status.uptime_seconds, "Since the process started."),
        ("config_generation", status.config_generation, "Configs that have been in force."),
        ("bindings", status.bindings, "Home addresses with a binding."),
        ("visitors", status.visitors, "Visitors registered."),
    ] {
        text.family(name, Kind::Gauge, help);
        text.sample(name, &[], value);
    }
    text.family("agent_registrations", Kind::Gauge, "Bindings or visitors of an agent.");
    for agent in &status.agents {
        let tenant = agent.tenant.to_string();
        let labels = [("agent", &*agent.name), ("role", agent.role.label()), ("tenant", &*tenant)];
        text.sample("agent_registrations", &labels, agent.registrations);
    }
    sessions(text, status);
    let totals = &status.totals;
    for (name, value, help) in [
        ("packets_in_total", totals.rx, "Handed to the dataplane by ports, twins and control."),
        ("packets_sent_total", totals.tx, "Sent by ports."),
        ("packets_punted_total", totals.punted, "Handed to the control core."),
        ("packets_to_kernel_total", totals.to_kernel, "Delivered to kernel twins."),
        ("packets_dropped_total", totals.dropped, "Dropped, for any reason."),
    ] {
        text.family(name, Kind::Counter, help);
        text.sample(name, &[], value);
    }
    text.family("packets_held", Kind::Gauge, "Waiting for a next hop's link-layer address.");
    text.sample("packets_held", &[], totals.held);
}

fn sessions(text: &mut Exposition, status: &Status) {
    let counted = || status.agents.iter().filter_map(|agent| Some((agent, agent.sessions?)));
    if counted().next().is_none() {
        return;
    }
    let help = "Sessions of the NAIs that a home agent knows, by state.";
    text.family("sessions", Kind::Gauge, help);
    for (agent, counts) in counted() {
        let SessionCounts { bound, home, sticky, held_down } = counts;
        let tenant = agent.tenant.to_string();
        for (state, value) in
            [("bound", bound), ("home", home), ("sticky", sticky), ("held-down", held_down)]
        {
            let labels = [("agent", &*agent.name), ("tenant", &*tenant), ("state", state)];
            text.sample("sessions", &labels, value);
        }
    }
}

fn pools(text: &mut Exposition, pools: &[PoolView]) {
    type Column = (&'static str, Kind, &'static str, fn(&PoolView) -> u64);
    let columns: [Column; 4] = [
        ("pool_addresses", Kind::Gauge, "Addresses that a pool has to give.", |pool| pool.size),
        ("pool_used", Kind::Gauge, "Addresses of a pool that are a session's.", |pool| {
            pool.bound + pool.home + pool.sticky
        }),
        ("pool_held_down", Kind::Gauge, "Addresses of a pool that are nobody's yet.", |pool| {
            pool.held_down
        }),
        (
            "pool_exhausted_total",
            Kind::Counter,
            "How often a pool had no address to give.",
            |pool| pool.exhausted,
        ),
    ];
    if pools.is_empty() {
        return;
    }
    for (name, kind, help, value) in columns {
        text.family(name, kind, help);
        for pool in pools {
            let tenant = pool.tenant.to_string();
            let labels = [("agent", &*pool.agent), ("tenant", &*tenant), ("pool", &*pool.name)];
            text.sample(name, &labels, value(pool));
        }
    }
}

fn ports(text: &mut Exposition, ports: &[PortView]) {
    type Column = (&'static str, Kind, &'static str, fn(&PortView) -> u64);
    let columns: [Column; 15] = [
        ("port_up", Kind::Gauge, "Whether the port has carrier.", |port| port.up.into()),
        ("port_rx_frames_total", Kind::Counter, "Frames received.", |port| port.rx),
        ("port_rx_bytes_total", Kind::Counter, "Bytes received.", |port| port.rx_bytes),
        ("port_tx_frames_total", Kind::Counter, "Frames sent.", |port| port.tx),
        ("port_tx_bytes_total", Kind::Counter, "Bytes sent.", |port| port.tx_bytes),
        ("port_from_kernel_total", Kind::Counter, "Frames from the kernel twin.", |port| {
            port.from_kernel
        }),
        ("port_to_kernel_total", Kind::Counter, "Frames to the kernel twin.", |port| {
            port.to_kernel
        }),
        ("port_injected_total", Kind::Counter, "Packets from the control core.", |port| {
            port.injected
        }),
        ("port_originated_total", Kind::Counter, "Packets made by the dataplane.", |port| {
            port.originated
        }),
        ("port_punted_total", Kind::Counter, "Packets to the control core.", |port| port.punted),
        ("port_encapsulated_total", Kind::Counter, "Packets put into a tunnel.", |port| {
            port.encapsulated
        }),
        ("port_decapsulated_total", Kind::Counter, "Packets taken out of a tunnel.", |port| {
            port.decapsulated
        }),
        (
            "port_keepalives_total",
            Kind::Counter,
            "Keepalives of UDP tunnels that were answered.",
            |port| port.keepalives,
        ),
        (
            "port_reserved_bits_total",
            Kind::Counter,
            "Packets out of UDP tunnels with reserved bits set, which are ignored.",
            |port| port.reserved_bits,
        ),
        ("port_held", Kind::Gauge, "Packets waiting for a next hop's address.", |port| port.held),
    ];
    if ports.is_empty() {
        return;
    }
    for (name, kind, help, value) in columns {
        text.family(name, kind, help);
        for port in ports {
            text.sample(name, &[("port", &port.name)], value(port));
        }
    }
    cores(text, ports);
    if ports.iter().any(|port| !port.device_counters.is_empty()) {
        let help = "What the device behind the port lost or mended.";
        text.family("port_device_total", Kind::Counter, help);
        for port in ports {
            for (counter, value) in &port.device_counters {
                let labels = [("port", &*port.name), ("counter", counter)];
                text.sample("port_device_total", &labels, *value);
            }
        }
    }
}

/// The share of each RX core.
fn cores(text: &mut Exposition, ports: &[PortView]) {
    type Column = (&'static str, &'static str, fn(&CoreView) -> u64);
    let columns: [Column; 6] = [
        ("core_rx_frames_total", "Frames received by an RX core.", |core| core.rx),
        ("core_tx_frames_total", "Frames sent by an RX core.", |core| core.tx),
        ("core_punted_total", "Packets to the control core, by RX core.", |core| core.punted),
        ("core_dropped_total", "Packets dropped, by RX core.", |core| core.dropped),
        ("core_handed_over_total", "Packets handed to another RX core.", |core| core.handed_over),
        ("core_taken_over_total", "Packets taken over from another RX core.", |core| {
            core.taken_over
        }),
    ];
    if ports.iter().all(|port| port.cores.is_empty()) {
        return;
    }
    for (name, help, value) in columns {
        text.family(name, Kind::Counter, help);
        for port in ports {
            for core in &port.cores {
                let number = core.core.to_string();
                let labels = [("port", &*port.name), ("core", &*number)];
                text.sample(name, &labels, value(core));
            }
        }
    }
}

/// What a NAPT holds now; everything else of it is counted.
const NAPT_GAUGES: [&str; 4] = ["hosts", "blocks", "mappings", "sessions"];

fn napts(text: &mut Exposition, napts: &[NaptView]) {
    let all = || napts.iter().flat_map(|napt| napt.counters.iter().map(move |count| (napt, count)));
    let is_gauge = |name: &String| NAPT_GAUGES.contains(&name.as_str());
    if napts.is_empty() {
        return;
    }
    text.family("napt", Kind::Gauge, "Hosts, blocks, mappings and sessions of a NAPT, now.");
    for (napt, (name, value)) in all().filter(|(_, (name, _))| is_gauge(name)) {
        text.sample("napt", &[("napt", &napt.name), ("of", name)], *value);
    }
    text.family("napt_total", Kind::Counter, "What a NAPT has counted.");
    for (napt, (name, value)) in all().filter(|(_, (name, _))| !is_gauge(name)) {
        text.sample("napt_total", &[("napt", &napt.name), ("counter", name)], *value);
    }
}

fn drops(text: &mut Exposition, drops: &[DropView]) {
    for (plane, name, help) in [
        (Plane::Dataplane, "dropped_total", "Packets dropped, by port and reason."),
        (Plane::Control, "discarded_total", "Messages discarded without a reply, by reason."),
    ] {
        let mut rows = drops.iter().filter(|row| row.plane == plane).peekable();
        if rows.peek().is_some() {
            text.family(name, Kind::Counter, help);
        }
        for row in rows {
            let tenant = row.tenant.map(|tenant| tenant.to_string());
            let labels = labels(row.port.as_deref(), tenant.as_deref(), Some(&row.reason), None);
            text.sample(name, &labels, row.count);
        }
    }
}

fn counters(text: &mut Exposition, counters: &[CounterView]) {
    // The samples of a family stand together: that is the format's rule.
    let mut names: Vec<&str> = Vec::new();
    for counter in counters {
        if !names.contains(&&*counter.name) {
            names.push(&counter.name);
        }
    }
    for name in names {
        let metric = format!("{}_total", metric_name(name));
        let family = || counters.iter().filter(|counter| counter.name == name);
        let help = family().next().map_or("", |counter| &counter.text);
        text.family(&metric, Kind::Counter, help);
        for counter in family() {
            let tenant = counter.tenant.map(|tenant| tenant.to_string());
            let code = counter.code.map(|code| code.to_string());
            let labels = labels(
                counter.port.as_deref(),
                tenant.as_deref(),
                counter.reason.as_deref(),
                code.as_deref(),
            );
            text.sample(&metric, &labels, counter.value);
        }
    }
}

fn labels<'a>(
    port: Option<&'a str>,
    tenant: Option<&'a str>,
    reason: Option<&'a str>,
    code: Option<&'a str>,
) -> Vec<(&'static str, &'a str)> {
    [("port", port), ("tenant", tenant), ("reason", reason), ("code", code)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// A name that the format allows.
fn metric_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Text in the making. Writing to a String cannot fail.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP homeport_{name} {help}\n# TYPE homeport_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.0, "homeport_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{text}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_family_stand_together_under_one_header() {
        let counter = |name: &str, code| CounterView {
            name: name.into(),
            tenant: Some(0),
            code: Some(code),
            value: u64::from(code) + 1,
            text: "Replies sent, by code.".into(),
            ..CounterView::default()
        };
        let counters =
            vec![counter("replies-sent", 0), counter("other", 9), counter("replies-sent", 133)];
        let text = render(&Snapshot { counters, ..Snapshot::default() });
        assert_eq!(
            text,
            "# HELP homeport_replies_sent_total Replies sent, by code.\n\
             # TYPE homeport_replies_sent_total counter\n\
             homeport_replies_sent_total{tenant=\"0\",code=\"0\"} 1\n\
             homeport_replies_sent_total{tenant=\"0\",code=\"133\"} 134\n\
             # HELP homeport_other_total Replies sent, by code.\n\
             # TYPE homeport_other_total counter\n\
             homeport_other_total{tenant=\"0\",code=\"9\"} 10\n"
        );
    }

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let drops = vec![DropView {
            plane: Plane::Dataplane,
            port: Some("a\"} 1\nevil\\".into()),
            tenant: None,
            reason: "no-route".into(),
            text: String::new(),
            count: 2,
        }];
        let text = render(&Snapshot { drops, ..Snapshot::default() });
        let sample = text.lines().last().unwrap();
        assert_eq!(sample, r#"homeport_dropped_total{port="a\"} 1\nevil\\",reason="no-route"} 2"#);
        assert_eq!(text.lines().count(), 3);
    }
}
