//! A daemon under test: started in a namespace, asked over its socket, stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::namespace::{Namespace, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

/// A folder of one test, removed with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("homeportd-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A file that nobody else may read.
    pub(crate) fn write_key(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where cargo has put the programs.
pub(crate) const HOMEPORTD: &str = env!("CARGO_BIN_EXE_homeportd");
pub(crate) const HOMEPORT_MN: &str = env!("CARGO_BIN_EXE_homeport-mn");

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    /// Starts `homeportd` with `NAME.toml`, and waits until it forwards.
    pub(crate) fn start(namespace: &Namespace, folder: &Folder, name: &str) -> Self {
        Self::start_program(HOMEPORTD, namespace, folder, name)
    }

    /// Starts a program with `NAME.toml`, and waits until it says that it is ready.
    pub(crate) fn start_program(
        program: &str,
        namespace: &Namespace,
        folder: &Folder,
        name: &str,
    ) -> Self {
        let (log, ready) =
            (folder.path(&format!("{name}.log")), folder.path(&format!("{name}.out")));
        let config = folder.path(&format!("{name}.toml"));
        let child = spawn(program, namespace, &config, &log, &ready);
        let mut daemon = Daemon { child, log, socket: folder.path(&format!("{name}.sock")) };
        wait_for("READY", LIMIT, || {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program} ended: {}", daemon.read_log());
            fs::read_to_string(&ready).unwrap().contains("READY").then_some(())
        });
        daemon
    }

    /// Starts `homeportd` and wants it to fail; gives what it said.
    pub(crate) fn fail(namespace: &Namespace, folder: &Folder, name: &str) -> String {
        let log = folder.path(&format!("{name}.log"));
        let config = folder.path(&format!("{name}.toml"));
        let mut child = spawn(HOMEPORTD, namespace, &config, &log, &folder.path("out"));
        let status = wait_for("the end", LIMIT, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1));
        fs::read_to_string(log).unwrap()
    }

    /// The answer of the admin API.
    pub(crate) fn get(&self, noun: &str) -> Value {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let request =
            format!("GET /v1/{noun} HTTP/1.1\r\nHost: homeport\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}: {body}");
        serde_json::from_str(body).unwrap()
    }

    /// The conservation law holds once nothing is in flight.
    pub(crate) fn assert_conserved(&self) {
        wait_for("rx = tx + punted + to_kernel + dropped + held", LIMIT, || {
            let status = self.get("status");
            let total = |name: &str| status["totals"][name].as_u64().unwrap();
            let out = ["tx", "punted", "to_kernel", "dropped", "held"].map(total);
            (total("rx") > 0 && total("rx") == out.iter().sum::<u64>()).then_some(())
        });
    }

    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Stops it as a service manager does, and wants it to end well.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.read_log());
    }

    /// Ends it without a chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_for(text, LIMIT, || self.read_log().contains(text).then_some(()));
    }

    pub(crate) fn read_log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("the end", LIMIT, || self.child.try_wait().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.read_log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ip netns exec` becomes the program, so the child is the program itself.
fn spawn(program: &str, namespace: &Namespace, config: &Path, log: &Path, out: &Path) -> Child {
    namespace
        .command(program)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(File::create(out).unwrap())
        .stderr(File::create(log).unwrap())
        .spawn()
        .unwrap()
}
