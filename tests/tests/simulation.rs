//! The simulation itself: it finds nothing wrong where nothing is, the same each time,
//! and finds and shrinks what is.

use homeport_tests::simulation::plan::{Item, Plan, What};
use homeport_tests::simulation::run::{Telling, run};
use homeport_tests::simulation::shrink::least;

/// Row B-09. `scripts/simulate` runs many more.
#[cfg(not(feature = "planted-bugs"))]
#[test]
fn dozens_of_seeds_break_no_rule() {
    let mut lasted = std::time::Duration::ZERO;
    for seed in 1..=24 {
        let report = run(&Plan::draw(seed), Telling::Nothing);
        assert_eq!(report.violation, None, "repeat it: scripts/simulate --seed {seed}");
        assert!(report.carried > 500, "seed {seed}: only {} frames", report.carried);
        lasted += report.lasted;
    }
    assert!(lasted.as_secs() > 24 * 60, "only {lasted:?} were simulated");
}

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn the_same_seed_carries_the_same_frames() {
    let mut digests = std::collections::BTreeSet::new();
    for seed in [101, 102, 103] {
        let plan = Plan::draw(seed);
        let (told, silent) = (run(&plan, Telling::Events), run(&plan, Telling::Nothing));
        assert!(told.story.len() > 50, "a story that is worth telling");
        assert_eq!(told.digest, silent.digest, "seed {seed}");
        assert_eq!((told.carried, told.lasted), (silent.carried, silent.lasted), "seed {seed}");
        assert!(digests.insert(told.digest), "seed {seed} is like another one");
    }
}

/// Leaving things out leaves the rest as it was drawn.
#[test]
fn a_plan_shrinks_to_what_it_fails_by() {
    let plan = Plan::draw(7);
    let is_move =
        |item: &Item| matches!(item, Item::Event(event) if matches!(event.what, What::Move { .. }));
    let moves = plan.items.iter().filter(|(_, item)| is_move(item)).map(|(number, _)| *number);
    let moves: Vec<usize> = moves.collect();
    let (first, last) = moves.first().copied().zip(moves.last().copied()).expect("moves");
    let wanted = [0, first, last];
    let fails = |plan: &Plan| wanted.iter().all(|number| plan.numbers().contains(number));
    let mut told = 0;
    let shrunk = least(&plan, fails, |_, _| told += 1);
    assert_eq!(shrunk.numbers(), wanted);
    assert!(told > 0);
    let kept = plan.keeping(&wanted);
    assert_eq!(format!("{:?}", kept.items), format!("{:?}", shrunk.items));
    // A part of a plan runs like any other.
    assert_eq!(run(&kept, Telling::Nothing), run(&kept, Telling::Nothing));
}

/// Each is known by the rule that it breaks. `scripts/simulate --planted` plants them all.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found_and_shrunk() {
    use homeport_tests::simulation::oracle::Rule;
    use homeport_tests::simulation::planted;
    use homeport_tests::simulation::shrink::shrink;

    for (name, rule) in
        [("equal-identification", Rule::Replay), ("expiry-keeps-entry", Rule::Tables)]
    {
        planted::plant(name).expect("a planted bug");
        let broken = (1..=60).find_map(|seed| {
            let plan = Plan::draw(seed);
            run(&plan, Telling::Nothing).violation.map(|violation| (plan, violation))
        });
        let (plan, violation) = broken.unwrap_or_else(|| panic!("{name} was not found"));
        assert_eq!(violation.rule, rule, "{name}: {violation}");
        let least = shrink(&plan, rule, |_, _| {});
        assert!(least.items.len() * 2 < plan.items.len(), "{name}: {} left", least.items.len());
        let again = run(&least, Telling::Events);
        assert_eq!(again.violation.map(|one| one.rule), Some(rule), "{name}");
        assert!(!again.story.is_empty());
    }
    assert!(planted::names().len() >= 10);
    assert!(planted::plant("no-such-bug").is_err());
}
