//! Writing the journal: what the control core notes, a thread of its own puts on disk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use homeport_proto::config::AgentConfig;
use homeport_proto::draws::Drawn;
use homeport_proto::{Action, Now};

use super::input::StoredConfig;
use super::{
    CONFIG, Entry, FORMAT, Line, PIECE, Start, Stored, config_name, number_of, piece_name,
};

/// Inputs that wait to be written. What is beyond is lost, counted, and seen by who
/// reads the journal.
const QUEUE: usize = 16_384;

/// How many pieces the folder has when it is full.
const PIECES: u64 = 8;

/// The least that a folder may be limited to, in bytes.
pub(super) const MIN_LIMIT: u64 = 1 << 20;

/// How long what was written may wait before the disk sees it.
const FLUSH: Duration = Duration::from_millis(200);

/// When writing is tried again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Why no journal is kept.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The folder cannot be used.
    #[error("the journal's folder {}: {cause}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The limit is too small to hold anything.
    #[error("a journal of {limit} bytes is too small: give it at least {MIN_LIMIT}")]
    Limit {
        /// What was asked for.
        limit: u64,
    },
}

/// What a recorder has done.
#[derive(Debug, Default)]
pub struct RecorderCounts {
    written: AtomicU64,
    lost: AtomicU64,
}

impl RecorderCounts {
    /// Inputs on disk, or on the way there.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Inputs that the disk was too slow or too full for.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Notes inputs.
#[derive(Debug)]
pub struct Recorder {
    sender: Option<SyncSender<Note>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<RecorderCounts>,
    starting: Option<Note>,
    next: u64,
}

/// What is handed to the thread.
#[derive(Debug)]
enum Note {
    Start { at: Now, config: Box<AgentConfig>, messages: u32, drawn: Drawn, actions: Vec<Action> },
    Entry(Box<Entry>),
}

impl Recorder {
    /// A recorder into this folder, which is made if it is not there; of at most so
    /// many bytes, beside the configs. What is in it already is older.
    ///
    /// # Errors
    /// [`RecorderError`].
    pub fn open(path: &Path, limit: u64) -> Result<Self, RecorderError> {
        if limit < MIN_LIMIT {
            return Err(RecorderError::Limit { limit });
        }
        let failed = |cause| RecorderError::Folder { path: path.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let counts = Arc::new(RecorderCounts::default());
        let mut writer =
            Writer::open(path.to_owned(), limit, Arc::clone(&counts)).map_err(failed)?;
        // What keeps the first piece from being written is told now, not at night.
        writer.begin_piece().map_err(failed)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run(&receiver))
            .map_err(failed)?;
        let (sender, thread) = (Some(sender), Some(thread));
        Ok(Recorder { sender, thread, counts, starting: None, next: 0 })
    }

    /// What it has done so far.
    pub fn counts(&self) -> &RecorderCounts {
        &self.counts
    }

    /// The agents are made, of this config and with what they have drawn.
    pub fn start(&mut self, config: AgentConfig, messages: u32, at: Now, drawn: Drawn) {
        let config = Box::new(config);
        self.starting = Some(Note::Start { at, config, messages, drawn, actions: Vec::new() });
    }

    /// What they have asked for at their start.
    pub fn started(&mut self, done: Vec<Action>) {
        if let Some(mut note) = self.starting.take() {
            if let Note::Start { actions, .. } = &mut note {
                *actions = done;
            }
            self.send(note);
        }
    }

    /// An input and what came of it.
    pub fn note(&mut self, at: Now, input: Stored, drawn: Drawn, actions: Vec<Action>) {
        let number = self.next;
        self.next += 1;
        self.send(Note::Entry(Box::new(Entry { number, at, input, drawn, actions })));
    }

    fn send(&self, note: Note) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(note).is_ok());
        if !sent {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is noted already is written first.
impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The folder as its thread has it.
struct Writer {
    folder: PathBuf,
    /// Bytes of one piece.
    piece_limit: u64,
    counts: Arc<RecorderCounts>,
    piece: Option<Piece>,
    /// The numbers of the pieces that are there, the oldest first.
    pieces: VecDeque<u64>,
    /// The configs that are there, and the last piece that refers to each.
    configs: BTreeMap<u64, u64>,
    /// The config in force.
    config: Option<u64>,
    messages: u32,
    next: u64,
    failed_at: Option<Instant>,
}

/// The piece that is being written.
struct Piece {
    number: u64,
    file: BufWriter<File>,
    bytes: u64,
}

impl Writer {
    fn open(folder: PathBuf, limit: u64, counts: Arc<RecorderCounts>) -> io::Result<Self> {
        let (mut pieces, mut configs) = (Vec::new(), BTreeMap::new());
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            pieces.extend(number_of(name, PIECE));
            configs.extend(number_of(name, CONFIG).map(|number| (number, 0)));
        }
        pieces.sort_unstable();
        // Which of the older pieces refers to a config is not known: any may.
        let last = pieces.last().copied().unwrap_or_default();
        configs.values_mut().for_each(|piece| *piece = last);
        Ok(Writer {
            folder,
            piece_limit: limit / PIECES,
            counts,
            piece: None,
            pieces: pieces.into(),
            configs,
            config: None,
            messages: 0,
            next: 0,
            failed_at: None,
        })
    }

    fn run(mut self, notes: &Receiver<Note>) {
        loop {
            match notes.recv_timeout(FLUSH) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush();
    }

    fn take(&mut self, note: Note) {
        let waits = self.failed_at.is_some_and(|at| at.elapsed() < RETRY);
        let result = if waits { Err(None) } else { self.write(note).map_err(Some) };
        match result {
            Ok(()) => {
                self.counts.written.fetch_add(1, Ordering::Relaxed);
                if self.failed_at.take().is_some() {
                    tracing::info!("the journal is written again");
                }
            }
            Err(error) => {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                self.fail(error);
            }
        }
    }

    /// After an error a new piece is begun: the last line of this one may be half.
    fn fail(&mut self, error: Option<io::Error>) {
        let Some(error) = error else { return };
        if self.failed_at.is_none() {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "the journal is not written; trying again");
        }
        self.failed_at = Some(Instant::now());
        self.piece = None;
    }

    fn flush(&mut self) {
        if let Some(Err(error)) = self.piece.as_mut().map(|piece| piece.file.flush()) {
            self.fail(Some(error));
        }
    }

    fn write(&mut self, note: Note) -> io::Result<()> {
        let line = match note {
            Note::Start { at, config, messages, drawn, actions } => {
                self.messages = messages;
                let config = self.keep_config(&config)?;
                self.next = 0;
                Line::Start(Start { at, config, messages_per_second: messages, drawn, actions })
            }
            Note::Entry(mut entry) => {
                if let Stored::Config(StoredConfig::Whole(config)) = &entry.input {
                    entry.input = Stored::Config(StoredConfig::File(self.keep_config(config)?));
                }
                self.next = entry.number + 1;
                Line::Input(*entry)
            }
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let more = bytes.len() as u64;
        let limit = self.piece_limit;
        if self.piece.as_ref().is_none_or(|piece| piece.bytes + more > limit && piece.bytes > 0) {
            // The line that begins it is of before this input.
            let next = std::mem::replace(&mut self.next, entry_number(&line));
            self.begin_piece()?;
            self.next = next;
        }
        let Some(piece) = &mut self.piece else { return Ok(()) };
        // Who reads meanwhile shall find whole lines.
        if bytes.len() > piece.file.capacity() - piece.file.buffer().len() {
            piece.file.flush()?;
        }
        piece.file.write_all(&bytes)?;
        piece.bytes += more;
        Ok(())
    }

    /// Writes a config into a file of its own, and gives its name.
    fn keep_config(&mut self, config: &AgentConfig) -> io::Result<String> {
        let number = self.configs.keys().next_back().map_or(1, |last| last + 1);
        let name = config_name(number);
        let mut file = BufWriter::new(create(&self.folder.join(&name))?);
        serde_json::to_writer(&mut file, config)?;
        file.flush()?;
        self.configs.insert(number, self.piece.as_ref().map_or(0, |piece| piece.number));
        self.config = Some(number);
        Ok(name)
    }

    fn begin_piece(&mut self) -> io::Result<()> {
        if let Some(mut piece) = self.piece.take() {
            piece.file.flush()?;
        }
        let number = self.pieces.back().map_or(1, |last| last + 1);
        while self.pieces.len() as u64 >= PIECES {
            let Some(oldest) = self.pieces.pop_front() else { break };
            remove(&self.folder.join(piece_name(oldest)))?;
        }
        if let Some(last) = self.config.and_then(|config| self.configs.get_mut(&config)) {
            *last = number;
        }
        let oldest = self.pieces.front().copied().unwrap_or(number);
        let useless: Vec<u64> = self
            .configs
            .iter()
            .filter(|(_, last)| **last < oldest)
            .map(|(config, _)| *config)
            .collect();
        for config in useless {
            remove(&self.folder.join(config_name(config)))?;
            self.configs.remove(&config);
        }
        let mut file = BufWriter::new(create(&self.folder.join(piece_name(number)))?);
        let line = Line::Piece {
            format: FORMAT,
            number,
            next: self.next,
            config: self.config.map(config_name),
            messages_per_second: self.messages,
        };
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
        file.flush()?;
        self.pieces.push_back(number);
        self.piece = Some(Piece { number, file, bytes: 0 });
        Ok(())
    }
}

const fn entry_number(line: &Line) -> u64 {
    match line {
        Line::Input(entry) => entry.number,
        Line::Start(_) | Line::Piece { .. } => 0,
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Somebody else may have removed it already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
