//! Sessions over the API: those of home agents, how they are chosen; those of a mobile
//! node, how they are shown, begun and ended.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/sessions?nai=NAI&tenant=N`, both optional | [`SessionsView`](super::api::SessionsView), of a mobile node a list of [`SessionView`] |
//! | `POST /v1/sessions` with [`AddSession`] | the new one, or [`Refusal::conflict`] |
//! | `POST /v1/sessions/remove` with [`RemoveSession`] | the one that was |
//! | `POST /v1/sessions/remove-all` | those that were; those of other nodes with the NAI end too |

use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query as UrlQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::api::{AdminSender, Query, Refusal, SessionsArgs, VERSION};
use super::names;
use super::server::{Caller, ask, bad_request, respond};
use super::table::{Table, age};

/// Whose a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// A device's on the LAN.
    Device,
    /// A command's, in a network namespace of its own.
    Command,
    /// The mobile node's own.
    Local,
}

impl SessionKind {
    const fn text(self) -> &'static str {
        match self {
            SessionKind::Device => "device",
            SessionKind::Command => "command",
            SessionKind::Local => "local",
        }
    }
}

/// A session of a mobile node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Its name, the sub-NAI; what is no text in it is escaped.
    pub name: String,
    /// Whose it is.
    pub kind: SessionKind,
    /// Its state in a word: `searching`, `registering`, `registered`, `home`, `denied`.
    pub state: String,
    /// Its home address; `null` until there is one.
    pub home_address: Option<Ipv4Addr>,
    /// Where its tunnel ends; `null` at home, and where it is not registered.
    pub care_of_address: Option<Ipv4Addr>,
    /// The interface that its packets go to.
    pub interface: Option<String>,
    /// The link-layer address that its packets go to.
    pub mac: Option<String>,
    /// What is left of a device's DHCP lease.
    pub lease_seconds: Option<u64>,
    /// What is left of its registration; `null` at home, too.
    pub remaining_seconds: Option<u64>,
    /// Packets that it has sent through the mobile node's own tunnel. What the kernel
    /// forwards by itself, at home and through a foreign agent without encapsulating
    /// delivery, is not counted.
    #[serde(default)]
    pub tunnel_sent_packets: u64,
    /// Their bytes, without the tunnel's headers.
    #[serde(default)]
    pub tunnel_sent_bytes: u64,
    /// Packets that came for it through that tunnel.
    #[serde(default)]
    pub tunnel_received_packets: u64,
    /// Their bytes, without the tunnel's headers.
    #[serde(default)]
    pub tunnel_received_bytes: u64,
    /// The code of the last denial, until a request is accepted.
    pub last_code: Option<u8>,
    /// What that code means.
    pub last_code_text: Option<String>,
}

/// A session to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddSession {
    /// Its name.
    pub name: String,
    /// The address that it had before.
    #[serde(default)]
    pub wanted: Option<Ipv4Addr>,
    /// The command that it is for; without one it is the mobile node's own.
    #[serde(default)]
    pub command: Option<CommandEnd>,
}

/// How a command in a network namespace of its own is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandEnd {
    /// The end of its veth pair that is in the mobile node's namespace.
    pub interface: String,
    /// The link-layer address of the other end.
    pub mac: String,
    /// The process that runs it: the session ends with it.
    pub pid: u32,
}

/// A session to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveSession {
    /// Its name, as it is or as it is shown.
    pub name: String,
}

/// The paths.
pub(super) fn routes() -> Router<AdminSender> {
    Router::new()
        .route(&format!("/{VERSION}/sessions"), get(show).post(add))
        .route(&format!("/{VERSION}/sessions/remove"), post(remove))
        .route(&format!("/{VERSION}/sessions/remove-all"), post(remove_all))
}

/// What sessions may be narrowed to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    nai: Option<String>,
    tenant: Option<u32>,
}

async fn show(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    chosen: Result<UrlQuery<Chosen>, QueryRejection>,
) -> Response {
    let query = || -> Result<Query, Refusal> {
        let UrlQuery(Chosen { nai, tenant }) = chosen.map_err(|_| {
            bad_request("The parameters are not understood.", "Write ?nai=NAI&tenant=0.")
        })?;
        let nai = nai.as_deref().map(nai_of).transpose()?;
        Ok(Query::Sessions(SessionsArgs { nai, tenant }))
    };
    let outcome = match query() {
        Ok(query) => ask(&sender, caller, query).await,
        Err(refusal) => Err(refusal),
    };
    respond(outcome)
}

/// A NAI as it is shown.
fn nai_of(text: &str) -> Result<Vec<u8>, Refusal> {
    names::read(text).ok_or_else(|| {
        bad_request(
            "The backslash in this NAI begins no escape.",
            "Write the NAI as `homeport show sessions` does: a backslash is \\\\.",
        )
    })
}

async fn add(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    let hint = "Send {\"name\": …, \"wanted\": …} as JSON.";
    match read(&body, hint) {
        Ok(add) => respond(ask(&sender, caller, Query::AddSession(add)).await),
        Err(refusal) => respond::<SessionView>(Err(refusal)),
    }
}

async fn remove(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    match read(&body, "Send {\"name\": …} as JSON.") {
        Ok(remove) => respond(ask(&sender, caller, Query::RemoveSession(remove)).await),
        Err(refusal) => respond::<SessionView>(Err(refusal)),
    }
}

async fn remove_all(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Response {
    respond(ask(&sender, caller, Query::RemoveAllSessions).await)
}

fn read<T: DeserializeOwned>(body: &Bytes, hint: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| bad_request(&format!("The body is not understood: {error}."), hint))
}

/// Sessions as people see them.
pub fn print(sessions: &[SessionView]) -> String {
    let mut table = Table::new(&[
        "NAME",
        "KIND",
        "HOME-ADDRESS",
        "STATE",
        "CARE-OF-ADDRESS",
        "ON",
        "MAC",
        "#LEASE",
        "#LEFT",
        "#SENT",
        "#BYTES",
        "#RECEIVED",
        "#BYTES",
        "DENIED",
    ]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for session in sessions {
        table.row([
            session.name.clone(),
            session.kind.text().into(),
            or_dash(session.home_address.map(|address| address.to_string())),
            session.state.clone(),
            or_dash(session.care_of_address.map(|address| address.to_string())),
            or_dash(session.interface.clone()),
            or_dash(session.mac.clone()),
            or_dash(session.lease_seconds.map(age)),
            or_dash(session.remaining_seconds.map(age)),
            session.tunnel_sent_packets.to_string(),
            session.tunnel_sent_bytes.to_string(),
            session.tunnel_received_packets.to_string(),
            session.tunnel_received_bytes.to_string(),
            match (session.last_code, &session.last_code_text) {
                (Some(code), Some(text)) => format!("{code} {text}"),
                _ => "-".into(),
            },
        ]);
    }
    table.render("No sessions.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_line_and_obeyed_by_no_terminal() {
        let session = SessionView {
            name: "a\u{1b}[2J".into(),
            kind: SessionKind::Device,
            state: "denied".into(),
            home_address: Some(Ipv4Addr::new(10, 1, 0, 20)),
            care_of_address: None,
            interface: Some("lan0".into()),
            mac: None,
            lease_seconds: Some(61),
            remaining_seconds: None,
            tunnel_sent_packets: 3,
            tunnel_sent_bytes: 252,
            tunnel_received_packets: 2,
            tunnel_received_bytes: 168,
            last_code: Some(130),
            last_code_text: Some("insufficient resources".into()),
        };
        let text = print(&[session]);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let cells = [
            "a\\u{1b}[2J",
            "device",
            "10.1.0.20",
            "denied",
            "-",
            "lan0",
            "-",
            "1m01s",
            "-",
            "3",
            "252",
            "2",
            "168",
            "130",
            "insufficient",
            "resources",
        ];
        assert_eq!(lines[1], cells);
        assert_eq!(print(&[]), "No sessions.\n");
    }
}
