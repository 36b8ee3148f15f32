//! `homeport top`: what moves, live.
//!
//! A thread asks the daemon once a second; the screen shows the newest two
//! samples as rates. Nothing here can hold up the daemon: it asks what `show` asks.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use serde::de::DeserializeOwned;

use super::api::{BindingView, DropView, PortView, RefusalKind, Status, VisitorView};
use super::client::{Client, ClientError};
use super::print::{age, clean, lifetime, scaled, totals};
use super::show::Noun;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the daemon said at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Instant,
    status: Status,
    ports: Vec<PortView>,
    drops: Vec<DropView>,
    bindings: Vec<BindingView>,
    visitors: Vec<VisitorView>,
}

impl Sample {
    fn take(client: &Client) -> Result<Sample, ClientError> {
        fn ask<T: DeserializeOwned>(client: &Client, noun: Noun) -> Result<T, ClientError> {
            let answer = client.get(&noun.path())?;
            noun.read(&answer).map_err(|error| ClientError::NotUnderstood(error.to_string()))
        }
        // A mobile node has no ports and no bindings: that list is empty.
        fn list<T: DeserializeOwned>(client: &Client, noun: Noun) -> Result<Vec<T>, ClientError> {
            match ask(client, noun) {
                Err(ClientError::Refused(refusal)) if refusal.kind == RefusalKind::NotFound => {
                    Ok(Vec::new())
                }
                asked => asked,
            }
        }
        Ok(Sample {
            at: Instant::now(),
            status: ask(client, Noun::Status)?,
            ports: list(client, Noun::Ports)?,
            drops: list(client, Noun::Drops)?,
            bindings: list(client, Noun::Bindings)?,
            visitors: list(client, Noun::Visitors)?,
        })
    }
}

/// How much a counter grew in a second, between two readings.
fn rate(before: u64, now: u64, elapsed: Duration) -> u64 {
    // A counter that went back is one of a daemon that was started again.
    let grown = now.saturating_sub(before) as f64;
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (grown / seconds).round() as u64 } else { 0 }
}

/// Runs until `q`, `Esc` or ^C.
///
/// # Errors
/// When the output is no terminal, and the daemon's refusal of the first sample:
/// later ones are shown and tried again.
pub fn run(client: &Client) -> Result<(), TopError> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let first = Sample::take(client).map_err(TopError::Client)?;
    let (sender, samples) = sync_channel(1);
    let asking = client.clone();
    std::thread::spawn(move || keep_asking(&asking, &sender));
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    let shown = show(&mut terminal, first, &samples);
    ratatui::restore();
    shown.map_err(TopError::Terminal)
}

/// Why `top` ended.
#[derive(Debug)]
pub enum TopError {
    /// There is no terminal to draw on.
    NoTerminal,
    /// The terminal failed.
    Terminal(io::Error),
    /// The daemon did not answer.
    Client(ClientError),
}

type News = Result<Sample, String>;

fn keep_asking(client: &Client, sender: &SyncSender<News>) {
    loop {
        std::thread::sleep(INTERVAL);
        let news = Sample::take(client).map_err(|error| error.to_string());
        if sender.send(news).is_err() {
            return;
        }
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    first: Sample,
    samples: &Receiver<News>,
) -> io::Result<()> {
    let mut previous = first.clone();
    let mut current = first;
    let mut trouble = None;
    loop {
        terminal.draw(|frame| draw(frame, &previous, &current, trouble.as_deref()))?;
        match samples.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok(sample)) => {
                previous = std::mem::replace(&mut current, sample);
                trouble = None;
            }
            Ok(Err(error)) => trouble = Some(error),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while event::poll(Duration::ZERO)? {
            if is_end(&event::read()?) {
                return Ok(());
            }
        }
    }
}

fn is_end(event: &Event) -> bool {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => true,
            KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
            _ => false,
        },
        _ => false,
    }
}

/// One screen: what the process is, ports, bindings and visitors, drops.
fn draw(frame: &mut Frame<'_>, previous: &Sample, current: &Sample, trouble: Option<&str>) {
    let elapsed = current.at.saturating_duration_since(previous.at);
    let rising = rising(previous, current, elapsed);
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(3);
    let [head, ports, nodes, drops] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(rows(current.ports.len())),
        Constraint::Min(4),
        Constraint::Length(rows(rising.len().clamp(1, 10))),
    ])
    .areas(frame.area());
    draw_head(frame, head, &current.status, trouble);
    draw_ports(frame, ports, previous, current, elapsed);
    draw_nodes(frame, nodes, current);
    draw_drops(frame, drops, &rising);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, status: &Status, trouble: Option<&str>) {
    let Status { bindings, visitors, ports, ports_up, .. } = status;
    let state = match trouble {
        Some(error) => Line::from(format!("{} — trying again", clean(error))).bold().red(),
        None => Line::from(totals(&status.totals)),
    };
    let lines = vec![
        Line::from(format!(
            "homeport {}  process {}  up {}  {ports_up}/{ports} ports up  {bindings} bindings  \
             {visitors} visitors",
            clean(&status.version),
            status.pid,
            age(status.uptime_seconds),
        ))
        .bold(),
        state,
        Line::from("q quits").dim(),
    ];
    frame.render_widget(Paragraph::new(lines), area);
}

fn table<'a>(title: &'a str, headings: &[&'a str], rows: Vec<Vec<String>>) -> Table<'a> {
    // Columns as wide as what stands in them.
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        let heading = headings.get(at).map_or(0, |heading| heading.chars().count());
        u16::try_from(cells.max().unwrap_or(0).max(heading)).unwrap_or(u16::MAX)
    };
    let widths: Vec<Constraint> =
        (0..headings.len()).map(|at| Constraint::Length(width(at))).collect();
    let head = Row::new(headings.iter().map(|heading| Cell::from(*heading)));
    Table::new(rows.into_iter().map(Row::new), widths)
        .header(head.style(Style::new().bold()))
        .column_spacing(2)
        .block(Block::bordered().title(title))
}

fn draw_ports(
    frame: &mut Frame<'_>,
    area: Rect,
    previous: &Sample,
    current: &Sample,
    elapsed: Duration,
) {
    let rows = current.ports.iter().map(|port| {
        let before = previous.ports.iter().find(|before| before.name == port.name).unwrap_or(port);
        let per_second =
            |value: fn(&PortView) -> u64| scaled(rate(value(before), value(port), elapsed));
        vec![
            clean(&port.name),
            if port.up { "up" } else { "down" }.into(),
            per_second(|port| port.rx),
            per_second(|port| port.rx_bytes.saturating_mul(8)),
            per_second(|port| port.tx),
            per_second(|port| port.tx_bytes.saturating_mul(8)),
            per_second(|port| port.encapsulated),
            per_second(|port| port.decapsulated),
            per_second(|port| port.punted),
            per_second(|port| port.to_kernel),
            per_second(|port| port.dropped),
            port.held.to_string(),
        ]
    });
    let headings = [
        "PORT", "LINK", "RX/s", "RX bit/s", "TX/s", "TX bit/s", "ENCAP/s", "DECAP/s", "PUNT/s",
        "KERNEL/s", "DROP/s", "HELD",
    ];
    frame.render_widget(table(" Ports ", &headings, rows.collect()), area);
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, current: &Sample) {
    let bindings = current.bindings.iter().flat_map(|binding| {
        binding.care_of_addresses.iter().map(|care_of| {
            vec![
                "binding".into(),
                binding.home_address.to_string(),
                care_of.address.to_string(),
                binding.home_agent.to_string(),
                lifetime(care_of.remaining_seconds),
                age(binding.age_seconds),
            ]
        })
    });
    let visitors = current.visitors.iter().map(|visitor| {
        vec![
            "visitor".into(),
            visitor.home_address.to_string(),
            visitor.care_of_address.to_string(),
            visitor.home_agent.to_string(),
            lifetime(visitor.remaining_seconds),
            age(visitor.age_seconds),
        ]
    });
    let rows = bindings.chain(visitors).take(usize::from(area.height)).collect();
    let headings = ["", "HOME-ADDRESS", "CARE-OF-ADDRESS", "HOME-AGENT", "LEFT", "AGE"];
    frame.render_widget(table(" Mobile nodes ", &headings, rows), area);
}

/// The drops that grew since the last sample, the fastest first.
fn rising<'a>(
    previous: &Sample,
    current: &'a Sample,
    elapsed: Duration,
) -> Vec<(u64, &'a DropView)> {
    let mut rising: Vec<_> = current
        .drops
        .iter()
        .filter_map(|row| {
            let same = |before: &&DropView| {
                (before.plane, &before.port, before.tenant, &before.reason)
                    == (row.plane, &row.port, row.tenant, &row.reason)
            };
            let before = previous.drops.iter().find(same).map_or(0, |before| before.count);
            (row.count > before).then(|| (rate(before, row.count, elapsed), row))
        })
        .collect();
    rising.sort_by_key(|(rate, _)| std::cmp::Reverse(*rate));
    rising
}

fn draw_drops(frame: &mut Frame<'_>, area: Rect, rising: &[(u64, &DropView)]) {
    let rows = rising.iter().map(|(rate, row)| {
        let place = row.port.clone().unwrap_or_else(|| "control".into());
        vec![scaled(*rate), clean(&place), clean(&row.reason), clean(&row.text)]
    });
    let mut rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        rows.push(vec!["0".into(), String::new(), "nothing is dropped".into(), String::new()]);
    }
    let headings = ["DROP/s", "WHERE", "REASON", "MEANING"];
    frame.render_widget(table(" Drops that rise ", &headings, rows), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api::{Plane, Totals};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn sample(at: Instant, rx: u64, no_route: u64) -> Sample {
        let port = serde_json::json!({
            "name": "core", "backend": "af_packet", "device": "eth0", "mac": "02:00:00:00:00:01",
            "mtu": 1500, "up": true, "kernel_twin": "hp-core", "addresses": [], "rx": rx,
            "rx_bytes": rx * 1000, "tx": 0, "tx_bytes": 0, "from_kernel": 0, "to_kernel": 0,
            "injected": 0, "originated": 0, "punted": 0, "dropped": no_route, "held": 0,
            "encapsulated": 0, "decapsulated": 0, "device_counters": {},
        });
        let drop = |reason: &str, count| DropView {
            plane: Plane::Dataplane,
            port: Some("core".into()),
            tenant: None,
            reason: reason.into(),
            text: "Why.".into(),
            count,
        };
        Sample {
            at,
            status: Status {
                version: "0.1.0".into(),
                pid: 1,
                uptime_seconds: 61,
                config_file: String::new(),
                config_generation: 1,
                poll: "adaptive".into(),
                workers: 1,
                held_back_entries: 0,
                held_back_seconds: 0,
                ports: 1,
                ports_up: 1,
                bindings: 3,
                subscribers: 3,
                visitors: 0,
                agents: Vec::new(),
                totals: Totals { rx, dropped: rx, ..Totals::default() },
            },
            ports: vec![serde_json::from_value(port).unwrap()],
            drops: vec![drop("no-route", no_route), drop("too-big", 5)],
            bindings: Vec::new(),
            visitors: Vec::new(),
        }
    }

    fn screen(previous: &Sample, current: &Sample, trouble: Option<&str>) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
        terminal.draw(|frame| draw(frame, previous, current, trouble)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_shows_rates_and_the_drops_that_rise() {
        let start = Instant::now();
        let before = sample(start, 1000, 10);
        let after = sample(start + Duration::from_secs(2), 25_000, 50);
        let shown = screen(&before, &after, None);
        for expected in
            ["up 1m01s", "3 bindings", "12.0k", "96.0M", "20  ", "no-route", "rx 25000 ="]
        {
            assert!(shown.contains(expected), "{expected} is not in\n{shown}");
        }
        assert!(!shown.contains("too-big"), "{shown}");
        let still = screen(&after, &after, Some("no daemon answers"));
        assert!(still.contains("nothing is dropped"), "{still}");
        assert!(still.contains("no daemon answers — trying again"), "{still}");
    }

    #[test]
    fn a_counter_that_went_back_has_the_rate_zero() {
        assert_eq!(rate(100, 5, Duration::from_secs(1)), 0);
        assert_eq!(rate(5, 105, Duration::from_millis(500)), 200);
        assert_eq!(rate(5, 105, Duration::ZERO), 0);
    }
}
