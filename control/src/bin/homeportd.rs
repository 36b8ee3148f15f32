//! The daemon: any mix of home agents, foreign agents and plain forwarding, from
//! one TOML file.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use homeport_control::config::Config;
use homeport_control::daemon::{self, RecordTo};
use tracing_subscriber::EnvFilter;

/// Mobile IP home and foreign agents on a packet dataplane of their own.
#[derive(Parser)]
#[command(name = "homeportd", version)]
struct Arguments {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the config file and end.
    #[arg(long)]
    check: bool,
    /// Keep a journal of every input of the agents in this folder, for `homeport replay
    /// --journal`. Keys are never written.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// The most that the journal may take, in MiB; the oldest goes first.
    #[arg(long, value_name = "MIB", default_value_t = 256, requires = "record",
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    record_limit: u64,
    /// What to log, instead of what the config says: error, warn, info, debug,
    /// trace, or a filter like info,homeport_control=debug.
    #[arg(long, value_name = "FILTER")]
    log: Option<EnvFilter>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check {
        println!("{}: no errors", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    let filter = arguments.log.unwrap_or_else(|| EnvFilter::new(&config.daemon.log));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let limit = arguments.record_limit << 20;
    let record = arguments.record.map(|folder| RecordTo { folder, limit });
    match daemon::run(config, record.as_ref(), announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With all that led to it, in one line.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line that scripts can wait for.
fn announce(config: &Config) {
    let (ports, home, foreign) =
        (config.ports.len(), config.home_agents.len(), config.foreign_agents.len());
    tracing::info!(ports, home_agents = home, foreign_agents = foreign, "forwarding");
    let mut out = std::io::stdout();
    // Nobody may be listening there; the log has it too.
    let _ = writeln!(out, "READY").and_then(|()| out.flush());
}
