//! The `[dataplane]` section: which CPU is whose.
//!
//! A worker that polls without a pause takes its CPU whole, and registrations must
//! not wait for the scheduler to take it away: so the control core has another one,
//! unless the file says that it need not.

use std::path::Path;

use homeport_dataplane::config::RegistrationLimits;
use rustix::thread::CpuSet;
use toml::de::DeTable;

use super::Dataplane;
use super::check::Checker;
use super::file::DataplaneSection;
use super::read::At;
use super::value::PollMode;

/// Buffers for a few bursts in every stage; fewer would only drop.
const MIN_BUFFERS: usize = 256;
const MAX_BUFFERS: usize = 1 << 20;
/// As many bindings as there may be.
const MAX_CLAIMS: u32 = 1 << 24;
/// Registration messages a second: more than any core takes.
const MAX_REGISTRATION_RATE: u32 = 10_000_000;

/// The CPUs of this machine that are online.
const ONLINE: &str = "/sys/devices/system/cpu/online";

impl Checker<'_> {
    pub(super) fn dataplane(&mut self, section: Option<&DataplaneSection>) -> Option<Dataplane> {
        let section = match section {
            Some(section) => section.clone(),
            None => DataplaneSection::from_table(&DeTable::new(), 0..0, self.problems)?,
        };
        self.within(&section.buffers, MIN_BUFFERS..=MAX_BUFFERS, "buffers");
        self.within(&section.exact_claims, 0..=MAX_CLAIMS, "exact_claims");
        for (rate, least, key) in [
            (&section.registrations_per_prefix, 1, "registrations_per_prefix"),
            (&section.registrations_per_known_prefix, 1, "registrations_per_known_prefix"),
            (&section.moves_first, 0, "moves_first"),
        ] {
            self.within(rate, least..=MAX_REGISTRATION_RATE, key);
        }
        let cores = section.cores.as_ref();
        if let Some(cores) = cores
            && cores.is_empty()
        {
            let help = "write the numbers of the CPUs, as in [0, 1], or leave the key away";
            self.problems.add(cores.span(), "no core is left for the workers", help);
        }
        let cores = cores.map_or(&[][..], |cores| cores.as_slice());
        self.distinct(cores.iter().map(|core| (**core, core.span())), |core| {
            (format!("core {core} stands here twice"), "name each core once".into())
        });
        let online = online(Path::new(ONLINE));
        for core in cores.iter().chain(&section.control_core) {
            self.exists(core, online.as_deref());
        }
        Some(Dataplane {
            poll: *section.poll,
            cores: cores.iter().map(|core| **core).collect(),
            control_cores: self.control_cores(&section, &online.unwrap_or_default()),
            steering: *section.steering,
            buffers: *section.buffers,
            exact_claims: *section.exact_claims,
            registrations: RegistrationLimits {
                per_prefix: *section.registrations_per_prefix,
                per_known_prefix: *section.registrations_per_known_prefix,
                moves_first: *section.moves_first,
            },
        })
    }

    /// Where the control core may run; empty: anywhere.
    fn control_cores(&mut self, section: &DataplaneSection, online: &[usize]) -> Vec<usize> {
        let busy = *section.poll == PollMode::Busy && !*section.share_control_core;
        let workers: Vec<usize> =
            section.cores.iter().flat_map(|cores| cores.iter().map(|core| **core)).collect();
        let Some(control) = &section.control_core else {
            if !busy || workers.is_empty() || online.is_empty() {
                return Vec::new();
            }
            let rest: Vec<usize> =
                online.iter().copied().filter(|cpu| !workers.contains(cpu)).collect();
            if let Some(cores) = section.cores.as_ref().filter(|_| rest.is_empty()) {
                self.problems.add(
                    cores.span(),
                    "busy workers take every CPU, and none is left for the control core",
                    "leave one CPU away, or write poll = \"adaptive\" or share_control_core = true",
                );
            }
            return rest;
        };
        if busy && workers.contains(control) {
            self.problems.add(
                control.span(),
                format!("a busy worker takes core {} whole", **control),
                "write a CPU that is not among cores, or share_control_core = true",
            );
        }
        if busy && workers.is_empty() {
            self.problems.add(
                control.span(),
                "a busy worker that has no core of its own may take the control core's",
                "write cores = [N] with another CPU, or share_control_core = true",
            );
        }
        vec![**control]
    }

    fn exists(&mut self, core: &At<usize>, online: Option<&[usize]>) {
        let known = online.is_none_or(|online| online.contains(core));
        if known && **core < CpuSet::MAX_CPU {
            return;
        }
        let cpus: Vec<String> = online.unwrap_or_default().iter().map(usize::to_string).collect();
        let help = match cpus.len() {
            0 => format!("write a number below {}", CpuSet::MAX_CPU),
            1..=16 => format!("this machine has: {}", cpus.join(", ")),
            count => format!("this machine has {count} CPUs: see {ONLINE}"),
        };
        self.problems.add(core.span(), format!("there is no core {}", **core), help);
    }
}

/// The CPUs in a list like `0-3,8`; `None` when there is none to be read.
fn online(path: &Path) -> Option<Vec<usize>> {
    parse_list(std::fs::read_to_string(path).ok()?.trim())
}

fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last.min(first + CpuSet::MAX_CPU));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::value::SteeringName;

    fn parse(dataplane: &str) -> Result<Dataplane, String> {
        let text = format!(
            "[dataplane]\n{dataplane}\n[[port]]\nname = \"a\"\nbackend = \"af_packet\"\n\
             interface = \"a\"\n"
        );
        let config = Config::parse(&text, Path::new("test.toml")).map_err(|errors| {
            let [problem] = errors.problems.as_slice() else { panic!("{errors}") };
            assert_eq!(problem.line, dataplane.lines().count() + 1, "{problem}");
            format!("{}; {}", problem.message, problem.help)
        })?;
        Ok(config.dataplane)
    }

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-2,5,8-9"), Some(vec![0, 1, 2, 5, 8, 9]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("0-x"), None);
    }

    #[test]
    fn busy_workers_never_take_the_control_core_unasked() {
        let all = online(Path::new(ONLINE)).unwrap();
        let busy = |more: &str| parse(&format!("poll = \"busy\"\n{more}"));
        let every = format!("cores = {all:?}");
        assert_eq!(
            busy(&every).unwrap_err(),
            "busy workers take every CPU, and none is left for the control core; \
             leave one CPU away, or write poll = \"adaptive\" or share_control_core = true"
        );
        let shared = busy(&format!("share_control_core = true\n{every}")).unwrap();
        assert_eq!((shared.cores, shared.control_cores), (all.clone(), vec![]));
        assert_eq!(parse(&every).unwrap().control_cores, Vec::<usize>::new(), "adaptive");
        assert_eq!(
            busy("cores = [0]\ncontrol_core = 0").unwrap_err(),
            "a busy worker takes core 0 whole; \
             write a CPU that is not among cores, or share_control_core = true"
        );
        let shared = busy("cores = [0]\nshare_control_core = true\ncontrol_core = 0").unwrap();
        assert_eq!(shared.control_cores, [0]);
        assert_eq!(
            busy("control_core = 0").unwrap_err(),
            "a busy worker that has no core of its own may take the control core's; \
             write cores = [N] with another CPU, or share_control_core = true"
        );
        if all.len() > 1 {
            let rest: Vec<usize> = all.iter().copied().filter(|cpu| *cpu != 0).collect();
            assert_eq!(busy("cores = [0]").unwrap().control_cores, rest);
        }
    }

    #[test]
    fn a_core_that_is_not_there_is_refused_by_its_name() {
        for key in ["cores = [9999]", "control_core = 9999"] {
            let said = parse(key).unwrap_err();
            assert!(said.starts_with("there is no core 9999; this machine has"), "{said}");
        }
        assert_eq!(
            parse("cores = [0, 0]").unwrap_err(),
            "core 0 stands here twice; name each core once"
        );
        assert_eq!(parse("steering = \"inner\"").unwrap().steering, SteeringName::Inner);
    }
}
