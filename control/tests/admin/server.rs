//! The server: its answers to what is refused, late or not allowed, and its socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use homeport_control::admin::api::*;
use homeport_control::admin::client::ClientError;
use homeport_control::admin::server::AdminServer;

use super::harness::*;

#[test]
fn a_refusal_is_json_with_error_and_hint_and_the_right_status() {
    let daemon = Daemon::start();
    let refused = |method: &str, path: &str, body: &str| {
        let text = raw(&daemon.socket(), method, path, body);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let refusal: Refusal = serde_json::from_str(body).unwrap();
        assert!(!refusal.error.is_empty() && !refusal.hint.is_empty());
        (status, refusal.kind)
    };
    assert_eq!(refused("GET", "/v1/nothing", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("GET", "/v2/status", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("GET", "/v1/mobile-node", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("POST", "/v1/status", ""), (405, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/bindings/home", ""), (400, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/bindings/10.1.0.10?x=1", ""), (400, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/bindings/10.1.0.11", ""), (404, RefusalKind::NotFound));
    assert_eq!(refused("DELETE", "/v1/visitors/home", ""), (400, RefusalKind::BadRequest));
    assert_eq!(refused("DELETE", "/v1/visitors/10.1.0.11", ""), (404, RefusalKind::NotFound));
    for body in ["", "{", "[]", r#"{"text": ""}"#, r#"{"text": "", "path": "/x", "more": 1}"#] {
        assert_eq!(refused("POST", "/v1/config/apply", body), (400, RefusalKind::BadRequest));
    }
    let bad = r#"{"text": "colour = 1", "path": "/etc/x.toml"}"#;
    assert_eq!(refused("POST", "/v1/config/check", bad), (422, RefusalKind::InvalidConfig));
}

fn raw(socket: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_loop_that_does_not_answer_is_unavailable_after_two_seconds() {
    let daemon = Daemon::with_loop(false);
    let begun = Instant::now();
    let error = daemon.client().get("/v1/status").unwrap_err();
    let waited = begun.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    match error {
        ClientError::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::Unavailable),
        other => panic!("{other}"),
    }
    assert!(raw(&daemon.socket(), "GET", "/v1/ports", "").starts_with("HTTP/1.1 503 "));
}

#[test]
fn the_socket_is_private_replaces_a_stale_one_and_goes_with_the_server() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (sender, _handle) = channel().unwrap();
    let error = AdminServer::start(sender.clone(), &socket, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    drop(daemon);

    let room = Room::new();
    // A socket that a killed daemon left: bound once, nobody listens.
    let stale = room.path("deep/er/ha.sock");
    std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let server = AdminServer::start(sender.clone(), &stale, None).unwrap();
    assert!(UnixStream::connect(&stale).is_ok());
    drop(server);
    assert!(!stale.exists());
    // A directory that is not there is made; what is no socket is left alone.
    let made = room.path("made/ha.sock");
    drop(AdminServer::start(sender.clone(), &made, None).unwrap());
    assert!(made.parent().unwrap().is_dir());
    let error = AdminServer::start(sender, &room.path("mn.key"), None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    assert!(room.path("mn.key").exists());
}

#[test]
fn whoever_is_neither_root_nor_the_daemon_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let daemon = Daemon::start();
    let program = daemon.room.path("homeport");
    std::fs::copy(env!("CARGO_BIN_EXE_homeport"), &program).unwrap();
    let ask = || {
        Command::new(&program)
            .args(["--socket", daemon.socket().to_str().unwrap(), "show", "status"])
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap()
    };
    let kept_out = ask();
    assert_eq!(code(&kept_out), 3);
    assert!(
        err(&kept_out).contains("only root and the daemon's user may ask"),
        "{}",
        err(&kept_out)
    );
    // Even if somebody opens the socket to all, the kernel says who asks.
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = ask();
    assert_eq!((code(&refused), out(&refused)), (1, String::new()));
    assert!(err(&refused).contains("You are neither root nor the daemon's user."));
}
