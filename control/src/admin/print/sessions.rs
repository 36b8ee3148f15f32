//! Sessions and pools, as people see them.

use std::collections::BTreeMap;

use super::nodes::encapsulation;
use super::{age, lifetime, or_dash};
use crate::admin::api::{PoolView, SessionStateView, SessionsView};
use crate::admin::table::Table;

/// `show sessions`.
pub fn sessions(view: &SessionsView) -> String {
    let mut table = Table::new(&[
        "NAI",
        "SESSION",
        "HOME-ADDRESS",
        "STATE",
        "CARE-OF-ADDRESS",
        "TUNNEL",
        "#LEFT",
        "#FREE-IN",
        "AGENT",
        "HOME-AGENT",
        "#TENANT",
    ]);
    for session in &view.sessions {
        let is_bound = session.state == SessionStateView::Bound;
        table.row([
            session.nai.clone(),
            or_dash(Some(&session.session).filter(|name| !name.is_empty())),
            session.home_address.to_string(),
            session.state.name().into(),
            or_dash(session.care_of_address),
            session.encapsulation.map_or_else(|| "-".into(), encapsulation),
            if is_bound { lifetime(session.remaining_seconds) } else { "-".into() },
            or_dash(session.until_seconds.map(age)),
            session.agent.clone(),
            session.home_agent.to_string(),
            session.tenant.to_string(),
        ]);
    }
    let mut out = table.render("No sessions: no node that is known by NAI has an address.");
    if view.more > 0 {
        out.push_str(&format!("\n{} more are not shown: choose with --nai NAI.\n", view.more));
    }
    out
}

/// `show pools`.
pub fn pools(pools: &[PoolView]) -> String {
    let mut table = Table::new(&[
        "POOL",
        "REALM",
        "#SIZE",
        "#BOUND",
        "#HOME",
        "#STICKY",
        "#HELD-DOWN",
        "#FREE",
        "#USE",
        "#EXHAUSTED",
        "AGENT",
        "HOME-AGENT",
        "#TENANT",
    ]);
    let mut exhausted = BTreeMap::new();
    for pool in pools {
        table.row([
            pool.name.clone(),
            pool.realm.clone().unwrap_or_else(|| "any".into()),
            pool.size.to_string(),
            pool.bound.to_string(),
            pool.home.to_string(),
            pool.sticky.to_string(),
            pool.held_down.to_string(),
            pool.free.to_string(),
            format!("{}%", pool.use_percent),
            pool.exhausted.to_string(),
            pool.agent.clone(),
            pool.home_agent.to_string(),
            pool.tenant.to_string(),
        ]);
        exhausted.insert(pool.tenant, pool.exhausted_of_tenant);
    }
    let mut out =
        table.render("No pools: sessions get only addresses that are set aside for them.");
    for (tenant, count) in exhausted.into_iter().filter(|(_, count)| *count > 0) {
        let requests = if count == 1 { "request" } else { "requests" };
        out.push_str(&format!(
            "\n{count} {requests} of tenant {tenant} found no free address since the start.\n"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{Encapsulation, SessionView};
    use crate::admin::names;
    use crate::admin::table::is_obeyed;
    use homeport_proto::home_agent::SessionState;
    use std::net::Ipv4Addr;

    fn session(sub_nai: &[u8], state: SessionState) -> SessionView {
        let seen = homeport_proto::home_agent::SessionView {
            nai: b"phone@train.example",
            sub_nai,
            home_address: Ipv4Addr::new(10, 1, 0, 101),
            state,
            until: None,
        };
        SessionView::new((0, "ha", Ipv4Addr::new(10, 0, 1, 2)), &seen, None)
    }

    #[test]
    fn a_session_has_a_line_and_what_is_left_out_is_counted() {
        let bound = SessionView {
            care_of_address: Some(Ipv4Addr::new(10, 0, 2, 2)),
            encapsulation: Some(Encapsulation::IpInIp),
            remaining_seconds: Some(59),
            ..session(b"laptop", SessionState::Bound)
        };
        let kept = SessionView { until_seconds: Some(61), ..session(b"", SessionState::HeldDown) };
        let shown = sessions(&SessionsView { sessions: vec![bound, kept], more: 990_000 });
        assert_eq!(
            shown,
            "NAI                  SESSION  HOME-ADDRESS  STATE      CARE-OF-ADDRESS  TUNNEL    LEFT  FREE-IN  AGENT  HOME-AGENT  TENANT\n\
             phone@train.example  laptop   10.1.0.101    bound      10.0.2.2         IP-in-IP   59s        -  ha     10.0.1.2         0\n\
             phone@train.example  -        10.1.0.101    held-down  -                -            -    1m01s  ha     10.0.1.2         0\n\
             \n990000 more are not shown: choose with --nai NAI.\n"
        );
    }

    /// Reliability row 42.
    #[test]
    fn a_name_is_one_line_and_cannot_speak_to_a_terminal() {
        let evil = b"a\n\x1b[2J\x00\xff\xe2\x80\xae";
        let view = session(evil, SessionState::Sticky);
        assert_eq!(view.session_hex.as_deref(), Some("610a1b5b324a00ffe280ae"));
        assert_eq!(names::read(&view.session).as_deref(), Some(&evil[..]));
        let shown = sessions(&SessionsView { sessions: vec![view], more: 0 });
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.chars().any(|c| c != '\n' && is_obeyed(c)), "{shown:?}");
    }
}
