//! What shall leave, and where it first differs from what does.

use std::path::PathBuf;
use std::time::Duration;

use crate::capture::{CaptureError, CaptureReader};
use crate::journal::{decode_frame, field_differences};

/// A capture that what leaves is compared with, frame by frame.
pub(super) struct Expectation {
    reader: CaptureReader,
    number: u64,
    difference: Option<String>,
    /// Frames that differ, are too many, or missing.
    differing: u64,
}

impl Expectation {
    pub(super) fn open(path: &std::path::Path) -> Result<Self, CaptureError> {
        let reader = CaptureReader::open(path)?;
        Ok(Expectation { reader, number: 0, difference: None, differing: 0 })
    }

    /// A frame leaves.
    pub(super) fn frame(&mut self, time: Duration, frame: &[u8]) -> Result<(), CaptureError> {
        self.number += 1;
        let expected = self.reader.next_frame()?;
        let mut lines = match expected {
            Some(expected) if expected == time && self.reader.frame() == frame => return Ok(()),
            Some(expected) => {
                let mut lines = Vec::new();
                if expected != time {
                    let (expected, time) = (seconds(expected), seconds(time));
                    lines.push(format!("time: expected {expected}, is {time}"));
                }
                lines.extend(field_differences(
                    &decode_frame(self.reader.frame()),
                    &decode_frame(frame),
                ));
                lines
            }
            None => {
                let mut lines = vec!["not expected: the capture has ended; it is".to_owned()];
                lines.extend(fields(frame));
                lines
            }
        };
        self.differing += 1;
        if self.difference.is_none() {
            let path = self.reader.path().display();
            lines.insert(0, format!("frame {} differs from {path}:", self.number));
            self.difference = Some(lines.join("\n  "));
        }
        Ok(())
    }

    /// Nothing leaves any more.
    pub(super) fn end(&mut self) -> Result<(), CaptureError> {
        while let Some(time) = self.reader.next_frame()? {
            self.number += 1;
            self.differing += 1;
            if self.difference.is_none() {
                let path = self.reader.path().display();
                let mut lines = vec![format!("frame {} of {path} did not leave:", self.number)];
                lines.push(format!("time: {}", seconds(time)));
                lines.extend(fields(self.reader.frame()));
                self.difference = Some(lines.join("\n  "));
            }
        }
        Ok(())
    }

    /// The first difference, how many frames differ, and from what.
    pub(super) fn difference(&self) -> Option<(&str, u64, PathBuf)> {
        let difference = self.difference.as_deref()?;
        Some((difference, self.differing, self.reader.path().to_owned()))
    }
}

fn fields(frame: &[u8]) -> impl Iterator<Item = String> {
    decode_frame(frame).into_iter().map(|(path, value)| format!("{path}: {value}"))
}

fn seconds(time: Duration) -> String {
    format!("{}.{:09} s", time.as_secs(), time.subsec_nanos())
}
