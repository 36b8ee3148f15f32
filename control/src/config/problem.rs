//! What is wrong with a config file, where, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::admin::print::{clean, is_obeyed};

/// One error of a config file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// Where it begins in the file, in bytes.
    pub offset: usize,
    /// How long the wrong text is, in bytes.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, message, help, .. } = self;
        write!(f, "{file}:{line}:{column}: {message}; {help}")
    }
}

/// Why a config file was refused: every error in it, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub path: PathBuf,
    /// Its text; empty when it could not be read.
    pub text: String,
    /// The errors, never none.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(&self.problems, &self.text, false))
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// The error that a file could not be read at all.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let problem = Problem {
            file: path.display().to_string(),
            line: 1,
            column: 1,
            offset: 0,
            len: 0,
            message: format!("the file cannot be read: {error}"),
            help: "name a file that exists and that you may read".into(),
        };
        ConfigErrors { path: path.into(), text: String::new(), problems: vec![problem] }
    }
}

/// The problems for people, each with the lines of `text` that it is in.
pub fn render(problems: &[Problem], text: &str, color: bool) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
    let mut out = String::new();
    for problem in problems {
        let excerpt = Excerpt {
            message: clean(&problem.message),
            help: clean(&problem.help),
            span: (problem.offset, problem.len),
            source: NamedSource::new(clean(&problem.file), harmless(text)),
            has_text: !text.is_empty(),
        };
        // Writing to a String fails only if the handler itself does; then the
        // plain line says as much.
        if handler.render_report(&mut out, &excerpt).is_err() {
            out.push_str(&clean(&problem.to_string()));
        }
        out.push('\n');
    }
    let count = problems.len();
    let noun = if count == 1 { "error" } else { "errors" };
    let file = problems.first().map_or("", |problem| &problem.file);
    out.push_str(&format!("{}: {count} {noun}", clean(file)));
    out
}

/// The text with every character that a terminal would obey replaced by as many
/// question marks as it has bytes, so that offsets stay.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') || !is_obeyed(c) {
            out.push(c);
        } else {
            out.extend(std::iter::repeat_n('?', c.len_utf8()));
        }
    }
    out
}

/// A problem beside its source, as miette wants it.
#[derive(Debug)]
struct Excerpt {
    message: String,
    help: String,
    span: (usize, usize),
    source: NamedSource<String>,
    has_text: bool,
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Excerpt {}

impl Diagnostic for Excerpt {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.has_text.then_some(&self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.has_text
            .then(|| Box::new(std::iter::once(LabeledSpan::new_with_span(None, self.span))) as _)
    }
}

/// The problems of one file while it is read.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<(Range<usize>, String, String)>,
}

impl Problems {
    /// Notes that what stands at `span` is wrong, and what to write instead.
    pub fn add(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.found.push((span, message.into(), help.into()));
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems, in the order of the file, with line and column.
    pub fn into_errors(mut self, path: &Path, text: &str) -> ConfigErrors {
        self.found.sort_by_key(|(span, ..)| (span.start, span.end));
        self.found.dedup();
        let file = path.display().to_string();
        let problems = self.found.into_iter().map(|(span, message, help)| {
            let start = floor_char_boundary(text, span.start);
            let end = floor_char_boundary(text, span.end).max(start);
            let before = text.get(..start).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            Problem {
                file: file.clone(),
                line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
                column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
                offset: start,
                len: end - start,
                message,
                help,
            }
        });
        ConfigErrors { path: path.into(), text: text.into(), problems: problems.collect() }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
