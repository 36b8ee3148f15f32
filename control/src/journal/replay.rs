//! Running a journal again: the same agents, the same inputs at the same times, and
//! whether they ask for the same.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeport_proto::config::AgentConfig;
use homeport_proto::draws::{Differing, Drawn, Draws};
use homeport_proto::{Action, Agent, Now};

use super::difference::Difference;
use super::{Entry, FORMAT, Input, Line, PIECE, Start, number_of, piece_name};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 64 << 20;

/// Why a journal cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder or a file in it cannot be read, or not be written anew.
    #[error("{}: {cause}", path.display())]
    File {
        /// The folder, or the file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There is no piece in the folder.
    #[error(
        "{} holds no journal: what `homeportd --record` writes there is named {}",
        path.display(),
        piece_name(1)
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A piece is of another version.
    #[error("{} is of format {format}, and this program reads format {FORMAT}", path.display())]
    Format {
        /// The piece.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A config that the agents were made of is not there, or does not parse.
    #[error("{}: {cause}; without the config nothing can be run", path.display())]
    Config {
        /// The config's file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

/// What is told while a journal runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Pieces between two that are there are missing.
    MissingPieces {
        /// The first that is not there.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The ring has dropped the start of the process: the agents begin without
    /// bindings.
    NoStart {
        /// The piece that is begun with.
        piece: u64,
    },
    /// Inputs were not written: the disk was too slow or too full.
    MissingInputs {
        /// The piece.
        piece: u64,
        /// The first number that is not there.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A line that does not parse was left out.
    BadLine {
        /// The piece.
        piece: u64,
        /// The line, from 1.
        line: u64,
        /// Why.
        cause: String,
    },
    /// The agents asked for something else.
    Differs(Box<Difference>),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::MissingPieces { first, last } if first == last => {
                write!(f, "{} is missing: what follows may differ", piece_name(*first))
            }
            Finding::MissingPieces { first, last } => write!(
                f,
                "{} to {} are missing: what follows may differ",
                piece_name(*first),
                piece_name(*last)
            ),
            Finding::NoStart { piece } => write!(
                f,
                "{}: the start of the process is not in the folder any more; the agents begin \
                 without bindings, so what follows may differ",
                piece_name(*piece)
            ),
            Finding::MissingInputs { piece, first, last } => write!(
                f,
                "{}: inputs {first} to {last} were not written; what follows may differ",
                piece_name(*piece)
            ),
            Finding::BadLine { piece, line, cause } => {
                write!(f, "{}, line {line} was left out: {cause}", piece_name(*piece))
            }
            Finding::Differs(difference) => difference.fmt(f),
        }
    }
}

/// What came of running a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Pieces that were read.
    pub pieces: u64,
    /// Processes that began.
    pub starts: u64,
    /// Inputs that were handed over.
    pub inputs: u64,
    /// Actions that came of them.
    pub actions: u64,
    /// Inputs whose actions differ.
    pub differing: u64,
    /// Those of them behind a gap, where they may.
    pub behind_gaps: u64,
    /// Gaps: pieces, lines and inputs that are missing.
    pub gaps: u64,
    /// The time from first to last, all processes together.
    pub span: Duration,
}

impl Summary {
    /// Whether all actions were the same, and nothing was missing.
    pub const fn is_whole(&self) -> bool {
        self.differing == 0 && self.gaps == 0
    }
}

/// How a journal is run.
#[derive(Default)]
pub struct Replay<'a> {
    /// Is told how many bytes were read, now and then.
    pub progress: Option<&'a mut dyn FnMut(u64)>,
    /// Whether the actions that come of it are written in place of those that were.
    pub regenerate: bool,
}

/// The bytes of all pieces of a folder.
///
/// # Errors
/// [`JournalError`].
fn pieces(folder: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let failed = |cause| JournalError::File { path: folder.to_owned(), cause };
    let mut pieces = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number = entry.file_name().to_str().and_then(|name| number_of(name, PIECE));
        pieces.extend(number.map(|number| (number, entry.path())));
    }
    pieces.sort_unstable();
    if pieces.is_empty() {
        return Err(JournalError::Empty { path: folder.to_owned() });
    }
    Ok(pieces)
}

impl Replay<'_> {
    /// How many bytes there are to read.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn size(folder: &Path) -> Result<u64, JournalError> {
        let size = |(_, path): (u64, PathBuf)| fs::metadata(path).map_or(0, |data| data.len());
        Ok(pieces(folder)?.into_iter().map(size).sum())
    }
}

/// Runs the journal in `folder`; `found` is told what is not as it was written.
///
/// # Errors
/// [`JournalError`]: what was run until then was told.
pub fn replay(
    folder: &Path,
    mut how: Replay<'_>,
    found: &mut dyn FnMut(Finding),
) -> Result<Summary, JournalError> {
    let mut run = Run { folder, found, summary: Summary::default(), gap: false, machine: None };
    let mut last = None;
    let mut read = 0;
    for (number, path) in pieces(folder)? {
        if let Some(last) = last.filter(|last| last + 1 < number) {
            run.gap(Finding::MissingPieces { first: last + 1, last: number - 1 });
        }
        last = Some(number);
        run.summary.pieces += 1;
        let failed = |cause| JournalError::File { path: path.clone(), cause };
        let mut reader = BufReader::new(File::open(&path).map_err(failed)?);
        let anew = path.with_extension("anew");
        let mut writer = match how.regenerate {
            true => Some(BufWriter::new(File::create(&anew).map_err(failed)?)),
            false => None,
        };
        let (mut bytes, mut line) = (Vec::new(), 0);
        loop {
            bytes.clear();
            line += 1;
            let len = io::Read::take(&mut reader, MAX_LINE)
                .read_until(b'\n', &mut bytes)
                .map_err(failed)? as u64;
            if len == 0 {
                break;
            }
            read += len;
            let parsed = match bytes.strip_suffix(b"\n") {
                Some(bytes) => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
                None => Err("it ends in the middle".to_owned()),
            };
            let parsed = match parsed {
                Ok(parsed) => run.take(parsed, (number, &path), line == 1)?,
                Err(cause) => {
                    run.gap(Finding::BadLine { piece: number, line, cause });
                    None
                }
            };
            if let (Some(writer), Some(line)) = (&mut writer, parsed) {
                serde_json::to_writer(&mut *writer, &line).map_err(|e| failed(e.into()))?;
                writer.write_all(b"\n").map_err(failed)?;
            }
            if let Some(progress) = &mut how.progress {
                progress(read);
            }
        }
        if let Some(mut writer) = writer {
            writer.flush().and_then(|()| fs::rename(&anew, &path)).map_err(failed)?;
        }
    }
    run.end();
    Ok(run.summary)
}

/// A journal that runs.
struct Run<'a> {
    folder: &'a Path,
    found: &'a mut dyn FnMut(Finding),
    summary: Summary,
    /// Whether something was missing since the process began.
    gap: bool,
    machine: Option<Machine>,
}

/// The agents of the process that is run.
struct Machine {
    agent: Agent,
    /// The number of the next input.
    next: u64,
    first: Now,
    last: Now,
}

impl Run<'_> {
    fn gap(&mut self, finding: Finding) {
        self.gap = true;
        self.summary.gaps += 1;
        (self.found)(finding);
    }

    /// Takes a line, and gives it back with the actions that came of it.
    fn take(
        &mut self,
        line: Line,
        (piece, path): (u64, &Path),
        first: bool,
    ) -> Result<Option<Line>, JournalError> {
        match line {
            Line::Piece { format, .. } if format != FORMAT => {
                Err(JournalError::Format { path: path.to_owned(), format })
            }
            Line::Piece { ref config, messages_per_second, next, .. } => {
                // Without a start before it, from the config of then.
                if let (None, Some(config), true) = (&self.machine, config, first) {
                    let config = self.config(config)?;
                    self.gap(Finding::NoStart { piece });
                    self.machine = Some(Machine::without_start(config, messages_per_second, next));
                }
                Ok(Some(line))
            }
            Line::Start(start) => Ok(Some(Line::Start(self.start(start)?))),
            Line::Input(entry) => match self.machine.take() {
                Some(machine) => {
                    let (machine, entry) = self.input(machine, entry, piece)?;
                    self.machine = Some(machine);
                    Ok(Some(Line::Input(entry)))
                }
                None => {
                    let cause = "an input before any start".to_owned();
                    self.gap(Finding::BadLine { piece, line: 0, cause });
                    Ok(None)
                }
            },
        }
    }

    fn config(&self, name: &str) -> Result<AgentConfig, JournalError> {
        // Never a file elsewhere, whatever the journal says.
        let path = self.folder.join(Path::new(name).file_name().unwrap_or_default());
        let failed = |cause| JournalError::Config { path: path.clone(), cause };
        let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
        serde_json::from_reader(BufReader::new(file)).map_err(|error| failed(error.to_string()))
    }

    fn start(&mut self, start: Start) -> Result<Start, JournalError> {
        self.end();
        self.gap = false;
        self.summary.starts += 1;
        let Start { at, config, messages_per_second, drawn, actions: expected } = start;
        let kept = drawn.clone();
        let mut agent = Agent::with_draws(self.config(&config)?, Draws::given(drawn), at);
        agent.set_messages_per_second(messages_per_second, at);
        let actions = drain(&mut agent);
        self.compare(None, at, &expected, &actions, agent.differing());
        self.machine = Some(Machine { agent, next: 0, first: at, last: at });
        Ok(Start { at, config, messages_per_second, drawn: kept, actions })
    }

    fn input(
        &mut self,
        mut machine: Machine,
        entry: Entry,
        piece: u64,
    ) -> Result<(Machine, Entry), JournalError> {
        let Entry { number, at, input, drawn, actions: expected } = entry;
        if number > machine.next {
            let (first, last) = (machine.next, number - 1);
            self.gap(Finding::MissingInputs { piece, first, last });
        }
        if self.summary.starts == 0 && machine.next == number && machine.first == machine.last {
            (machine.first, machine.last) = (at, at);
        }
        machine.next = number + 1;
        machine.last = at;
        let handed: Input<'_> = input.input(|name| self.config(name))?;
        machine.agent.give(drawn.clone());
        handed.apply(&mut machine.agent, at);
        let actions = drain(&mut machine.agent);
        self.summary.inputs += 1;
        self.compare(Some((number, &input)), at, &expected, &actions, machine.agent.differing());
        Ok((machine, Entry { number, at, input, drawn, actions }))
    }

    fn compare(
        &mut self,
        input: Option<(u64, &super::Stored)>,
        at: Now,
        expected: &[Action],
        actions: &[Action],
        draws: Differing,
    ) {
        self.summary.actions += actions.len() as u64;
        if expected == actions && draws == Differing::default() {
            return;
        }
        self.summary.differing += 1;
        self.summary.behind_gaps += u64::from(self.gap);
        let difference = Difference::new(input, at, (expected, actions), draws);
        (self.found)(Finding::Differs(Box::new(difference)));
    }

    /// The process is over.
    fn end(&mut self) {
        if let Some(Machine { first, last, .. }) = self.machine.take() {
            self.summary.span += last.monotonic.saturating_since(first.monotonic);
        }
    }
}

impl Machine {
    /// Agents that begin in the middle.
    fn without_start(config: AgentConfig, messages_per_second: u32, next: u64) -> Machine {
        let now = Now { monotonic: homeport_proto::Instant(0), ntp: homeport_proto::NtpTime(0) };
        let mut agent = Agent::with_draws(config, Draws::given(Drawn::default()), now);
        agent.set_messages_per_second(messages_per_second, now);
        drain(&mut agent);
        Machine { agent, next, first: now, last: now }
    }
}

fn drain(agent: &mut Agent) -> Vec<Action> {
    std::iter::from_fn(|| agent.poll_action()).collect()
}
