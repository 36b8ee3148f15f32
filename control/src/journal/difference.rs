//! What differs between two frames, or between what agents asked for and what they ask
//! for now: said field by field.

use std::collections::BTreeMap;
use std::fmt;

use homeport_proto::draws::Differing;
use homeport_proto::{Action, Now, Payload};

use super::decode::{Field, decode_message};
use super::input::Stored;

/// Fields that are shown of one difference.
const MAX_FIELDS: usize = 12;

/// How the actions of an input differ from those that are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The input's number and what it was; `None` is the start.
    input: Option<(u64, String)>,
    /// Nanoseconds of the monotonic clock.
    at: u64,
    lines: Vec<String>,
}

impl Difference {
    pub(super) fn new(
        input: Option<(u64, &Stored)>,
        at: Now,
        (expected, actions): (&[Action], &[Action]),
        draws: Differing,
    ) -> Difference {
        let mut lines = Vec::new();
        for number in 0..expected.len().max(actions.len()) {
            let line = match (expected.get(number), actions.get(number)) {
                (Some(expected), Some(action)) if expected == action => continue,
                (Some(expected), Some(action)) => {
                    lines.push(format!("action {number}:"));
                    lines.extend(field_differences(&fields(expected), &fields(action)));
                    continue;
                }
                (Some(expected), None) => {
                    format!("action {number}: written {}, now none", name(expected))
                }
                (None, Some(action)) => {
                    format!("action {number}: written none, now {}", name(action))
                }
                (None, None) => continue,
            };
            lines.push(line);
        }
        let Differing { missing, left } = draws;
        if missing + left > 0 {
            lines.push(format!(
                "of what it draws, {missing} are not written, and {left} that are were not drawn: \
                 the agents compute other authenticators or random numbers than then"
            ));
        }
        let input = input.map(|(number, input)| (number, kind(input).to_owned()));
        Difference { input, at: at.monotonic.0, lines }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at as f64 / 1e9;
        match &self.input {
            Some((number, kind)) => write!(f, "input {number} ({kind}, at {seconds:.6} s):")?,
            None => write!(f, "the start (at {seconds:.6} s):")?,
        }
        self.lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The fields that two things do not have alike, a line for each: as they were
/// expected, and as they are.
pub fn field_differences(expected: &[Field], actual: &[Field]) -> Vec<String> {
    let mut lines = Vec::new();
    let has: BTreeMap<&str, &str> = actual.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let had: BTreeMap<&str, &str> =
        expected.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for (path, value) in expected {
        match has.get(path.as_str()) {
            Some(now) if now == value => {}
            Some(now) => lines.push(format!("{path}: expected {value}, is {now}")),
            None => lines.push(format!("{path}: expected {value}, is not there")),
        }
    }
    for (path, value) in actual.iter().filter(|(path, _)| !had.contains_key(path.as_str())) {
        lines.push(format!("{path}: not expected, is {value}"));
    }
    let more = lines.len().saturating_sub(MAX_FIELDS);
    lines.truncate(MAX_FIELDS);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// The fields of an action; a registration message's are its own.
fn fields(action: &Action) -> Vec<Field> {
    let mut all = Vec::new();
    let mut value = serde_json::to_value(action).unwrap_or_default();
    if let Action::Transmit(packet) = action
        && let Payload::Udp { data, .. } = &packet.payload
    {
        all.extend(decode_message(data));
        if let Some(data) = value.pointer_mut("/Transmit/payload/Udp/data") {
            *data = serde_json::Value::Null;
        }
    }
    flatten("", &value, &mut all);
    all
}

fn flatten(path: &str, value: &serde_json::Value, all: &mut Vec<Field>) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    match value {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(name, value)| flatten(&below(name), value, all));
        }
        serde_json::Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(number, value)| flatten(&below(&number.to_string()), value, all));
        }
        serde_json::Value::Null => {}
        serde_json::Value::String(text) => all.push((path.to_owned(), text.clone())),
        other => all.push((path.to_owned(), other.to_string())),
    }
}

const fn name(action: &Action) -> &'static str {
    match action {
        Action::InstallBinding(_) => "the install of a binding",
        Action::RemoveBinding { .. } => "the removal of a binding",
        Action::InstallVisitor(_) => "the install of a visitor",
        Action::RemoveVisitor { .. } => "the removal of a visitor",
        Action::GratuitousArp { .. } => "a gratuitous ARP",
        Action::Transmit(_) => "a packet to send",
        Action::StoreSession { .. } => "the storing of a session",
        Action::Event(_) => "an event",
    }
}

const fn kind(input: &Stored) -> &'static str {
    match input {
        Stored::Datagram { .. } => "a datagram to port 434",
        Stored::Solicitation { .. } => "a solicitation",
        Stored::Unreachable { .. } => "an ICMP error",
        Stored::Keepalive { .. } => "a keepalive",
        Stored::Rebound { .. } => "data from another port",
        Stored::ClearBinding { .. } | Stored::ClearVisitor { .. } => "an operator's command",
        Stored::RestoreSession { .. } => "a session from before the start",
        Stored::Config(_) => "a config",
        Stored::Timeout => "a timer",
    }
}
