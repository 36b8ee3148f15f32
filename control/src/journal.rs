//! The journal: every input of the agents with its time, what they drew, and what they
//! asked for. Run again, the same inputs give the same actions; so a user's trouble
//! becomes a test by copying a folder.
//!
//! # The folder
//!
//! * `000001.jsonl`, `000002.jsonl`, …: the *pieces*, one JSON value on a line. The
//!   first line of a piece says which it is and which config was in force; a `start`
//!   begins a process; every other line is an input, numbered without a gap, with what
//!   came of it.
//! * `000001.config.json`, …: the agents' configs that pieces and inputs refer to.
//!
//! Pieces and configs are written by a thread of their own. The folder is a ring: when
//! it is full, the oldest piece goes, and configs that nothing refers to any more.
//!
//! Keys are never written, and nothing that would have been right under them but was
//! not on the wire ([`homeport_proto::draws`]). What is on the wire is: addresses of
//! nodes, where they are, and when they move. The folder is for its owner alone.
//!
//! **Not done:** a piece begins with a config, not with the bindings of that moment;
//! where the ring has dropped the start, nodes are bound again by their next requests,
//! and until then actions differ from those that are written.

mod decode;
mod difference;
mod input;
mod recorder;
mod replay;

use homeport_proto::draws::Drawn;
use homeport_proto::{Action, Now};
use serde::{Deserialize, Serialize};

pub use self::decode::{Field, decode_frame, decode_message};
pub use self::difference::{Difference, field_differences};
pub use self::input::{Input, Stored};
pub use self::recorder::{Recorder, RecorderCounts, RecorderError};
pub use self::replay::{Finding, JournalError, Replay, Summary, replay};

/// The version of the format; a reader takes no other.
const FORMAT: u32 = 1;

/// The end of a piece's name.
const PIECE: &str = ".jsonl";
/// The end of a config's name.
const CONFIG: &str = ".config.json";

/// One line of a piece.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The first.
    Piece {
        /// [`FORMAT`].
        format: u32,
        /// The piece's number.
        number: u64,
        /// The number of the next input.
        next: u64,
        /// The config in force.
        config: Option<String>,
        /// Messages a second of one source prefix.
        messages_per_second: u32,
    },
    /// A process began.
    Start(Start),
    /// Something happened.
    Input(Entry),
}

/// The start of a process.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    at: Now,
    config: String,
    messages_per_second: u32,
    #[serde(default, skip_serializing_if = "Drawn::is_empty")]
    drawn: Drawn,
    actions: Vec<Action>,
}

/// An input and what came of it.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    number: u64,
    at: Now,
    input: Stored,
    #[serde(default, skip_serializing_if = "Drawn::is_empty")]
    drawn: Drawn,
    actions: Vec<Action>,
}

fn piece_name(number: u64) -> String {
    format!("{number:06}{PIECE}")
}

fn config_name(number: u64) -> String {
    format!("{number:06}{CONFIG}")
}

/// The number in a file's name, if it is one of the journal's with this end.
fn number_of(name: &str, end: &str) -> Option<u64> {
    let digits = name.strip_suffix(end)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
