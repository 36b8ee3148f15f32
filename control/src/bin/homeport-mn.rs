//! The mobile node: keeps its home address, and its connections, while it roams.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use homeport_control::mobile::{self, Config};
use tracing_subscriber::EnvFilter;

/// A Mobile IP mobile node on one interface.
#[derive(Parser)]
#[command(name = "homeport-mn", version)]
struct Arguments {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the config file and end.
    #[arg(long)]
    check: bool,
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
    let filter = arguments.log.unwrap_or_else(|| EnvFilter::new(&config.log));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match mobile::run(config, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With all that led to it, in one line.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One line that scripts can wait for.
fn announce() {
    let mut out = std::io::stdout();
    // Nobody may be listening there; the log has it too.
    let _ = writeln!(out, "READY").and_then(|()| out.flush());
}
