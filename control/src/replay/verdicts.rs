//! What became of each packet, a line for each: for `cut`, `grep` and `diff`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use homeport_dataplane::launch::PortShared;
use homeport_dataplane::trace::{Filter, TraceControl, Walk};

use super::ReplayError;

/// The first line.
const HEADER: &str = "time\tport\tpacket\tverdict\treason\tentry\n";

/// The file.
pub(super) struct Verdicts {
    path: PathBuf,
    file: BufWriter<File>,
    walks: Vec<Walk>,
}

impl Verdicts {
    /// Creates the file, and has every packet followed from now on.
    pub(super) fn create(path: &Path, traces: &mut TraceControl) -> Result<Self, ReplayError> {
        let failed = |cause| ReplayError::System { what: path.display().to_string(), cause };
        traces.start(&Filter::all(), None).map_err(|error| failed(io::Error::other(error)))?;
        let mut file = BufWriter::with_capacity(1 << 18, File::create(path).map_err(failed)?);
        file.write_all(HEADER.as_bytes()).map_err(failed)?;
        Ok(Verdicts { path: path.to_owned(), file, walks: Vec::new() })
    }

    /// Takes the walks that have ended, in the order in which their packets came.
    /// `origin` and `first` are one moment: the workers' clock and the capture's.
    pub(super) fn take(
        &mut self,
        traces: &mut TraceControl,
        ports: &[PortShared],
        (origin, first): (Instant, Duration),
    ) -> Result<(), ReplayError> {
        self.walks.extend(std::iter::from_fn(|| traces.next()));
        self.walks.sort_by_key(|walk| (walk.at, walk.worker, walk.number));
        for walk in self.walks.drain(..) {
            let time = first + walk.at.saturating_duration_since(origin);
            let port = ports.get(usize::from(walk.port.0)).map_or("?", |port| port.name.as_str());
            let (verdict, reason) = (walk.verdict.name(), walk.verdict.reason().unwrap_or("-"));
            let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
            let packet = walk.summary();
            let line = &mut self.file;
            write!(line, "{seconds}.{nanos:09}\t{port}\t{packet}\t{verdict}\t{reason}\t")
                .and_then(|()| match walk.entry() {
                    Some(entry) => writeln!(line, "{}", entry.named(ports)),
                    None => writeln!(line, "-"),
                })
                .map_err(|cause| ReplayError::System {
                    what: self.path.display().to_string(),
                    cause,
                })?;
        }
        Ok(())
    }

    /// Writes out what is buffered.
    pub(super) fn finish(mut self) -> Result<(), ReplayError> {
        let what = self.path.display().to_string();
        self.file.flush().map_err(|cause| ReplayError::System { what, cause })
    }
}
