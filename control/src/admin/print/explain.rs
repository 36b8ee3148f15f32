//! `homeport explain`: a node's story for somebody who has to mend it now.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::{age, clean, lifetime};
use crate::admin::api::{Encapsulation, SessionStateView, SessionView, VisitorState};
use crate::admin::explain::{
    AssociationView, BoundView, ExplanationView, KnownView, RegistrationView, VisitingView,
};

/// Columns of a line, and those of the names in front.
const WIDTH: usize = 96;
const INDENT: usize = 12;

/// The story of a node.
pub fn explanation(view: &ExplanationView) -> String {
    let mut out = String::new();
    now(&mut out, view);
    for known in &view.known_to {
        let _ = writeln!(out, "{}", known_to(known));
    }
    if view.known_to.is_empty() {
        let _ = writeln!(out, "No agent here shares a key with it.");
    }
    let of_nai = view.home_address.is_none();
    match (view.registrations.is_empty(), of_nai) {
        (true, true) if !view.is_silent() => {
            out.push_str("\nNo request of it is remembered that was of none of these sessions.\n");
            return out;
        }
        (true, _) => {
            nothing(&mut out, view);
            return out;
        }
        (false, true) => {
            out.push_str("\nIts last requests that were of no session yet, the newest first:\n");
        }
        (false, false) => out.push_str("\nIts last registrations, the newest first:\n"),
    }
    for registration in &view.registrations {
        out.push('\n');
        one(&mut out, registration, of_nai);
    }
    out
}

/// What it was asked for by.
fn node(view: &ExplanationView) -> String {
    let nai = || view.nai.as_deref().map_or_else(|| "the node".into(), clean);
    view.home_address.map_or_else(nai, |home_address| home_address.to_string())
}

/// Where it is now.
fn now(out: &mut String, view: &ExplanationView) {
    let node = node(view);
    if view.home_address.is_none() {
        sessions(out, &node, view);
        return;
    }
    for session in &view.sessions {
        let (nai, name) = (clean(&session.nai), clean(&session.session));
        let who = match name.as_str() {
            "" => format!("is {nai} itself, without a session"),
            name => format!("is the session \"{name}\" of {nai}"),
        };
        let _ = writeln!(out, "{node} {who}: {}", standing(session));
    }
    for bound in &view.bindings {
        let _ = writeln!(out, "{node} is registered: {}", place(bound));
    }
    for visiting in &view.visitors {
        let _ = writeln!(out, "{node} {}", visit(visiting));
    }
    if view.bindings.is_empty() && view.visitors.is_empty() {
        let _ = writeln!(out, "{node} is not registered here now.");
    }
}

/// What a NAI has.
fn sessions(out: &mut String, nai: &str, view: &ExplanationView) {
    let quoted = |name: &str| match clean(name).as_str() {
        "" => "the node itself".to_owned(),
        name => format!("\"{name}\""),
    };
    match (view.sessions.len(), view.visitors.len()) {
        (0, 0) => _ = writeln!(out, "{nai} has no session here now."),
        (0, _) => _ = writeln!(out, "{nai} is here as a visitor:"),
        (1, _) => _ = writeln!(out, "{nai} has one session:"),
        (many, _) => _ = writeln!(out, "{nai} has {many} sessions:"),
    }
    for session in &view.sessions {
        let name = quoted(&session.session);
        let _ = writeln!(out, "  {name} has {}: {}", session.home_address, standing(session));
    }
    for visiting in &view.visitors {
        let name = quoted(visiting.visitor.session.as_deref().unwrap_or_default());
        let address = match visiting.visitor.home_address {
            Ipv4Addr::UNSPECIFIED => "without an address yet".to_owned(),
            address => address.to_string(),
        };
        let _ = writeln!(out, "  {name} ({address}) {}", visit(visiting));
    }
    if !view.sessions.is_empty() || !view.visitors.is_empty() {
        out.push_str("Each one's own story: `homeport explain HOME_ADDRESS`.\n");
    }
}

/// How a session stands, and when its address is anybody's again.
fn standing(session: &SessionView) -> String {
    let left = session.until_seconds.map_or_else(|| "a while".into(), age);
    match (session.state, session.care_of_address) {
        (SessionStateView::Bound, Some(care_of)) => format!(
            "bound to {care_of}, for {}. Then the address is kept as session_sticky says.",
            match session.remaining_seconds {
                Some(seconds) => format!("{} more", age(seconds)),
                None => "ever".into(),
            }
        ),
        (SessionStateView::Bound, None) => "bound.".into(),
        (SessionStateView::Home, _) => {
            format!("at home. The address is free in {left} unless it is heard of again.")
        }
        (SessionStateView::Sticky, _) => {
            format!("its binding has ended. The address is kept for it, and free in {left}.")
        }
        (SessionStateView::HeldDown, _) => format!(
            "it gave the address back, or was never accepted. The address is free in {left}."
        ),
    }
}

fn place(bound: &BoundView) -> String {
    let care_of = &bound.care_of;
    let mut text = format!("at {}", care_of.address);
    if bound.nat {
        let _ = write!(text, ", behind a NAT (it calls itself {})", care_of.registered);
    }
    match bound.foreign_agent {
        Some(agent) => _ = write!(text, ", through the foreign agent {agent}"),
        None if care_of.co_located => text.push_str(", by itself"),
        None => {}
    }
    let _ = write!(text, ", with \"{}\", for ", clean(&bound.agent));
    match care_of.remaining_seconds {
        Some(seconds) => _ = write!(text, "{} more.", age(seconds)),
        None => text.push_str("ever."),
    }
    let _ = write!(text, " Tunnel: {}", tunnel(care_of.encapsulation));
    if let Some(port) = care_of.udp_port {
        let _ = write!(text, " to port {port}");
    }
    if care_of.reverse_tunnel {
        text.push_str(", and back");
    }
    text.push('.');
    if care_of.half_bound {
        text.push_str(" It waits for the node's first keepalive: nothing is forwarded yet.");
    }
    if care_of.unproven {
        text.push_str(" The address has not answered yet: it gets little until it does.");
    }
    let _ = write!(text, " Registered {} ago.", age(bound.registered_seconds));
    text
}

fn visit(visiting: &VisitingView) -> String {
    let visitor = &visiting.visitor;
    let (agent, port) = (clean(&visiting.agent), clean(&visitor.port));
    let home_agent = visitor.home_agent;
    match visitor.state {
        VisitorState::Pending => format!(
            "has asked \"{agent}\" on port \"{port}\"; the home agent {home_agent} has not answered."
        ),
        VisitorState::Registered => format!(
            "visits \"{agent}\" on port \"{port}\" ({}), of the home agent {home_agent}, for {} more. \
             Tunnel: {}.",
            clean(&visitor.mac),
            lifetime(visitor.remaining_seconds),
            tunnel(visitor.encapsulation),
        ),
    }
}

const fn tunnel(encapsulation: Encapsulation) -> &'static str {
    match encapsulation {
        Encapsulation::IpInIp => "IP in IP",
        Encapsulation::Minimal => "minimal encapsulation",
        Encapsulation::Gre => "GRE",
        Encapsulation::Udp => "UDP",
        Encapsulation::PlainUdp => "plain UDP",
    }
}

fn known_to(known: &KnownView) -> String {
    let associations: Vec<String> = known.associations.iter().map(association).collect();
    format!(
        "The {} \"{}\" ({}) knows it by {}.",
        known.role.text(),
        clean(&known.agent),
        known.address,
        associations.join(", and by ")
    )
}

fn association(association: &AssociationView) -> String {
    let mut text = format!("SPI {} ({}", association.spi, clean(&association.algorithm));
    match (association.tolerance_seconds, &association.replay) {
        (Some(seconds), _) => _ = write!(text, ", clocks within {seconds} s"),
        (None, Some(replay)) => _ = write!(text, ", {}", clean(replay)),
        (None, None) => {}
    }
    text.push(')');
    text
}

/// Nothing has come: what that means, and where to look.
fn nothing(out: &mut String, view: &ExplanationView) {
    let node = node(view);
    if !view.remembers {
        out.push_str(
            "\nNothing is remembered here: write remembered_nodes in [daemon], and restart.\n",
        );
        return;
    }
    let since = age(view.uptime_seconds);
    let _ = writeln!(
        out,
        "\nNothing has been heard of it: no registration that names {node} has come to an agent \
         here\nsince the start, {since} ago; or so long ago that others took its place.\n"
    );
    let mut steps = vec![
        "Do its packets come to this box? `homeport show ports`: RX must rise while it tries, \
         and the port be up. `tshark -i IF -Y mip` shows the messages themselves. Their UDP \
         port must be 434, and their destination an agent's address (`homeport show status`)."
            .to_owned(),
        "Does the node send to the right address? Compare its home agent with \
         `homeport show status`; with a foreign agent, ask that one first."
            .to_owned(),
    ];
    let lost: Vec<String> = view
        .swallowed
        .iter()
        .filter(|counter| counter.count > 0)
        .map(|counter| {
            format!("{} {}: {}", counter.count, clean(&counter.reason), clean(&counter.text))
        })
        .collect();
    if lost.is_empty() {
        let names: Vec<&str> = view.swallowed.iter().map(|counter| &*counter.reason).collect();
        steps.push(format!(
            "Was it lost here? No: these counters, which could have swallowed it, are all zero: {}.",
            clean(&names.join(", "))
        ));
    } else {
        steps.push(format!(
            "Was it lost here? Perhaps; these counters could have swallowed it (of all nodes): {}",
            lost.join("; ")
        ));
    }
    if view.known_to.is_empty() {
        steps.push(format!(
            "Even if it came, it would be refused: no home agent here shares a key with {node}. \
             Add a [[home_agent.security_association]] with mobile_node = \"{node}\"."
        ));
    }
    for (number, step) in (1..).zip(&steps) {
        field(out, &format!("  {number}."), step);
    }
}

fn one(out: &mut String, view: &RegistrationView, of_nai: bool) {
    let _ = write!(out, "{}, {} ago", clock(view.at_unix_seconds), age(view.age_seconds));
    if let Some(agent) = &view.agent {
        let _ = write!(out, ", at \"{}\"", clean(agent));
    }
    if view.times > 1 {
        let _ = write!(
            out,
            " ({} times alike, the first {} ago)",
            view.times,
            age(view.first_age_seconds)
        );
    }
    out.push('\n');
    let verdict = match (view.accepted, view.cause.as_str()) {
        (true, "revoked" | "revoked-before" | "revocation-acknowledged") => "revoked",
        (true, _) => "accepted",
        (false, "relayed") => "waits",
        (false, _) => "refused",
    };
    field(out, &format!("  {verdict}"), &clean(&view.sentence));
    let mut came =
        format!("from {} port {} on \"{}\"", view.source, view.source_port, clean(&view.port));
    match view.foreign_agent {
        Some(agent) if agent == view.source => came.push_str(", which is its foreign agent"),
        Some(agent) => _ = write!(came, ", through the foreign agent {agent}"),
        None if view.co_located => came.push_str(", from the node itself"),
        None => {}
    }
    field(out, "  came", &came);
    if view.nat {
        let text = format!(
            "the request came from {}, but the node's tunnel end is {}: there is a NAT between",
            view.source, view.care_of_address
        );
        field(out, "  NAT", &text);
    }
    field(out, "  asked", &asked(view));
    if let Some(session) = &view.session {
        // Other sessions of the NAI may have asked for the same.
        let last = if of_nai && view.times > 1 { ", the last of them" } else { "" };
        field(out, "  session", &format!("\"{}\"{last}", clean(session)));
    }
    if let (Some(step), Some(sentence)) = (&view.step, &view.step_sentence) {
        field(out, "  step", &format!("{}: {}", clean(step), clean(sentence)));
    }
    let signed = signed(view);
    if !signed.is_empty() {
        field(out, "  signed", &signed);
    }
    if let Some(offset) = view.clock_offset_seconds {
        let seconds = offset.unsigned_abs();
        let text = match offset {
            0 => "the node's is right to the second".to_owned(),
            1.. => format!("the node's is {seconds} s ahead of ours"),
            _ => format!("the node's is {seconds} s behind ours"),
        };
        field(out, "  clock", &text);
    }
    let mut reply = clean(&view.answer.sentence);
    if view.accepted && view.answer.code.is_some() && view.lifetime_asked_seconds != Some(0) {
        let _ = write!(reply, " For {}.", lifetime(view.answer.lifetime_seconds));
    }
    field(out, "  reply", &reply);
    if let Some(warning) = &view.warning {
        field(out, "  but", &clean(warning));
    }
    if let Some(remedy) = &view.remedy {
        field(out, "  to do", &clean(remedy));
    }
}

fn asked(view: &RegistrationView) -> String {
    let mut text = match view.lifetime_asked_seconds {
        Some(0) if view.care_of_address.is_unspecified() => "to be at home".to_owned(),
        Some(0) => format!("to end the registration at {}", view.care_of_address),
        seconds => format!("to be reached at {}, for {}", view.care_of_address, lifetime(seconds)),
    };
    let _ = write!(text, ", by the home agent {}", view.home_agent);
    if !view.wishes.is_empty() {
        let _ = write!(text, "; with {}", clean(&view.wishes.join(", ")));
    }
    text
}

fn signed(view: &RegistrationView) -> String {
    let mut text = String::new();
    if let Some(spi) = view.spi_used {
        let _ = write!(text, "by the node with SPI {spi}");
    }
    if let Some(association) = &view.association {
        let separator = if text.is_empty() { "" } else { "; " };
        let algorithm = clean(&association.algorithm);
        if view.spi_used == Some(association.spi) {
            let _ = write!(text, ", which is {algorithm} here");
        } else {
            let _ = write!(text, "{separator}judged by SPI {} ({algorithm})", association.spi);
        }
    }
    if let Some(spi) = view.foreign_agent_spi_used {
        let separator = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{separator}by the agents with SPI {spi}");
    }
    text
}

/// A name and what belongs to it, in lines of a terminal's width.
fn field(out: &mut String, name: &str, text: &str) {
    let mut line = format!("{name:<INDENT$}");
    let mut is_empty = true;
    for word in text.split(' ') {
        let long = line.chars().count() + 1 + word.chars().count() > WIDTH;
        if long && !is_empty {
            out.push_str(line.trim_end());
            out.push('\n');
            line = " ".repeat(INDENT);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// A time of day.
fn clock(unix_seconds: u64) -> String {
    let second = unix_seconds % 86_400;
    format!("{:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::explain::{AnswerView, SwallowedView};
    use crate::admin::table::is_obeyed;
    use crate::admin::view::Role;

    #[test]
    fn long_text_is_set_in_columns_beside_its_name() {
        let mut out = String::new();
        field(&mut out, "  to do", &"word ".repeat(40));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        assert!(lines[0].starts_with("  to do     word word"), "{out}");
        assert!(lines[1].starts_with("            word"), "{out}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{out}");
        let mut out = String::new();
        field(&mut out, "  x", &"y".repeat(300));
        assert_eq!(out.lines().count(), 1, "a word is never cut");
    }

    /// Names of agents and ports come from a file, sentences from a daemon of perhaps
    /// another version.
    #[test]
    fn what_came_from_outside_cannot_speak_to_a_terminal() {
        let evil = || "a\u{1b}[2J\r\nb\u{202e}".to_owned();
        let association = AssociationView {
            spi: 256,
            algorithm: evil(),
            replay: Some(evil()),
            tolerance_seconds: None,
        };
        let registration = RegistrationView {
            agent: Some(evil()),
            role: Some(Role::HomeAgent),
            at_unix_seconds: 0,
            age_seconds: 1,
            times: 2,
            first_age_seconds: 3,
            accepted: false,
            cause: evil(),
            sentence: evil(),
            source: Ipv4Addr::LOCALHOST,
            source_port: 434,
            port: evil(),
            foreign_agent: None,
            co_located: true,
            nat: true,
            home_agent: Ipv4Addr::LOCALHOST,
            care_of_address: Ipv4Addr::LOCALHOST,
            lifetime_asked_seconds: None,
            wishes: vec![evil()],
            session: Some(evil()),
            step: Some(evil()),
            step_sentence: Some(evil()),
            extensions: vec![evil()],
            identification: 1,
            spi_used: Some(256),
            foreign_agent_spi_used: Some(300),
            association: Some(association.clone()),
            clock_offset_seconds: Some(-60),
            answer: AnswerView {
                code: None,
                lifetime_seconds: None,
                silence: Some(evil()),
                sentence: evil(),
            },
            warning: Some(evil()),
            remedy: Some(evil()),
        };
        let known = KnownView {
            agent: evil(),
            role: Role::HomeAgent,
            address: Ipv4Addr::LOCALHOST,
            associations: vec![association],
        };
        let session = SessionView {
            tenant: 0,
            agent: evil(),
            home_agent: Ipv4Addr::LOCALHOST,
            nai: evil(),
            nai_hex: None,
            session: evil(),
            session_hex: None,
            home_address: Ipv4Addr::LOCALHOST,
            state: SessionStateView::Sticky,
            care_of_address: None,
            encapsulation: None,
            remaining_seconds: None,
            until_seconds: Some(61),
        };
        let mut view = ExplanationView {
            home_address: Some(Ipv4Addr::LOCALHOST),
            nai: Some(evil()),
            tenant: 0,
            known_to: vec![known],
            sessions: vec![session],
            bindings: Vec::new(),
            visitors: Vec::new(),
            registrations: vec![registration],
            swallowed: vec![SwallowedView { reason: evil(), text: evil(), count: 1 }],
            uptime_seconds: 7,
            remembers: true,
        };
        for _ in 0..2 {
            let shown = explanation(&view);
            assert!(!shown.chars().any(|c| c != '\n' && is_obeyed(c)), "{shown:?}");
            assert!(shown.contains("a\\u{1b}[2J\\r\\nb\\u{202e}"), "{shown}");
            view.registrations.clear();
        }
        view.home_address = None;
        for _ in 0..2 {
            let shown = explanation(&view);
            assert!(!shown.chars().any(|c| c != '\n' && is_obeyed(c)), "{shown:?}");
            assert!(shown.contains("a\\u{1b}[2J\\r\\nb\\u{202e}"), "{shown}");
            view.sessions.clear();
        }
    }

    #[test]
    fn a_time_of_day_is_told_in_utc() {
        assert_eq!(clock(0), "00:00:00 UTC");
        assert_eq!(clock(1_800_000_000 + 86_399), "07:59:59 UTC");
    }
}
