//! Packet trace in the API: what is asked, what is told, and the paths.
//!
//! | | |
//! |---|---|
//! | `POST /v1/trace` `{"filter": …, "count": …}` | begins a trace: its number |
//! | `GET /v1/trace/N` | the walks since the last time: [`WalksView`] |
//! | `DELETE /v1/trace/N` | ends it: the walks that were left |
//! | `POST /v1/probe` `{"packet": …}` | asks what would become of a packet: a number |
//! | `GET /v1/probe/N` | the answer, once it is there: [`WalksView`] |
//!
//! A trace whose client does not ask for [`SILENCE`](crate::event_loop::trace::SILENCE)
//! ends by itself.

pub mod command;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path as UrlPath, State};
use axum::response::Response;
use axum::routing::{get, post};
use homeport_dataplane::trace::{Filter, ProbePacket, WordError};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::api::{AdminSender, Query, Refusal, VERSION};
use super::server::{Caller, ask, bad_request, respond};

/// What may be asked about traces.
#[derive(Clone, Debug)]
pub enum TraceQuery {
    /// Begin a trace.
    Start {
        /// Of which packets.
        filter: Filter,
        /// After how many walks it ends.
        count: Option<u64>,
    },
    /// The next walks of the trace with this number.
    Next(u64),
    /// End the trace with this number.
    Stop(u64),
    /// What would become of a packet.
    Probe(ProbePacket),
    /// The answer to the probe with this number.
    Probed(u64),
}

/// What a [`TraceQuery`] is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TraceAnswer {
    /// To [`TraceQuery::Start`] and [`TraceQuery::Probe`].
    Begun(Begun),
    /// To the others.
    Walks(WalksView),
}

/// A trace or a probe that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Begun {
    /// The number to ask with.
    pub number: u64,
}

/// Walks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalksView {
    /// In the order in which they ended.
    pub walks: Vec<WalkView>,
    /// How many walks of this trace found no room so far and are lost.
    pub lost: u64,
    /// Whether no more come.
    pub done: bool,
}

/// The story of one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalkView {
    /// When it came in, in nanoseconds since 1970 (UTC).
    pub time_nanoseconds: u64,
    /// The RX core.
    pub worker: u16,
    /// The port that it is counted at.
    pub port: String,
    /// Whose it was when it came in.
    pub tenant: u32,
    /// The packet in a line.
    pub packet: String,
    /// Its first 256 bytes when it came in, as hexadecimal digits.
    pub frame: String,
    /// How long it was, in bytes.
    pub frame_bytes: u64,
    /// Whether it began with a link header, and not with its IPv4 header.
    pub link_header: bool,
    /// Whether it was made here: a copy, a fragment or an ICMP error. `frame` is then
    /// of the packet that it was made from.
    pub made_here: bool,
    /// The first 16 steps, in order.
    pub steps: Vec<StepView>,
    /// How many more there were.
    pub steps_omitted: u64,
    /// What became of it: `transmit`, `punt`, `to-kernel`, `hold`, `hand-over` or `drop`.
    pub verdict: String,
    /// Why, for a drop or a punt: the name of the counter.
    pub reason: Option<String>,
    /// The verdict for people.
    pub text: String,
    /// If it was transmitted, the first 256 bytes of the frame that left, as hexadecimal
    /// digits.
    pub sent: Option<String>,
    /// How long that frame was, in bytes.
    pub sent_bytes: u64,
}

/// A step of a walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// The table or rule that was consulted.
    pub table: String,
    /// What it said.
    pub text: String,
}

/// The body that begins a trace.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The words of a filter, as in `dst=10.1.0.10 proto=udp`.
    #[serde(default)]
    pub filter: String,
    /// After how many walks it ends.
    #[serde(default)]
    pub count: Option<u64>,
}

/// The body that asks about a packet.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// The words of a packet, as in `src=192.0.2.7 dst=10.1.0.10 proto=udp`.
    pub packet: String,
}

/// The paths of this module.
pub(super) fn routes() -> Router<AdminSender> {
    Router::new()
        .route(&format!("/{VERSION}/trace"), post(start))
        .route(&format!("/{VERSION}/trace/{{number}}"), get(next).delete(stop))
        .route(&format!("/{VERSION}/probe"), post(probe))
        .route(&format!("/{VERSION}/probe/{{number}}"), get(probed))
}

async fn start(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    let query = || {
        let TraceRequest { filter, count } =
            read(&body, "Send {\"filter\": …, \"count\": …} as JSON.")?;
        let filter = Filter::parse(&filter).map_err(|error| wrong_word("filter", &error))?;
        Ok(TraceQuery::Start { filter, count })
    };
    answer(&sender, caller, query()).await
}

async fn next(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    UrlPath(number): UrlPath<String>,
) -> Response {
    answer(&sender, caller, numbered(&number).map(TraceQuery::Next)).await
}

async fn stop(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    UrlPath(number): UrlPath<String>,
) -> Response {
    answer(&sender, caller, numbered(&number).map(TraceQuery::Stop)).await
}

async fn probe(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    let query = || {
        let ProbeRequest { packet } = read(&body, "Send {\"packet\": …} as JSON.")?;
        let packet = ProbePacket::parse(&packet).map_err(|error| wrong_word("packet", &error))?;
        Ok(TraceQuery::Probe(packet))
    };
    answer(&sender, caller, query()).await
}

async fn probed(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    UrlPath(number): UrlPath<String>,
) -> Response {
    answer(&sender, caller, numbered(&number).map(TraceQuery::Probed)).await
}

async fn answer(
    sender: &AdminSender,
    caller: Caller,
    query: Result<TraceQuery, Refusal>,
) -> Response {
    respond(match query {
        Ok(query) => ask(sender, caller, Query::Trace(query)).await,
        Err(refusal) => Err(refusal),
    })
}

fn read<T: DeserializeOwned>(body: &[u8], hint: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| bad_request(&format!("The body is not understood: {error}."), hint))
}

fn numbered(number: &str) -> Result<u64, Refusal> {
    number.parse().map_err(|_| {
        bad_request("This is no number of a trace.", "Write the number that its start answered.")
    })
}

fn wrong_word(what: &str, WordError { word, wrong, allowed }: &WordError) -> Refusal {
    bad_request(&format!("In the {what}, {word:?}: {wrong}."), &format!("Allowed: {allowed}."))
}
