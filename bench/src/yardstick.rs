//! Debian's `dpdk-testpmd` on the same virtual devices.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Figures before this one are of seconds that began before the forwarding did.
const FIRST: usize = 2;

const PATIENCE: Duration = Duration::from_secs(15);

/// Million packets a second that `dpdk-testpmd` receives from two `net_null` devices
/// with one forwarding core: the middle of `seconds` seconds.
///
/// # Errors
/// It is not installed, or does not start: what it said.
pub fn testpmd(mode: &str, frame_len: u16, seconds: usize) -> Result<f64> {
    let mut child = Command::new("dpdk-testpmd")
        .args(["-l", "0,1", "--no-huge", "-m", "512", "--no-pci", "--no-telemetry"])
        .args(["--file-prefix", &format!("bench{}", std::process::id())])
        .args([
            format!("--vdev=net_null0,size={frame_len}"),
            format!("--vdev=net_null1,size={frame_len}"),
        ])
        .args(["--", "--total-num-mbufs=16384", "--nb-cores=1", "--burst=32", "--auto-start"])
        .args(["--stats-period=1", &format!("--forward-mode={mode}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("dpdk-testpmd is not there: scripts/bench installs Debian's package dpdk-dev")?;
    let rates = child.stdout.take().map(|output| rates(BufReader::new(output), FIRST + seconds));
    // It ends when its input does, or by force.
    drop(child.stdin.take());
    let _ = child.kill();
    let output = child.wait_with_output()?;
    match rates {
        Some(rates) if rates.len() > FIRST => {
            let mut rates: Vec<f64> = rates.into_iter().skip(FIRST).collect();
            rates.sort_by(f64::total_cmp);
            Ok(rates.get(rates.len() / 2).copied().unwrap_or_default() / 1e6)
        }
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rev().take(3).collect::<Vec<_>>();
            bail!("dpdk-testpmd told no rate; it said: {}", last.join(" / "))
        }
    }
}

/// Packets a second of both ports, for each of so many seconds.
fn rates(output: impl BufRead, seconds: usize) -> Vec<f64> {
    let (begin, mut rates, mut port) = (Instant::now(), Vec::new(), None);
    for line in output.lines().map_while(Result::ok) {
        let Some((_, rest)) = line.split_once("Rx-pps:") else { continue };
        let Some(rate) = rest.split_whitespace().next().and_then(|rate| rate.parse::<f64>().ok())
        else {
            continue;
        };
        port = match port {
            None => Some(rate),
            Some(first) => {
                rates.push(first + rate);
                None
            }
        };
        if rates.len() >= seconds || begin.elapsed() > PATIENCE {
            break;
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_of_two_ports_are_added_second_by_second() {
        let port =
            |rate| format!("  Throughput (since last show)\n  Rx-pps:   {rate}   Rx-bps: 0\n");
        let text: String = [0, 0, 70, 30, 50, 51].map(port).concat();
        assert_eq!(rates(text.as_bytes(), 9), [0.0, 100.0, 101.0]);
        assert_eq!(rates("nothing\n".as_bytes(), 9), [0.0; 0]);
    }
}
