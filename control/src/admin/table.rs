//! Text for people: tables, times and numbers, and nothing in it that a terminal
//! would obey.

use std::fmt::Write;

pub use homeport_proto::shown::is_obeyed;

/// The text with everything in it that a terminal would obey or reorder written
/// out: control characters, and marks of direction and of zero width.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A time for people: `12s`, `3m12s`, `2h05m`, `4d03h`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A lifetime for people; one without an end is `infinite`.
pub fn lifetime(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "infinite".into(), age)
}

/// A number with its unit's prefix: `999`, `12.3k`, `4.00M`.
pub fn scaled(number: u64) -> String {
    let mut rest = number as f64;
    if number < 1000 {
        return number.to_string();
    }
    for prefix in ["k", "M", "G", "T", "P"] {
        rest /= 1000.0;
        // What rounds up to 1000 belongs to the next prefix.
        match rest {
            ..9.995 => return format!("{rest:.2}{prefix}"),
            ..99.95 => return format!("{rest:.1}{prefix}"),
            ..999.5 => return format!("{rest:.0}{prefix}"),
            _ => {}
        }
    }
    format!("{:.0}E", rest / 1000.0)
}

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings, in columns as wide as they must be.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. A heading that begins with `#` is of numbers, and
    /// shown without it.
    pub fn new(headings: &[&'static str]) -> Self {
        let columns = headings.iter().map(|heading| match heading.strip_prefix('#') {
            Some(heading) => (heading, Align::Right),
            None => (*heading, Align::Left),
        });
        Table { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row; its cells are cleaned.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| clean(cell.as_ref())).collect());
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, each line ended; `empty` when there is no row.
    pub fn render(&self, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let headings: Vec<String> =
            self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let width = |at: usize| {
            lines().filter_map(|cells| cells.get(at)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> =
            (0..self.columns.len()).map(|at| width(at).unwrap_or_default()).collect();
        let mut out = String::new();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, (_, align)), width) in cells.iter().zip(&self.columns).zip(&widths) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let _ = match align {
                    Align::Left => write!(line, "{cell:<width$}"),
                    Align::Right => write!(line, "{cell:>width$}"),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_short_and_keep_their_places() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (192, "3m12s"),
            (3599, "59m59s"),
            (7500, "2h05m"),
            (86_399, "23h59m"),
            (86_400 * 4 + 3 * 3600, "4d03h"),
        ] {
            assert_eq!(age(seconds), text);
        }
        assert_eq!(lifetime(None), "infinite");
        for (number, text) in [
            (999, "999"),
            (1000, "1.00k"),
            (9994, "9.99k"),
            (9999, "10.0k"),
            (99_990, "100k"),
            (999_499, "999k"),
            (999_999, "1.00M"),
            (12_345_678, "12.3M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(scaled(number), text);
        }
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["NAME", "#COUNT", "NOTE"]);
        table.row(["a", "5", "first"]);
        table.row(["longer", "12345", ""]);
        assert_eq!(
            table.render("none"),
            "NAME    COUNT  NOTE\n\
             a           5  first\n\
             longer  12345\n"
        );
        assert_eq!(Table::new(&["NAME"]).render("none"), "none\n");
    }
}
