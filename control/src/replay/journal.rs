//! Running a journal, and saying what differs.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{Outcome, Progress, ReplayError};
use crate::admin::table::clean;
use crate::journal::{Finding, Replay, Summary, replay};

/// Findings that are printed; the others are counted.
const MAX_PRINTED: usize = 20;

/// Runs the journal in `folder`. Returns whether its actions are those that it has.
pub(super) fn run(folder: &Path, regenerate: bool, json: bool) -> Result<Outcome, ReplayError> {
    let progress = Progress::new(Replay::size(folder)?);
    let mut printed = 0;
    let mut texts = Vec::new();
    let mut found = |finding: Finding| {
        printed += 1;
        if printed > MAX_PRINTED {
            return;
        }
        let text: Vec<String> = finding.to_string().lines().map(clean).collect();
        if json {
            texts.push(text.join("\n"));
        } else {
            progress.tell(&text.join("\n"));
        }
    };
    let mut at = |bytes| progress.at(bytes);
    let how = Replay { progress: Some(&mut at), regenerate };
    let result = replay(folder, how, &mut found);
    progress.finish();
    let summary = result?;
    let text = if json {
        format!("{:#}\n", as_json(&summary, &texts, printed))
    } else {
        let mut text = String::new();
        // To a string, nothing is written in vain.
        let _ = write(&mut text, &summary, printed.saturating_sub(MAX_PRINTED), regenerate);
        text
    };
    Ok(Outcome { text, as_expected: regenerate || summary.is_whole() })
}

fn write(out: &mut String, summary: &Summary, more: usize, regenerate: bool) -> fmt::Result {
    let Summary { pieces, starts, inputs, actions, differing, behind_gaps, gaps, span } = *summary;
    if more > 0 {
        writeln!(out, "… and {more} findings more")?;
    }
    writeln!(out, "pieces   {pieces}, {starts} starts of a process")?;
    writeln!(out, "inputs   {inputs}, over {}", time(span))?;
    writeln!(out, "actions  {actions}")?;
    if gaps > 0 {
        writeln!(out, "missing  {gaps} gaps; {behind_gaps} inputs behind them give other actions")?;
    }
    let other = differing - behind_gaps;
    match (regenerate, differing) {
        (true, _) => writeln!(out, "result   written anew; {differing} inputs had other actions"),
        (false, 0) => writeln!(out, "result   the same actions"),
        (false, _) if other == 0 => {
            writeln!(out, "result   the same actions, but for those behind gaps")
        }
        (false, _) => {
            writeln!(out, "result   {other} inputs give other actions than those written")
        }
    }
}

fn as_json(summary: &Summary, findings: &[String], found: usize) -> serde_json::Value {
    json!({
        "pieces": summary.pieces,
        "starts": summary.starts,
        "inputs": summary.inputs,
        "actions": summary.actions,
        "differing": summary.differing,
        "behind_gaps": summary.behind_gaps,
        "gaps": summary.gaps,
        "span_seconds": summary.span.as_secs_f64(),
        "same": summary.is_whole(),
        "findings": findings,
        "findings_total": found,
    })
}

fn time(span: Duration) -> String {
    format!("{:.3} s", span.as_secs_f64())
}
