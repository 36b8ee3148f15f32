//! Which points are measured: all of what is asked for, or a few that tell most.

use std::time::Duration;

use crate::case::{Case, Family, FrameLen};
use crate::cycles;
use crate::generator::{Extent, Order, Phase};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The cases.
    pub cases: Vec<Case>,
    /// Bindings or flows.
    pub entries: Vec<u64>,
    /// Frame lengths; the first one is that of all other comparisons.
    pub frames: Vec<FrameLen>,
    /// Packets in a turn; the first one likewise.
    pub bursts: Vec<usize>,
    /// Table updates a second; the first one likewise.
    pub updates: Vec<u32>,
    /// Runs of each point.
    pub runs: usize,
    /// How long a run is.
    pub run: Duration,
    /// Whether every combination is measured, or only those that differ from the first
    /// one in one thing.
    pub cross: bool,
    /// Whether time is short: of lesser cases nothing is compared, and at the largest size
    /// they are left out.
    pub is_short: bool,
    /// Sizes at which frame lengths and bursts are compared.
    pub compared_at: Vec<u64>,
}

/// The most flows of a NAPT that are measured: beyond it, external addresses by the
/// hundred are what is measured.
pub const MAX_FLOWS: u64 = 4_000_000;

/// Flows that are opened in one run.
const OPENED: u64 = 4000;

const WARM_UP: u64 = 100_000;

const K: u64 = 1000;
const M: u64 = 1_000_000;
const MI16: u64 = 1 << 24;

impl Plan {
    /// Everything.
    pub fn full() -> Plan {
        Plan {
            cases: Case::ALL.map(|(_, case)| case).into(),
            entries: vec![K, 100 * K, M, MI16],
            frames: vec![
                FrameLen::Fixed(64),
                FrameLen::Fixed(512),
                FrameLen::Fixed(1400),
                FrameLen::Imix,
            ],
            bursts: vec![32, 1, 4, 8, 16, 64],
            updates: vec![0, 100_000],
            runs: 21,
            run: Duration::from_millis(4),
            cross: false,
            is_short: false,
            compared_at: vec![K, M],
        }
    }

    /// What a minute allows.
    pub fn quick() -> Plan {
        Plan {
            bursts: vec![32, 1, 8],
            runs: 11,
            run: Duration::from_millis(2),
            is_short: true,
            compared_at: vec![M],
            ..Plan::full()
        }
    }

    /// The boxes that it takes, smallest first: a family and a size each.
    pub fn boxes(&self) -> Vec<(u64, Family)> {
        let mut boxes: Vec<(u64, Family)> = Vec::new();
        for &entries in &self.entries {
            for case in &self.cases {
                let one = (entries, case.family());
                if !boxes.contains(&one) && !self.programme(one.1, entries).is_empty() {
                    boxes.push(one);
                }
            }
        }
        boxes.sort();
        boxes
    }

    /// What is measured on one box.
    pub fn programme(&self, family: Family, entries: u64) -> Vec<Phase> {
        if family == Family::Flows && entries > MAX_FLOWS {
            return Vec::new();
        }
        let mut phases = Vec::new();
        if family == Family::Flows {
            phases.push(self.filling(entries));
        }
        for &case in self.cases.iter().filter(|case| case.family() == family) {
            if self.cross || !is_lesser(case) || entries < MI16 || !self.is_short {
                self.add(&mut phases, case, entries);
            }
        }
        // The filling alone measures nothing.
        if phases.iter().all(|phase| phase.runs == 0) { Vec::new() } else { phases }
    }

    fn add(&self, phases: &mut Vec<Phase>, case: Case, entries: u64) {
        for (f, &len) in self.frames.iter().enumerate() {
            for (b, &burst) in self.bursts.iter().enumerate() {
                for (u, &updates) in self.updates.iter().enumerate() {
                    let others = [f, b, u].iter().filter(|place| **place > 0).count();
                    let compared = self.compared_at.contains(&entries) || (f == 0 && b == 0);
                    let spared = self.is_short && is_lesser(case) && others > 0;
                    if self.cross || (others <= 1 && compared && !spared) {
                        phases.extend(self.phase(case, len, burst, updates, entries));
                    }
                }
            }
        }
    }

    fn phase(
        &self,
        case: Case,
        len: FrameLen,
        burst: usize,
        updates: u32,
        entries: u64,
    ) -> Option<Phase> {
        let of_flows = case.family() == Family::Flows;
        // No binding is updated where there is none; and the frames of a NAPT's case come
        // in by one port, which makes no more than one burst of them.
        if of_flows && (updates > 0 || burst > homeport_dataplane::packet::BURST) {
            return None;
        }
        let runs = self.runs;
        // What is opened stays open: with every repetition there is more in the tables.
        let (order, warm_up, repeats, extent) = match case {
            Case::NaptNew => (Order::Next, 2 * OPENED, 3, Extent::Packets(OPENED)),
            _ => (Order::Random, WARM_UP, 20, Extent::Ticks(cycles::ticks(self.run))),
        };
        Some(Phase { case, len, burst, updates, entries, order, warm_up, runs, repeats, extent })
    }

    /// Opens the flows that the other phases have packets of.
    fn filling(&self, entries: u64) -> Phase {
        Phase {
            case: Case::NaptNew,
            len: FrameLen::Fixed(64),
            burst: homeport_dataplane::packet::BURST,
            updates: 0,
            entries,
            order: Order::Next,
            warm_up: entries,
            runs: 0,
            repeats: 0,
            extent: Extent::Packets(entries),
        }
    }
}

/// Whether a case tells little that another one does not, where time is short.
const fn is_lesser(case: Case) -> bool {
    use crate::case::Kind;
    !matches!(case, Case::Encap(Kind::IpIp) | Case::Decap(Kind::IpIp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_in_both_plans_and_flows_are_opened_first() {
        for plan in [Plan::full(), Plan::quick()] {
            let phases: Vec<Phase> = plan
                .boxes()
                .iter()
                .flat_map(|(entries, family)| plan.programme(*family, *entries))
                .collect();
            for (name, case) in Case::ALL {
                assert!(phases.iter().any(|p| p.case == case && p.runs >= 5), "{name}");
            }
            let flows = plan.programme(Family::Flows, M);
            assert_eq!((flows[0].runs, flows[0].warm_up), (0, M));
            assert!(plan.programme(Family::Flows, MI16).is_empty());
        }
    }

    #[test]
    fn a_plan_of_one_case_measures_just_that() {
        let plan = Plan {
            cases: vec![Case::Forward],
            entries: vec![K],
            frames: vec![FrameLen::Imix],
            bursts: vec![4],
            updates: vec![0],
            cross: true,
            ..Plan::quick()
        };
        assert_eq!(plan.boxes(), [(K, Case::Forward.family())]);
        let phases = plan.programme(Case::Forward.family(), K);
        assert_eq!((phases.len(), phases[0].len, phases[0].burst), (1, FrameLen::Imix, 4));
    }
}
