//! Recorded lives of agents, run again: each folder of tests/conformance/ that holds a
//! journal of `homeportd --record` must give the actions that it has.
//!
//! A user's trouble becomes a test by copying the folder there. Where a change of
//! behaviour is meant, `HOMEPORT_REGENERATE=1` writes the actions of now into the
//! journals, and the diff shows what has changed.

use std::path::{Path, PathBuf};

use homeport_control::journal::{Finding, Replay, replay};

fn journals() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("tests/conformance")
        .map(|entry| entry.expect("a folder").path())
        .filter(|path| path.join("000001.jsonl").exists())
        .collect();
    folders.sort();
    folders
}

/// Row B-08.
#[test]
fn every_recorded_journal_gives_the_actions_that_it_has() {
    let regenerate = std::env::var_os("HOMEPORT_REGENERATE").is_some();
    let mut told = String::new();
    let mut inputs = 0;
    let folders = journals();
    for folder in &folders {
        let mut found = |finding: Finding| told += &format!("{}: {finding}\n", folder.display());
        let how = Replay { regenerate, ..Replay::default() };
        let summary = replay(folder, how, &mut found).expect("a journal that can be run");
        inputs += summary.inputs;
    }
    assert!(folders.len() >= 2 && inputs > 50, "{} journals, {inputs} inputs", folders.len());
    if regenerate {
        println!("{told}");
    } else {
        assert!(
            told.is_empty(),
            "{told}\nIf this is meant: HOMEPORT_REGENERATE=1, and look at the diff."
        );
    }
}
