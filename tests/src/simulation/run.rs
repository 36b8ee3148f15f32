//! One plan from its begin to the verdict.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use super::oracle::{Rule, Violation};
use super::plan::{BEGIN, MAX_LIFETIME, Plan};
use super::world::World;

/// What came of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The rule that was broken first.
    pub violation: Option<Violation>,
    /// The virtual time that passed.
    pub lasted: Duration,
    /// How many frames links carried.
    pub carried: u64,
    /// A digest of every frame: when, where, what.
    pub digest: u64,
    /// What happened, if it was to be told.
    pub story: Vec<(Duration, String)>,
}

/// How much of what happens is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Telling {
    /// Nothing.
    Nothing,
    /// What the plan does, and the events of boxes and nodes.
    Events,
    /// Also why each message was answered as it was.
    Decisions,
}

/// An agent that denied or did not answer is passed over for as long as this.
const REFUSAL: Duration = Duration::from_secs(320);
/// A denial is waited out for as long as this: 64 s and a tenth.
const DENIAL: Duration = Duration::from_secs(71);
/// The longest wait for a reply, twice: the request behind the first may be lost in
/// what was still wrong.
const RETRANSMISSION: Duration = Duration::from_secs(32);
/// A pending request is given up, and a mark that is ahead of the clock is no obstacle
/// any more.
const WINDOWS: Duration = Duration::from_secs(14);
/// By then every binding and visitor has been renewed, and no window is shut.
const SETTLED: Duration = Duration::from_secs(20);

/// How long it takes at most, when nothing is wrong any more, until every node is
/// reached: agents that are gone are given up after three advertisements, a home agent
/// that has forgotten a node hears of it when its lifetime is over at the latest.
pub fn bound(plan: &Plan) -> Duration {
    plan.shape.interval * 3 + MAX_LIFETIME + REFUSAL + DENIAL + RETRANSMISSION + WINDOWS
}

/// Runs a plan.
pub fn run(plan: &Plan, telling: Telling) -> Report {
    catch_panics();
    let mut world = None;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(plan, telling));
        drive(world, plan)
    }));
    let lasted = world.as_ref().map_or(Duration::ZERO, World::lasted);
    let violation = match result {
        Ok(outcome) => outcome.err(),
        Err(_) => {
            let what = PANIC.with_borrow_mut(std::mem::take);
            Some(Violation { at: BEGIN + lasted, rule: Rule::Panic, what })
        }
    };
    Report {
        violation,
        lasted,
        carried: world.as_ref().map_or(0, World::carried),
        digest: world.as_ref().map_or(0, World::digest),
        story: world.as_ref().map_or(Vec::new(), |world| world.story().to_vec()),
    }
}

fn drive(world: &mut World, plan: &Plan) -> Result<(), Violation> {
    world.run_plan()?;
    world.heal();
    // Strangers may go on a little.
    let last = plan.events().map(|(_, event)| BEGIN + event.at).max().unwrap_or_default();
    let begun = world.elapsed().max(last);
    reach_everybody(world, begun, bound(plan))?;
    world.run_until(begun + SETTLED)?;
    let latest = begun + SETTLED + MAX_LIFETIME;
    while world.is_misled() && world.elapsed() < latest {
        world.run_until(world.elapsed() + Duration::from_secs(1))?;
    }
    lose_nothing(world, MAX_LIFETIME + plan.shape.interval * 3)
}

/// Every node is reached, and answers; and its devices have addresses, as far as there
/// are any.
fn reach_everybody(world: &mut World, begun: Duration, bound: Duration) -> Result<(), Violation> {
    let mut waited_for: Vec<(usize, u64)> = Vec::new();
    for node in world.present() {
        let first = world.listen(node);
        waited_for.push((node, first));
    }
    let mut unserved = world.unserved();
    while !waited_for.is_empty() || !unserved.is_empty() {
        if world.elapsed() >= begun + bound {
            let who: Vec<String> =
                waited_for.iter().map(|(node, _)| world.describe(*node)).collect();
            if waited_for.is_empty() {
                let what = format!("after {bound:?} without address: {}", unserved.join("; "));
                return Err(Violation { at: world.elapsed(), rule: Rule::Addresses, what });
            }
            let what = format!("after {bound:?} not reached: {}", who.join("; "));
            return Err(Violation { at: world.elapsed(), rule: Rule::Reachability, what });
        }
        world.run_until(world.elapsed() + Duration::from_millis(500))?;
        let mut left = Vec::new();
        for (node, first) in waited_for {
            if world.answered(node, first)?.is_empty() {
                left.push((node, first));
            }
        }
        waited_for = left;
        unserved = world.unserved();
    }
    Ok(())
}

/// Every datagram comes back.
fn lose_nothing(world: &mut World, lasts: Duration) -> Result<(), Violation> {
    let present: Vec<(usize, u64)> =
        world.present().into_iter().map(|node| (node, world.listen(node))).collect();
    let devices = world.listen_to_devices();
    world.run_until(world.elapsed() + lasts)?;
    let devices: Vec<((usize, usize), u64, u64)> = devices
        .into_iter()
        .filter_map(|(peer, first)| Some((peer, first, world.hush_peer(peer)?)))
        .collect();
    let present: Vec<(usize, u64, u64)> =
        present.into_iter().map(|(node, first)| (node, first, world.hush(node))).collect();
    world.run_until(world.elapsed() + Duration::from_secs(1))?;
    for (node, first, last) in present {
        let answered = world.answered(node, first)?;
        if let Some(lost) = (first..=last).find(|number| !answered.contains(number)) {
            let who = world.describe(node);
            let count = (first..=last).filter(|number| !answered.contains(number)).count();
            let what = format!("{count} of {} lost, {lost:x} first: {who}", last - first + 1);
            return Err(Violation { at: world.elapsed(), rule: Rule::Loss, what });
        }
    }
    for (peer, first, last) in devices {
        let answered = world.answers_of_device(peer);
        let lost = || (first..=last).filter(|number| !answered.contains(number));
        if let Some(number) = lost().next() {
            let (who, count) = (world.describe_peer(peer), lost().count());
            let what = format!("{count} of {} lost, {number:x} first: {who}", last - first + 1);
            return Err(Violation { at: world.elapsed(), rule: Rule::Loss, what });
        }
    }
    Ok(())
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lets a panic say where it was, to who asks, instead of to everybody.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let what = info.to_string();
            if info.location().is_some_and(|at| at.file().contains("tests/tests")) {
                before(info);
            }
            PANIC.with_borrow_mut(|last| *last = what);
        }));
    });
}
