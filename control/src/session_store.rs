//! Which home address is whose session's, on disk, so that a restart gives no address to
//! two: a line for each session that begins or ends, before it is told so.
//!
//! Three files in the folder, read in this order: `sessions.base`, what was left of all
//! that was written before; `sessions.old`, while it is being merged into the base; and
//! `sessions.log`, which grows. When the log has [`MERGE_AT`] bytes it becomes the old
//! one, and a thread merges: so neither the disk nor the registrations wait for it. A line
//! that a crash has cut off is left out, and so is one that is there twice.
//!
//! **Not done:** a line is in the kernel's hands when the session is answered, not on the
//! disk yet: what a power failure takes, the last half minute at most, is taken.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use homeport_proto::{StoredSession, TenantId};
use serde::{Deserialize, Serialize};

/// Bytes of a log that is merged.
pub const MERGE_AT: u64 = 64 << 20;

/// The longest line that is read: two names of 250 bytes in hex, and the rest.
const MAX_LINE: u64 = 2_048;

const BASE: &str = "sessions.base";
const OLD: &str = "sessions.old";
const LOG: &str = "sessions.log";
const NEW: &str = "sessions.new";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The virtual home agent.
    pub tenant: TenantId,
    /// Its address.
    pub home_agent: Ipv4Addr,
    /// Which address is whose.
    #[serde(flatten)]
    pub session: StoredSession,
}

/// A tenant, its home agent and an address.
type Key = (TenantId, Ipv4Addr, Ipv4Addr);

/// What is kept, and how many lines could not be read.
type Kept = (BTreeMap<Key, Line>, u64);

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
#[error("the folder of sessions {}: {cause}", path.display())]
pub struct StoreError {
    path: PathBuf,
    cause: io::Error,
}

/// The files.
#[derive(Debug)]
pub struct SessionStore {
    folder: PathBuf,
    log: File,
    len: u64,
    merge_at: u64,
    merging: Option<JoinHandle<io::Result<()>>>,
    /// Lines that could not be written.
    lost: u64,
}

impl SessionStore {
    /// Opens the folder, which is made if it is not there, and gives what it says.
    ///
    /// # Errors
    /// [`StoreError`]: it can be neither read nor written.
    pub fn open(folder: &Path) -> Result<(Self, Vec<Line>), StoreError> {
        Self::open_merging_at(folder, MERGE_AT)
            .map_err(|cause| StoreError { path: folder.into(), cause })
    }

    fn open_merging_at(folder: &Path, merge_at: u64) -> io::Result<(Self, Vec<Line>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let (kept, unread) = read(folder, &[BASE, OLD, LOG])?;
        if unread > 0 {
            tracing::warn!(unread, folder = %folder.display(), "lines about sessions could not be read");
        }
        replace_base(folder, &kept)?;
        for name in [OLD, LOG] {
            remove(&folder.join(name))?;
        }
        let log = append_to(&folder.join(LOG))?;
        let folder = folder.to_owned();
        let store = SessionStore { folder, log, len: 0, merge_at, merging: None, lost: 0 };
        Ok((store, kept.into_values().collect()))
    }

    /// Writes a line. What cannot be written is counted, and told once.
    pub fn write(&mut self, line: &Line) {
        let result = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.len += bytes.len() as u64;
            self.log.write_all(&bytes)
        });
        if let Err(error) = result {
            if self.lost == 0 {
                let folder = self.folder.display();
                tracing::error!(%error, %folder, "which address is whose cannot be written down: after a restart it could be given to another");
            }
            self.lost += 1;
        }
        if self.len >= self.merge_at {
            self.merge();
        }
    }

    /// Lines that could not be written.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Begins to merge, unless a merge is under way.
    fn merge(&mut self) {
        if self.merging.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.finish();
        if let Err(error) = self.begin_merge() {
            tracing::error!(%error, folder = %self.folder.display(), "the log of sessions was not merged");
            // Not at each line.
            self.merge_at = self.merge_at.saturating_mul(2);
        }
    }

    fn begin_merge(&mut self) -> io::Result<()> {
        let old = self.folder.join(OLD);
        if old.exists() {
            return Err(io::Error::other(format!("{} is in the way", old.display())));
        }
        fs::rename(self.folder.join(LOG), old)?;
        self.log = append_to(&self.folder.join(LOG))?;
        self.len = 0;
        let folder = self.folder.clone();
        let merge = move || {
            let (kept, _) = read(&folder, &[BASE, OLD])?;
            replace_base(&folder, &kept)?;
            remove(&folder.join(OLD))
        };
        self.merging = Some(thread::Builder::new().name("sessions".into()).spawn(merge)?);
        Ok(())
    }

    /// Waits for a merge that is under way.
    fn finish(&mut self) {
        match self.merging.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                tracing::error!(%error, folder = %self.folder.display(), "merging the log of sessions");
            }
            Some(Err(_)) => tracing::error!("the thread that merges the log of sessions panicked"),
        }
    }
}

impl Drop for SessionStore {
    fn drop(&mut self) {
        self.finish();
    }
}

fn read(folder: &Path, names: &[&str]) -> io::Result<Kept> {
    let (mut kept, mut unread) = (BTreeMap::new(), 0);
    for name in names {
        let file = match File::open(folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let len = io::Read::take(&mut reader, MAX_LINE).read_until(b'\n', &mut text)?;
            if len == 0 {
                break;
            }
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => {
                    let key = (line.tenant, line.home_agent, line.session.home_address);
                    match line.session.kept {
                        true => kept.insert(key, line),
                        false => kept.remove(&key),
                    };
                }
                Err(_) => unread += 1,
            }
        }
    }
    Ok((kept, unread))
}

/// The base is whole at any moment, the old one or the new one.
fn replace_base(folder: &Path, kept: &BTreeMap<Key, Line>) -> io::Result<()> {
    let path = folder.join(NEW);
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    for line in kept.values() {
        serde_json::to_writer(&mut writer, line)?;
        writer.write_all(b"\n")?;
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(path, folder.join(BASE))?;
    File::open(folder)?.sync_all()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("homeport-sessions-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn line(last: u8, sub_nai: &[u8], kept: bool) -> Line {
        Line {
            tenant: TenantId(1),
            home_agent: Ipv4Addr::new(10, 0, 1, 2),
            session: StoredSession {
                nai: b"phone@train.example".as_slice().into(),
                sub_nai: sub_nai.into(),
                home_address: Ipv4Addr::new(10, 9, 0, last),
                kept,
            },
        }
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_what_has_ended_is_not() {
        let folder = folder("restart");
        let (mut store, lines) = SessionStore::open(&folder).unwrap();
        assert_eq!(lines, []);
        let lasting = line(1, b"\x00\xff\n", true);
        for one in [&lasting, &line(2, b"b", true), &line(2, b"b", false)] {
            store.write(one);
        }
        drop(store);
        for _ in 0..2 {
            let (_, lines) = SessionStore::open(&folder).unwrap();
            assert_eq!(lines, std::slice::from_ref(&lasting));
        }
        use std::os::unix::fs::PermissionsExt;
        let mode = |name: &str| folder.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(BASE), mode(LOG)), (0o600, 0o600));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_log_that_grows_is_merged_and_loses_nothing() {
        let folder = folder("merge");
        let (mut store, _) = SessionStore::open_merging_at(&folder, 2_000).unwrap();
        for round in 0..200u8 {
            store.write(&line(round, &[round], true));
            if round >= 3 {
                store.write(&line(round - 3, &[round - 3], false));
            }
            if round % 50 == 49 {
                store.finish();
            }
        }
        drop(store);
        assert!(fs::metadata(folder.join(LOG)).unwrap().len() < 40_000, "it was never merged");
        let (_, lines) = SessionStore::open(&folder).unwrap();
        let kept: Vec<Line> = (197..200).map(|last| line(last, &[last], true)).collect();
        assert_eq!(lines, kept);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_so_is_noise() {
        let folder = folder("cut");
        let (mut store, _) = SessionStore::open(&folder).unwrap();
        store.write(&line(1, b"a", true));
        drop(store);
        let mut log = append_to(&folder.join(LOG)).unwrap();
        log.write_all(b"\xff\xfe\n").unwrap();
        log.write_all(&vec![b'x'; 5_000]).unwrap();
        log.write_all(b"\n{\"tenant\":1,\"home_ag").unwrap();
        drop(log);
        let (_, lines) = SessionStore::open(&folder).unwrap();
        assert_eq!(lines, [line(1, b"a", true)]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = SessionStore::open(Path::new("/proc/none")).unwrap_err();
        assert!(error.to_string().starts_with("the folder of sessions /proc/none: "), "{error}");
    }
}
