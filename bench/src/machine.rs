//! What the measurement ran on.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cycles;

/// The machine, as the report has it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// CPUs that are online.
    pub cores: usize,
    /// Ticks of the time-stamp counter in a microsecond.
    pub tsc_mhz: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Huge pages that are reserved, each of [`Machine::huge_page_bytes`].
    pub huge_pages: u64,
    /// Bytes of a huge page.
    pub huge_page_bytes: u64,
    /// What the kernel does with huge pages of its own accord.
    pub transparent_huge_pages: String,
    /// The kernel.
    pub kernel: String,
    /// The hypervisor's kind, or empty.
    pub hypervisor: String,
    /// The last-level cache, as the kernel writes it.
    pub last_level_cache: String,
    /// The load before it began: others that ran.
    pub load: String,
    /// When, UTC.
    pub date: String,
}

impl Machine {
    /// This machine. What it does not tell is empty or zero.
    pub fn this() -> Machine {
        let meminfo = text("/proc/meminfo");
        let kib = |key| field(&meminfo, key).and_then(|value| number(&value)).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let cache = ["index3", "index2"].iter().find_map(|index| {
            fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/{index}/size")).ok()
        });
        let thp = text("/sys/kernel/mm/transparent_hugepage/enabled");
        let chosen = thp.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let has_hypervisor = field(&cpuinfo, "flags")
            .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
        Machine {
            cpu: field(&cpuinfo, "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            tsc_mhz: (cycles::per_second() / 1e5).round() / 10.0,
            memory_bytes: kib("MemTotal") * 1024,
            huge_pages: kib("HugePages_Total"),
            huge_page_bytes: kib("Hugepagesize") * 1024,
            transparent_huge_pages: chosen.map(|(chosen, _)| chosen.to_owned()).unwrap_or_default(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            hypervisor: if has_hypervisor { "virtual machine".into() } else { String::new() },
            last_level_cache: cache.unwrap_or_default().trim().to_owned(),
            load: text("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            date: date(SystemTime::now()),
        }
    }

    /// In a line or two for people.
    pub fn describe(&self) -> String {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        let virtual_machine = if self.hypervisor.is_empty() {
            String::new()
        } else {
            format!(", {}", self.hypervisor)
        };
        let pages = if self.huge_pages == 0 {
            format!("no huge pages reserved (transparent: {})", self.transparent_huge_pages)
        } else {
            format!("{} huge pages of {} KiB", self.huge_pages, self.huge_page_bytes / 1024)
        };
        format!(
            "{} ({} cores, TSC {:.0} MHz, last-level cache {}{virtual_machine}), {gib:.1} GiB, \
             {pages}, Linux {}, {}, load before {}",
            self.cpu,
            self.cores,
            self.tsc_mhz,
            self.last_level_cache,
            self.kernel,
            self.date,
            self.load
        )
    }
}

/// Bytes of memory that this process has in use.
pub fn resident_bytes() -> u64 {
    let status = text("/proc/self/status");
    field(&status, "VmRSS").and_then(|value| number(&value)).unwrap_or_default() * 1024
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of a `key: value` line.
fn field(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The time in the way of RFC 3339, to the second.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days from 1 March 0000, in years that end with February.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00Z");
    }

    #[test]
    fn this_machine_tells_what_it_is() {
        let machine = Machine::this();
        assert!(machine.memory_bytes > 1 << 28 && machine.cores > 0, "{machine:?}");
        assert!(resident_bytes() > 1 << 16);
    }
}
