//! The command-to-be: enters a network namespace of its own, gets an interface and an
//! address from outside, and becomes the command.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use homeport_dataplane::port::interface;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::FAILED;
use crate::mobile::{namespace, veth};

/// The interface inside.
pub const INTERFACE: &str = "eth0";

/// What is said when the namespace is there.
pub const READY: &str = "ready";

/// The exit codes of shells.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Becomes the command. Comes back only when that cannot be, with the exit code.
pub fn run(wire: UnixStream, command: &[OsString]) -> u8 {
    let mut wire = BufReader::new(wire);
    if let Err(error) = prepare(&mut wire) {
        let _ = writeln!(wire.get_mut(), "{error:#}");
        return FAILED;
    }
    let Some((program, arguments)) = command.split_first() else { return FAILED };
    // The wire is closed by becoming the command: that says that all went well.
    let error = Command::new(program).args(arguments).exec();
    eprintln!("homeport-mn: {}: {error}", program.display());
    drop(wire);
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn prepare(wire: &mut BufReader<UnixStream>) -> Result<()> {
    // Who started us must not leave us behind.
    set_parent_process_death_signal(Some(Signal::KILL)).context("following the parent")?;
    namespace::enter_new().context("making a network namespace, for which one must be root")?;
    writeln!(wire.get_mut(), "{READY}").context("telling that the namespace is there")?;
    let mut line = String::new();
    wire.read_line(&mut line).context("waiting for an address")?;
    let mut words = line.split_whitespace().map(str::parse::<Ipv4Addr>);
    let (Some(Ok(address)), Some(Ok(router))) = (words.next(), words.next()) else {
        return Err(anyhow!("no address came"));
    };
    interface::set_up("lo", true).context("setting the loopback up")?;
    interface::set_up(INTERFACE, true).context("setting the interface up")?;
    veth::configure(INTERFACE, address, router)?;
    Ok(())
}
