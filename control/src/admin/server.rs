//! The admin API over HTTP/1.1: on a unix socket, with metrics on an address of
//! its own. It runs on a thread of its own, and all it does to the event loop is
//! to leave calls for it; reading and checking config files happens here.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/{status,ports,bindings,visitors,pools,tunnels,routes,neighbors,napt,drops,counters,security-associations,mobile-node,config}` | the view |
//! | `/v1/sessions…` | see [`sessions`](super::sessions) |
//! | `GET /v1/explain/{home address or NAI}?tenant=N&agent=NAME`, both optional | the story of a node |
//! | `POST /v1/config/check` with `{"text", "path"}` | what would change |
//! | `POST /v1/config/apply` with `{"text", "path"}` | what changed |
//! | `DELETE /v1/bindings/{home address}?tenant=N`, `DELETE /v1/visitors/…` | what was cleared |
//! | `GET /metrics`, on the metrics address | Prometheus text |
//!
//! What is refused is a [`Refusal`] as JSON. The caller is whom the kernel says
//! (SO_PEERCRED): root and the daemon's own user are operators, nobody else is
//! anybody.
//!
//! **Not done:** tenants have no way to come in yet; they will by HTTPS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::QueryRejection;
use axum::extract::{
    ConnectInfo, DefaultBodyLimit, Path as UrlPath, Query as UrlQuery, RawQuery, State,
};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::serve::IncomingStream;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::api::{AdminSender, Answer, Identity, Query, Refusal, RefusalKind, Status, VERSION};
use super::explain::{Asked, ExplainArgs};
use super::listener::Bounded;
use super::metrics;
use crate::config::{Config, diff};
use homeport_proto::TenantId;

/// How long the event loop may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest body of a request: a config with some 300,000 associations.
const MAX_BODY: usize = 64 << 20;

/// A config file as it is sent: its text, and where it is, for the key files
/// beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// The text.
    pub text: String,
    /// The absolute path of the file.
    pub path: PathBuf,
}

/// The running server. Dropping it closes its sockets.
#[derive(Debug)]
pub struct AdminServer {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
    /// Device and inode of the socket, to remove no other's.
    socket_id: (u64, u64),
    metrics: Option<SocketAddr>,
}

impl AdminServer {
    /// Serves the event loop behind `sender` on the unix socket at `socket`, which
    /// only the daemon's user may use, and its metrics on an address. A socket
    /// that nobody answers on any more is replaced; directories are made.
    ///
    /// # Errors
    /// When another process answers on the socket, when its place is taken by
    /// something that is no socket, and when an address cannot be bound.
    pub fn start(
        sender: AdminSender,
        socket: &Path,
        metrics: Option<SocketAddr>,
    ) -> io::Result<AdminServer> {
        let listener = bind_unix(socket).map_err(|error| named(error, &socket.display()))?;
        let metadata = std::fs::symlink_metadata(socket)?;
        let metrics_listener = metrics
            .map(|address| {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .transpose()
            .map_err(|error| {
                let _ = std::fs::remove_file(socket);
                named(error, &metrics.map(|address| address.to_string()).unwrap_or_default())
            })?;
        let metrics =
            metrics_listener.as_ref().map(|listener| listener.local_addr()).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(sender, listener, metrics_listener, stopped))
            {
                tracing::error!(%error, "the admin API stopped");
            }
            // A client that never hangs up shall not keep the process.
            runtime.shutdown_background();
        })?;
        Ok(AdminServer {
            stop,
            thread: Some(thread),
            socket: socket.into(),
            socket_id: (metadata.dev(), metadata.ino()),
            metrics,
        })
    }

    /// Where metrics are served, with the port that the kernel chose if it was 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let ours = std::fs::symlink_metadata(&self.socket)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.socket_id);
        if ours {
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

fn named(error: io::Error, what: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A listening socket at `path` with mode 0600. The mode is set before anybody can
/// connect.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is no socket is in the place of the admin socket; move it away",
            ));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another daemon serves this admin socket; stop it, or give this one its own \
                     daemon.admin_socket",
                ));
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket.into())
}

async fn serve(
    sender: AdminSender,
    listener: std::os::unix::net::UnixListener,
    metrics: Option<std::net::TcpListener>,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let api = axum::serve(
        Bounded::new(UnixListener::from_std(listener)?),
        api_router(sender.clone()).into_make_service_with_connect_info::<Caller>(),
    )
    .with_graceful_shutdown(until(stopped.clone()));
    let Some(metrics) = metrics else {
        return api.await;
    };
    let metrics = axum::serve(
        Bounded::new(TcpListener::from_std(metrics)?),
        metrics_router(sender).into_make_service(),
    )
    .with_graceful_shutdown(until(stopped.clone()));
    let all = async { tokio::try_join!(api.into_future(), metrics.into_future()).map(|_| ()) };
    tokio::select! {
        done = all => done,
        () = async { until(stopped).await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

/// How long requests under way may take to end when the server stops.
const GRACE: Duration = Duration::from_millis(500);

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error says that the sender is gone: that is an end too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(Option<Identity>);

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Self {
        let uid = stream.io().get_ref().peer_cred().map(|credentials| credentials.uid());
        let own = rustix::process::geteuid().as_raw();
        Caller(uid.is_ok_and(|uid| uid == 0 || uid == own).then_some(Identity::Operator))
    }
}

impl Caller {
    fn identity(self) -> Result<Identity, Refusal> {
        self.0.ok_or_else(|| {
            Refusal::new(
                RefusalKind::Forbidden,
                "You are neither root nor the daemon's user.",
                "Run the command as root, with sudo say.",
            )
        })
    }
}

fn api_router(sender: AdminSender) -> Router {
    let mut router = Router::new();
    let views: [(&str, Query); 14] = [
        ("status", Query::Status),
        ("ports", Query::Ports),
        ("bindings", Query::Bindings),
        ("visitors", Query::Visitors),
        ("pools", Query::Pools),
        ("tunnels", Query::Tunnels),
        ("routes", Query::Routes),
        ("neighbors", Query::Neighbors),
        ("napt", Query::Napt),
        ("drops", Query::Drops),
        ("counters", Query::Counters),
        ("security-associations", Query::SecurityAssociations),
        ("mobile-node", Query::MobileNode),
        ("config", Query::ConfigShow),
    ];
    for (noun, query) in views {
        let show = move |State(sender): State<AdminSender>,
                         ConnectInfo(caller): ConnectInfo<Caller>| async move {
            respond(ask(&sender, caller, query).await)
        };
        router = router.route(&format!("/{VERSION}/{noun}"), get(show));
    }
    router
        .merge(super::sessions::routes())
        .merge(super::trace::routes())
        .route(&format!("/{VERSION}/bindings/{{home_address}}"), delete(clear_binding))
        .route(&format!("/{VERSION}/explain/{{node}}"), get(explain))
        .route(&format!("/{VERSION}/visitors/{{home_address}}"), delete(clear_visitor))
        .route(&format!("/{VERSION}/config/check"), post(check_config))
        .route(&format!("/{VERSION}/config/apply"), post(apply_config))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(sender)
}

fn metrics_router(sender: AdminSender) -> Router {
    Router::new().route("/metrics", get(show_metrics)).fallback(no_such_path).with_state(sender)
}

pub(super) async fn ask(
    sender: &AdminSender,
    caller: Caller,
    query: Query,
) -> Result<Answer, Refusal> {
    ask_as(sender, caller.identity()?, query).await
}

async fn ask_as(sender: &AdminSender, identity: Identity, query: Query) -> Result<Answer, Refusal> {
    let answer = sender.submit(query, identity)?;
    tokio::time::timeout(ANSWER_TIMEOUT, answer.wait()).await.unwrap_or_else(|_| {
        let seconds = ANSWER_TIMEOUT.as_secs();
        Err(Refusal::unavailable(format!("The event loop did not answer within {seconds} s.")))
    })
}

async fn clear_binding(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    UrlPath(home_address): UrlPath<String>,
    RawQuery(parameters): RawQuery,
) -> Response {
    let outcome = match node_of(&home_address, parameters.as_deref()) {
        Ok((tenant, home_address)) => {
            ask(&sender, caller, Query::ClearBinding { tenant, home_address }).await
        }
        Err(refusal) => Err(refusal),
    };
    respond(outcome)
}

async fn clear_visitor(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    UrlPath(home_address): UrlPath<String>,
    RawQuery(parameters): RawQuery,
) -> Response {
    let outcome = match node_of(&home_address, parameters.as_deref()) {
        Ok((tenant, home_address)) => {
            ask(&sender, caller, Query::ClearVisitor { tenant, home_address }).await
        }
        Err(refusal) => Err(refusal),
    };
    respond(outcome)
}

/// What an explanation may be narrowed to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Narrowed {
    tenant: Option<u32>,
    agent: Option<String>,
}

async fn explain(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    UrlPath(node): UrlPath<String>,
    narrowed: Result<UrlQuery<Narrowed>, QueryRejection>,
) -> Response {
    let query = || -> Result<Query, Refusal> {
        let node = Asked::of(&node).ok_or_else(|| {
            let hint = "Write it as in /v1/explain/10.1.0.10, or the NAI as `homeport show sessions` does.";
            bad_request("This is neither an IPv4 address nor a NAI.", hint)
        })?;
        let UrlQuery(Narrowed { tenant, agent }) = narrowed.map_err(|_| {
            bad_request("The parameters are not understood.", "Write ?tenant=0&agent=NAME.")
        })?;
        Ok(Query::Explain(ExplainArgs { node, tenant, home_agent: agent }))
    };
    let outcome = match query() {
        Ok(query) => ask(&sender, caller, query).await,
        Err(refusal) => Err(refusal),
    };
    respond(outcome)
}

/// The node that a path and its parameters name.
fn node_of(home_address: &str, parameters: Option<&str>) -> Result<(TenantId, Ipv4Addr), Refusal> {
    let home_address: Ipv4Addr = home_address.parse().map_err(|_| {
        bad_request(
            "This is no IPv4 address.",
            "Write the home address as in /v1/bindings/10.1.0.10.",
        )
    })?;
    let tenant = match parameters.unwrap_or_default() {
        "" => 0,
        text => text
            .strip_prefix("tenant=")
            .and_then(|tenant| tenant.parse().ok())
            .ok_or_else(|| bad_request("The parameters are not understood.", "Write ?tenant=0."))?,
    };
    Ok((TenantId(tenant), home_address))
}

async fn check_config(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    let outcome = async {
        caller.identity()?;
        let new = read_config(body).await?;
        match ask(&sender, caller, Query::ConfigShow).await? {
            Answer::Config(running) => Ok(diff(&running, &new)),
            _ => Err(Refusal::internal("The running config was not told.", "Report this.")),
        }
    };
    respond(outcome.await)
}

async fn apply_config(
    State(sender): State<AdminSender>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Response {
    let outcome = async {
        caller.identity()?;
        let new = read_config(body).await?;
        ask(&sender, caller, Query::ConfigApply(Arc::new(new))).await
    };
    respond(outcome.await)
}

/// The config in a request, checked on a thread that may block.
async fn read_config(body: Bytes) -> Result<Config, Refusal> {
    let sent: ConfigText = serde_json::from_slice(&body).map_err(|error| {
        bad_request(
            &format!("The body is not understood: {error}."),
            "Send {\"text\": …, \"path\": …} as JSON.",
        )
    })?;
    let parsed = tokio::task::spawn_blocking(move || Config::parse(&sent.text, &sent.path)).await;
    match parsed {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(errors)) => Err(Refusal {
            problems: errors.problems,
            ..Refusal::new(
                RefusalKind::InvalidConfig,
                "The config has errors; nothing was changed.",
                "Mend what is listed, and try again.",
            )
        }),
        Err(error) => Err(Refusal::internal(
            format!("The config could not be checked: {error}."),
            "See the daemon's log.",
        )),
    }
}

async fn show_metrics(State(sender): State<AdminSender>) -> Response {
    let mut all = metrics::Snapshot::default();
    let queries =
        [Query::Status, Query::Ports, Query::Napt, Query::Pools, Query::Drops, Query::Counters];
    for query in queries {
        match ask_as(&sender, Identity::Operator, query).await {
            Ok(answer) => all.take(answer),
            // A daemon without ports has no counters of them.
            Err(refusal) if refusal.kind == RefusalKind::NotFound => {}
            Err(refusal) => return respond::<Status>(Err(refusal)),
        }
    }
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&all)).into_response()
}

async fn no_such_path() -> Response {
    let hint = "GET /v1/status, or see `homeport --help`.";
    respond::<Status>(Err(Refusal::not_found("There is no such path.", hint)))
}

async fn no_such_method() -> Response {
    let hint = "GET shows, POST is for config/check, config/apply, sessions, trace and probe, DELETE for bindings and traces.";
    let refusal = bad_request("This path knows no such method.", hint);
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(refusal)).into_response()
}

pub(super) fn bad_request(error: &str, hint: &str) -> Refusal {
    Refusal::new(RefusalKind::BadRequest, error, hint)
}

pub(super) fn respond<T: Serialize>(outcome: Result<T, Refusal>) -> Response {
    match outcome {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(refusal) => {
            let status = match refusal.kind {
                RefusalKind::BadRequest => StatusCode::BAD_REQUEST,
                RefusalKind::Forbidden => StatusCode::FORBIDDEN,
                RefusalKind::NotFound => StatusCode::NOT_FOUND,
                RefusalKind::Conflict => StatusCode::CONFLICT,
                RefusalKind::InvalidConfig => StatusCode::UNPROCESSABLE_ENTITY,
                RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, axum::Json(refusal)).into_response()
        }
    }
}
