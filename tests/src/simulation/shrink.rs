//! The least of a plan that still breaks the same rule.

use super::oracle::Rule;
use super::plan::Plan;
use super::run::{Telling, run};

/// Runs that a shrinking takes at most.
const MOST: usize = 600;

/// Leaves out of `plan` whatever it breaks `rule` without. `tell` hears of each success:
/// after how many runs, and how much is left.
pub fn shrink(plan: &Plan, rule: Rule, tell: impl FnMut(usize, usize)) -> Plan {
    least(
        plan,
        |plan| run(plan, Telling::Nothing).violation.is_some_and(|one| one.rule == rule),
        tell,
    )
}

/// Leaves out of `plan` whatever it `fails` without: halves, then quarters, down to
/// single events, nodes and kinds of faults, again and again.
pub fn least(
    plan: &Plan,
    fails: impl Fn(&Plan) -> bool,
    mut tell: impl FnMut(usize, usize),
) -> Plan {
    let mut least = plan.clone();
    let mut runs = 0;
    let mut size = least.items.len().div_ceil(2);
    while size > 0 && runs < MOST {
        let mut begin = 0;
        let mut smaller = false;
        while begin < least.items.len() && runs < MOST {
            let numbers = least.numbers();
            let end = (begin + size).min(numbers.len());
            let kept: Vec<usize> = [&numbers[..begin], &numbers[end..]].concat();
            let candidate = least.keeping(&kept);
            runs += 1;
            if fails(&candidate) {
                least = candidate;
                smaller = true;
                tell(runs, least.items.len());
            } else {
                begin = end;
            }
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if !smaller {
            size = 0;
        }
    }
    least
}
