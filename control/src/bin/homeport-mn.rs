//! The mobile node: keeps its home address, and its connections, while it roams; and so
//! for sessions, which are devices on its LAN, commands, and further addresses of its own.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use homeport_control::admin::client::Client;
use homeport_control::admin::sessions::{self, AddSession, SessionView};
use homeport_control::mobile::run::{self, Run, inside};
use homeport_control::mobile::{self, Config, namespace};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

/// A Mobile IP mobile node on one interface.
#[derive(Parser)]
#[command(name = "homeport-mn", version, max_term_width = 100)]
struct Arguments {
    /// The config file: of the mobile node to be, or of the running one that is asked.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the config file and end.
    #[arg(long)]
    check: bool,
    /// What to log, instead of what the config says: error, warn, info, debug,
    /// trace, or a filter like info,homeport_control=debug.
    #[arg(long, value_name = "FILTER")]
    log: Option<EnvFilter>,
    /// The admin socket of the running mobile node [default: what the config says, or
    /// /run/homeport/mn.sock]
    #[arg(long, value_name = "PATH", global = true, env = "HOMEPORT_SOCKET")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command in a network namespace of its own, with a session's address
    #[command(after_help = "Exit codes: the command's, 128 and its signal; 125 when it could \
                            not be started, 126 when it is no program, 127 when there is none.")]
    Run {
        /// The session's name
        #[arg(long, value_name = "NAME")]
        session: String,
        /// The address to ask for, as the session had it before
        #[arg(long, value_name = "ADDRESS")]
        wanted: Option<Ipv4Addr>,
        /// The command and its arguments
        #[arg(required = true, last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Begin, end and list sessions
    #[command(subcommand)]
    Session(Session),
    /// Become a command, for `run`
    #[command(hide = true)]
    Inside {
        /// The descriptor of the socket to `run`
        wire: i32,
        /// The command and its arguments
        #[arg(required = true, last = true)]
        command: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Session {
    /// Put a further home address on this host, for programs that bind to it
    Add {
        /// The session's name
        name: String,
        /// The address to ask for, as the session had it before
        #[arg(long, value_name = "ADDRESS")]
        wanted: Option<Ipv4Addr>,
    },
    /// End a session and give its address back
    #[command(after_help = "--all ends what the home agent has of the NAI, in one request: \
                            sessions of other nodes with this NAI end too. Without it, no \
                            other node loses anything, also when this one stops.")]
    Remove {
        /// The session's name, as the list shows it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// End all sessions of the NAI, those of other mobile nodes with this NAI too
        #[arg(long)]
        all: bool,
    },
    /// List all sessions
    List {
        /// Print JSON, as the API answers it
        #[arg(long)]
        json: bool,
    },
}

/// How long `session add` waits for an address.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        None => return serve(arguments),
        Some(Command::Inside { wire, command }) => {
            let Some(wire) = namespace::inherited(*wire) else {
                return ExitCode::from(run::FAILED);
            };
            return ExitCode::from(inside::run(wire, command));
        }
        Some(Command::Run { session, wanted, command }) => {
            let (session, wanted, command) = (session.clone(), *wanted, command.clone());
            let code = socket(&arguments)
                .and_then(|socket| run::run(&Run { socket, session, wanted, command }));
            return code.map_or_else(|error| fail(&error, run::FAILED), ExitCode::from);
        }
        Some(Command::Session(session)) => {
            socket(&arguments).and_then(|socket| answer(session, &Client::new(socket)))
        }
    };
    result.map_or_else(|error| fail(&error, 1), |()| ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("homeport-mn: {error:#}");
    ExitCode::from(code)
}

fn serve(arguments: Arguments) -> ExitCode {
    let Some(file) = &arguments.config else {
        let missing = clap::error::ErrorKind::MissingRequiredArgument;
        Arguments::command().error(missing, "--config FILE is needed, or a command").exit();
    };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check {
        println!("{}: no errors", file.display());
        return ExitCode::SUCCESS;
    }
    let filter = arguments.log.unwrap_or_else(|| EnvFilter::new(&config.log));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match mobile::serve(config, announce) {
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

/// The socket of the running mobile node.
fn socket(arguments: &Arguments) -> Result<PathBuf> {
    match (&arguments.socket, &arguments.config) {
        (Some(socket), _) => Ok(socket.clone()),
        (None, Some(config)) => Ok(Config::load(config)?.admin_socket),
        (None, None) => Ok(PathBuf::from("/run/homeport/mn.sock")),
    }
}

fn answer(session: &Session, client: &Client) -> Result<()> {
    match session {
        Session::Add { name, wanted } => {
            let add = AddSession { name: name.clone(), wanted: *wanted, command: None };
            client.post("/v1/sessions", &serde_json::to_value(add)?).map_err(run::told)?;
            let end = Instant::now() + PATIENCE;
            loop {
                let view = run::find(client, name)?.context("the session was ended")?;
                if let Some(address) = view.home_address {
                    return put(&format!("{address}\n"));
                }
                if Instant::now() > end {
                    eprintln!("homeport-mn: no address yet ({}); see the list", view.state);
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Session::Remove { name: Some(name), .. } => {
            client.post("/v1/sessions/remove", &json!({ "name": name })).map_err(run::told)?;
            Ok(())
        }
        Session::Remove { name: None, .. } => {
            client.post("/v1/sessions/remove-all", &json!({})).map_err(run::told)?;
            Ok(())
        }
        Session::List { json } => {
            let mut answer = client.get("/v1/sessions").map_err(run::told)?;
            if *json {
                return put(&format!("{answer:#}\n"));
            }
            let all = answer.get_mut("sessions").map(Value::take).unwrap_or_default();
            let all: Vec<SessionView> = serde_json::from_value(all)?;
            put(&sessions::print(&all))
        }
    }
}

/// Prints; whoever closes the pipe has read enough.
fn put(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
