//! Where the frames that leave go: files, and comparisons.

use std::path::PathBuf;
use std::time::Duration;

use homeport_proto::PortId;

use super::ReplayError;
use super::expectation::Expectation;
use crate::capture::{CaptureError, CaptureWriter};

/// A file or a comparison, of one port or of all.
struct Sink<T> {
    port: Option<PortId>,
    to: T,
}

/// All of them.
#[derive(Default)]
pub(super) struct Outputs {
    files: Vec<Sink<CaptureWriter>>,
    expectations: Vec<Sink<Expectation>>,
}

impl Outputs {
    /// The files and comparisons that were asked for; `port` finds a port by its name.
    pub(super) fn open(
        files: &[(Option<String>, PathBuf)],
        expectations: &[(Option<String>, PathBuf)],
        port: impl Fn(&str) -> Result<PortId, ReplayError>,
    ) -> Result<Self, ReplayError> {
        let of = |name: &Option<String>| name.as_deref().map(&port).transpose();
        let mut outputs = Outputs::default();
        for (name, path) in expectations {
            outputs.expectations.push(Sink { port: of(name)?, to: Expectation::open(path)? });
        }
        for (name, path) in files {
            // What is compared with is not what is written over.
            if expectations.iter().any(|(_, expected)| expected == path) {
                let path = path.display();
                let text = format!("--out and --expect both name {path}; give --out another file");
                return Err(ReplayError::Usage(text));
            }
            outputs.files.push(Sink { port: of(name)?, to: CaptureWriter::create(path)? });
        }
        Ok(outputs)
    }

    /// A frame leaves by a port.
    pub(super) fn frame(
        &mut self,
        port: PortId,
        time: Duration,
        frame: &[u8],
    ) -> Result<(), CaptureError> {
        let is_for = |of: Option<PortId>| of.is_none_or(|of| of == port);
        for file in self.files.iter_mut().filter(|file| is_for(file.port)) {
            file.to.write(time, frame)?;
        }
        for one in self.expectations.iter_mut().filter(|one| is_for(one.port)) {
            one.to.frame(time, frame)?;
        }
        Ok(())
    }

    /// Nothing leaves any more. Gives the first difference of each comparison that has
    /// one.
    pub(super) fn finish(mut self) -> Result<Vec<(String, u64, PathBuf)>, CaptureError> {
        for file in self.files.drain(..) {
            file.to.finish()?;
        }
        let mut differences = Vec::new();
        for mut one in self.expectations {
            one.to.end()?;
            let found = one.to.difference();
            differences.extend(found.map(|(text, count, path)| (text.to_owned(), count, path)));
        }
        Ok(differences)
    }
}
