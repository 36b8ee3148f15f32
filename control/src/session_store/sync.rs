//! Brings the lines of a log to the disk: a thread that does nothing else, so that nobody
//! who writes waits for a disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long lines are gathered that are brought to the disk together.
const GATHERED_FOR: Duration = Duration::from_millis(500);

/// A log that is written to.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: File,
    /// Whether the thread is told of it, and has not begun with it.
    told: AtomicBool,
    /// Whether its name in the folder is on the disk.
    named: AtomicBool,
}

impl Log {
    pub(super) const fn new(file: File) -> Self {
        Log { file, told: AtomicBool::new(false), named: AtomicBool::new(false) }
    }

    fn sync(&self, folder: &Path) -> io::Result<()> {
        // Whatever is written from now on is told of anew.
        self.told.store(false, Ordering::SeqCst);
        self.file.sync_data()?;
        if !self.named.load(Ordering::Relaxed) {
            File::open(folder)?.sync_all()?;
            self.named.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What the thread shares with who writes.
#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// Times that it was done, and that it could not be done.
    done: AtomicU64,
    failed: AtomicU64,
}

/// The thread, and what it is told by.
#[derive(Debug)]
pub(super) struct Syncer {
    logs: Option<Sender<Arc<Log>>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Syncer {
    pub(super) fn start(folder: &Path) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let (theirs, folder) = (Arc::clone(&shared), folder.to_owned());
        let run = move || run(&receiver, &folder, &theirs);
        let thread = thread::Builder::new().name("sessions-sync".into()).spawn(run)?;
        Ok(Syncer { logs: Some(sender), thread: Some(thread), shared })
    }

    /// A line was written to `log`. Never waits: of each log, one message is on its way.
    pub(super) fn written(&self, log: &Arc<Log>) {
        if log.told.swap(true, Ordering::SeqCst) {
            return;
        }
        let told = self.logs.as_ref().is_some_and(|logs| logs.send(Arc::clone(log)).is_ok());
        if !told {
            // The thread has panicked.
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
            log.told.store(false, Ordering::SeqCst);
        }
    }

    /// Times that lines could not be brought to the disk.
    pub(super) fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn done(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }

    /// All that was written is on the disk, if that can be.
    pub(super) fn stop(&mut self) {
        drop(self.logs.take());
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that brings sessions to the disk panicked");
            }
        }
    }
}

fn run(logs: &Receiver<Arc<Log>>, folder: &Path, shared: &Shared) {
    for log in logs {
        if !shared.stopping.load(Ordering::SeqCst) {
            thread::park_timeout(GATHERED_FOR);
        }
        match log.sync(folder) {
            Ok(()) => _ = shared.done.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                if shared.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    let folder = folder.display();
                    tracing::error!(%error, %folder, "which address is whose does not come to the disk: after a power failure it could be given to another");
                }
            }
        }
    }
}
