//! What is seen while it measures: on a terminal bars, elsewhere a line for each step.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::case::entries_text;
use crate::generator::Phase;
use crate::measure::Progress;

/// The whole measurement, step by step.
pub struct Steps {
    all: ProgressBar,
    is_terminal: bool,
}

impl Steps {
    /// For so many steps.
    pub fn new(count: u64) -> Self {
        let all = ProgressBar::new(count);
        let style =
            ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}");
        if let Ok(style) = style {
            all.set_style(style);
        }
        all.enable_steady_tick(Duration::from_millis(200));
        Steps { is_terminal: !all.is_hidden(), all }
    }

    /// A step begins.
    pub fn begin(&self, what: &str) {
        self.all.set_message(what.to_owned());
        if !self.is_terminal {
            println!("{:6.1} s  {what}", self.all.elapsed().as_secs_f64());
        }
    }

    /// A part of the step.
    pub fn part(&self, what: String) {
        self.all.set_message(what);
    }

    /// A step is done.
    pub fn done(&self, steps: u64) {
        self.all.inc(steps);
    }

    /// All is done.
    pub fn finish(&self) {
        self.all.finish_and_clear();
    }
}

/// A box that is filled and measured.
pub struct OfBox<'s> {
    /// The whole.
    pub steps: &'s Steps,
    /// How much the box holds.
    pub entries: u64,
}

impl Progress for OfBox<'_> {
    fn installed(&self, count: u64) {
        let (count, all) = (count as f64 / 1e6, self.entries as f64 / 1e6);
        self.steps.part(format!("installing bindings: {count:.1} of {all:.1} million"));
    }

    fn phase(&self, number: usize, phase: &Phase) {
        if number > 0 {
            self.steps.done(1);
        }
        self.steps.part(format!(
            "{} at {}: frames of {}, bursts of {}, {} updates a second",
            phase.case,
            entries_text(phase.entries),
            phase.len,
            phase.burst,
            phase.updates
        ));
    }
}
