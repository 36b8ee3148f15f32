//! `homeport`: what an operator asks of a running Homeport, and tells it.

use std::io::{self, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use homeport_control::admin::api::{Cleared, Refusal, VisitorsCleared};
use homeport_control::admin::client::{Client, ClientError};
use homeport_control::admin::explain::{self, ExplanationView};
use homeport_control::admin::show::Noun;
use homeport_control::admin::top::{self, TopError};
use homeport_control::admin::trace::command::{self as trace, Trace, TraceFailure};
use homeport_control::admin::{print, sockets};
use homeport_control::config::{self, Config, ConfigDiff, ConfigErrors, problem};
use homeport_control::mobile;
use homeport_control::replay::{self, ReplayError};
use serde_json::{Value, json};

/// Shows what a running Homeport does, and changes its config.
#[derive(Parser)]
#[command(name = "homeport", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// The daemon's admin socket [default: the only one in /run/homeport]
    #[arg(long, global = true, env = "HOMEPORT_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON, as the API answers it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed: the daemon said no, or a config file has errors
  2  the command line is wrong
  3  no daemon answers on the socket";

#[derive(Subcommand)]
enum Command {
    /// Show something of a running daemon
    Show(Show),
    /// Show rates, mobile nodes and rising drops, live, until q is pressed
    Top,
    /// Follow packets through the dataplane, table by table, as they come
    Trace(Trace),
    /// Tell why a node is registered, or is not, and what to do; or, with --packet, what
    /// would become of a packet now
    Explain(Explain),
    /// Take something away
    #[command(subcommand)]
    Clear(Clear),
    /// Check, show and apply config files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run captures, or a journal of the agents, again
    Replay(Box<replay::Arguments>),
    /// Print completions for a shell, as in: homeport completions bash
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write all of them into a directory
    Man {
        /// The directory
        directory: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Show {
    #[command(subcommand)]
    what: Noun,
    /// Also show drop counters that are zero
    #[arg(long, global = true)]
    all: bool,
}

#[derive(Args)]
struct Explain {
    /// The home address of a node or session, or the NAI of a node
    #[arg(required_unless_present = "packet", value_name = "HOME_ADDRESS|NAI")]
    node: Option<String>,
    /// The tenant, where several have a node of this address
    #[arg(long, conflicts_with = "packet")]
    tenant: Option<u32>,
    /// The home agent or foreign agent to ask, by its name in the config
    #[arg(long, value_name = "NAME", visible_alias = "agent", conflicts_with = "packet")]
    home_agent: Option<String>,
    /// A packet: src=, dst=, proto=, and if wanted sport=, dport=, port= (that it comes in
    /// by), tenant=, len= and ttl=, with spaces between
    #[arg(long, value_name = "WORDS", conflicts_with = "node")]
    packet: Option<String>,
}

#[derive(Subcommand)]
enum Clear {
    /// Take a mobility binding away, and have its foreign agent free the visitor
    Binding {
        /// The node's home address
        home_address: Ipv4Addr,
        /// The virtual home agent's tenant
        #[arg(long, default_value_t = 0)]
        tenant: u32,
    },
    /// Take a foreign agent's visitor away, and have its home agent end the binding
    Visitor {
        /// The node's home address
        home_address: Ipv4Addr,
        /// The foreign agent's tenant
        #[arg(long, default_value_t = 0)]
        tenant: u32,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a file, and show what it would change in a running daemon
    Check {
        /// The file
        file: PathBuf,
    },
    /// Check a file and put it into force, without losing a packet or a binding
    Apply {
        /// The file
        file: PathBuf,
    },
    /// Show the config in force, with every default and without keys
    Show,
    /// Print the JSON schema of the file
    Schema,
}

/// Why the command failed. What is to be said has been said.
enum Failure {
    /// Exit code 1.
    Refused,
    /// Exit code 3.
    Unreachable,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused) => ExitCode::from(1),
        Err(Failure::Unreachable) => ExitCode::from(3),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Show(show) => {
            let answer = cli.ask(&cli.client()?, |client| client.get(&show.what.path()))?;
            let shown = show.what.render(&answer, show.all);
            cli.put(&answer, shown.map_err(|error| not_understood(&error))?)
        }
        Command::Top => {
            let client = cli.client()?;
            top::run(&client).map_err(|error| match error {
                TopError::NoTerminal => refuse(
                    "top draws on a terminal, and this is none",
                    "use `homeport --json show ports` in scripts",
                ),
                TopError::Terminal(error) => {
                    refuse(&format!("the terminal failed: {error}"), "try `homeport show ports`")
                }
                TopError::Client(error) => cli.tell(&client, &error),
            })
        }
        Command::Trace(command) => {
            let client = cli.client()?;
            let told = command.run(&client, cli.json, &mut io::stdout(), &mut io::stderr());
            told.map_err(|error| cli.tell_failure(&client, &error))
        }
        Command::Explain(Explain { packet: Some(packet), .. }) => {
            let client = cli.client()?;
            let answer = trace::explain(&client, packet)
                .map_err(|error| cli.tell_failure(&client, &error))?;
            let text = print::explained(&answer.walks);
            cli.put(&serde_json::to_value(&answer).unwrap_or_default(), text)
        }
        Command::Explain(Explain { node, tenant, home_agent, .. }) => {
            // Without a packet there is a node.
            let node = node.as_deref().unwrap_or_default();
            let path = explain::path(node, *tenant, home_agent.as_deref());
            let answer = cli.ask(&cli.client()?, |client| client.get(&path))?;
            let story: ExplanationView =
                serde_json::from_value(answer.clone()).map_err(|error| not_understood(&error))?;
            cli.put(&answer, print::explanation(&story))?;
            if story.is_silent() { Err(Failure::Refused) } else { Ok(()) }
        }
        Command::Clear(Clear::Binding { home_address, tenant }) => {
            let path = format!("/v1/bindings/{home_address}?tenant={tenant}");
            let answer = cli.ask(&cli.client()?, |client| client.delete(&path))?;
            let cleared: Cleared =
                serde_json::from_value(answer.clone()).map_err(|error| not_understood(&error))?;
            cli.put(&answer, print::cleared(&cleared))
        }
        Command::Clear(Clear::Visitor { home_address, tenant }) => {
            let path = format!("/v1/visitors/{home_address}?tenant={tenant}");
            let answer = cli.ask(&cli.client()?, |client| client.delete(&path))?;
            let cleared: VisitorsCleared =
                serde_json::from_value(answer.clone()).map_err(|error| not_understood(&error))?;
            cli.put(&answer, print::visitors_cleared(&cleared))
        }
        Command::Config(command) => config(cli, command),
        Command::Replay(arguments) => match replay::run(arguments, cli.json) {
            Ok(outcome) => {
                put(&outcome.text)?;
                if outcome.as_expected { Ok(()) } else { Err(Failure::Refused) }
            }
            Err(ReplayError::Config(errors)) => Err(cli.tell_errors(&errors)),
            Err(error) => Err(refuse(&error.to_string(), "see `homeport replay --help`")),
        },
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "homeport", &mut text);
            put_bytes(&text)
        }
        Command::Man { directory } => man(directory.as_deref()),
    }
}

fn config(cli: &Cli, command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => check(cli, file),
        ConfigCommand::Apply { file } => {
            let text = cli.read_text(file)?;
            if is_mobile_node(&text) {
                let hint = "restart homeport-mn: it registers again at once";
                return Err(refuse("a mobile node reads its config at the start only", hint));
            }
            let (config, body) = cli.read_config(file, text)?;
            let client = cli.client_of(&config);
            let answer = cli.ask(&client, |client| client.post("/v1/config/apply", &body))?;
            let diff: ConfigDiff =
                serde_json::from_value(answer.clone()).map_err(|error| not_understood(&error))?;
            let text = format!(
                "{} is in force on {}.\n{}",
                file.display(),
                client.socket().display(),
                print::config_diff(&diff)
            );
            cli.put(&answer, text)
        }
        ConfigCommand::Show => {
            let answer = cli.ask(&cli.client()?, |client| client.get("/v1/config"))?;
            let text = toml::to_string(&answer)
                .map_err(|error| refuse(&format!("this is no config: {error}"), VERSIONS))?;
            cli.put(&answer, text)
        }
        ConfigCommand::Schema => {
            let schema = serde_json::to_value(config::schema()).unwrap_or_default();
            cli.put(&schema, pretty(&schema))
        }
    }
}

/// The file must be right by itself; if a daemon answers, what it would change is
/// shown too.
fn check(cli: &Cli, file: &Path) -> Result<(), Failure> {
    let text = cli.read_text(file)?;
    if is_mobile_node(&text) {
        mobile::config::Config::parse(&text, file).map_err(|errors| cli.tell_errors(&errors))?;
        let shown = format!("{}: no errors. (It is a mobile node's.)\n", file.display());
        return cli.put(&json!({"problems": [], "diff": null}), shown);
    }
    let (config, body) = cli.read_config(file, text)?;
    let client = cli.client_of(&config);
    let name = file.display();
    let socket = client.socket().display();
    match client.post("/v1/config/check", &body) {
        Ok(answer) => {
            let diff: ConfigDiff =
                serde_json::from_value(answer.clone()).map_err(|error| not_understood(&error))?;
            let text = format!(
                "{name}: no errors. In the daemon on {socket} it would change:\n{}",
                print::config_diff(&diff)
            );
            cli.put(&json!({"problems": [], "diff": answer}), text)
        }
        Err(ClientError::Unreachable { .. }) => cli.put(
            &json!({"problems": [], "diff": null}),
            format!(
                "{name}: no errors. (No daemon answers on {socket}: nothing to compare with.)\n"
            ),
        ),
        Err(error) => Err(cli.tell(&client, &error)),
    }
}

/// Whether a file is homeport-mn's; one that is no TOML is for homeportd's reader
/// to complain about.
fn is_mobile_node(text: &str) -> bool {
    toml::from_str::<toml::Table>(text).is_ok_and(|table| table.contains_key("mobile_node"))
}

fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut text)
            .map_err(|error| refuse(&format!("the page cannot be made: {error}"), "report this"))?;
        return put_bytes(&text);
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| {
            refuse(&format!("{}: {error}", directory.display()), "name a directory to write into")
        })
}

const VERSIONS: &str = "are the command and the daemon of the same version?";

impl Cli {
    /// The daemon that is asked: the one named, or the only one there is.
    fn client(&self) -> Result<Client, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Client::new(socket));
        }
        match sockets::find().as_slice() {
            [] => Ok(Client::new(sockets::DEFAULT)),
            [only] => Ok(Client::new(only)),
            several => {
                let names: Vec<String> =
                    several.iter().map(|path| path.display().to_string()).collect();
                let hint = format!("choose one with --socket: {}", names.join(", "));
                let _ = refuse("more than one daemon has a socket in /run/homeport", &hint);
                Err(Failure::Unreachable)
            }
        }
    }

    /// The daemon that a config file is for, unless another is named.
    fn client_of(&self, config: &Config) -> Client {
        Client::new(self.socket.as_ref().unwrap_or(&config.daemon.admin_socket))
    }

    fn ask(
        &self,
        client: &Client,
        ask: impl FnOnce(&Client) -> Result<Value, ClientError>,
    ) -> Result<Value, Failure> {
        ask(client).map_err(|error| self.tell(client, &error))
    }

    /// Says why there is no answer. A refusal is JSON too, if JSON is wanted.
    fn tell(&self, client: &Client, error: &ClientError) -> Failure {
        match error {
            ClientError::Unreachable { error, .. } => {
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "only root and the daemon's user may ask: try sudo"
                    }
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        "start homeportd, or name its daemon.admin_socket with --socket"
                    }
                    _ => "is the daemon well? see its log",
                };
                let _ = refuse(
                    &format!("no daemon answers on {}: {error}", client.socket().display()),
                    hint,
                );
                Failure::Unreachable
            }
            ClientError::Refused(refusal) => self.tell_refusal(refusal),
            ClientError::NotUnderstood(_) => refuse(&error.to_string(), VERSIONS),
        }
    }

    /// Says why packets were not followed.
    fn tell_failure(&self, client: &Client, error: &TraceFailure) -> Failure {
        let hint = match error {
            TraceFailure::Client(error) => return self.tell(client, error),
            TraceFailure::Capture(_) => "name a file that can be written",
            TraceFailure::Output(_) => "is there room for it?",
            TraceFailure::Silent => "do the RX cores run? see `homeport show status`",
        };
        refuse(&error.to_string(), hint)
    }

    fn tell_refusal(&self, refusal: &Refusal) -> Failure {
        if self.json {
            let _ = put(&pretty(&serde_json::to_value(refusal).unwrap_or_default()));
        }
        for problem in &refusal.problems {
            complain(&print::clean(&problem.to_string()));
        }
        refuse(&refusal.error, &refusal.hint)
    }

    fn read_text(&self, file: &Path) -> Result<String, Failure> {
        std::fs::read_to_string(file)
            .map_err(|error| self.tell_errors(&ConfigErrors::unreadable(file, &error)))
    }

    /// Checks the text of a file; and the body that tells a daemon of it.
    fn read_config(&self, file: &Path, text: String) -> Result<(Config, Value), Failure> {
        let path = std::path::absolute(file).unwrap_or_else(|_| file.into());
        match Config::parse(&text, file) {
            Ok(config) => Ok((config, json!({"text": text, "path": path}))),
            Err(errors) => Err(self.tell_errors(&errors)),
        }
    }

    fn tell_errors(&self, errors: &ConfigErrors) -> Failure {
        if self.json {
            let _ = put(&pretty(&json!({"problems": errors.problems, "diff": null})));
        } else {
            let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            complain(&problem::render(&errors.problems, &errors.text, color));
        }
        Failure::Refused
    }

    /// Prints an answer: as JSON, or for people.
    fn put(&self, answer: &Value, text: String) -> Result<(), Failure> {
        put(&if self.json { pretty(answer) } else { text })
    }
}

fn not_understood(error: &serde_json::Error) -> Failure {
    refuse(&format!("the answer is not understood: {error}"), VERSIONS)
}

fn refuse(error: &str, hint: &str) -> Failure {
    complain(&format!("homeport: {}", print::clean(error)));
    complain(&format!("  help: {}", print::clean(hint)));
    Failure::Refused
}

/// To standard error; where nobody listens there, there is nobody to tell.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn put(text: &str) -> Result<(), Failure> {
    put_bytes(text.as_bytes())
}

/// A reader that has read enough (`homeport … | head`) is no failure.
fn put_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(refuse(&format!("the output cannot be written: {error}"), "is there room for it?"))
        }
        _ => Ok(()),
    }
}
