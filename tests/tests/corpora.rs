//! What fuzzing has found worth keeping: every file of every corpus, through its target.

use std::path::Path;

use homeport_tests::fuzz::{TARGETS, find};

/// Reliability, attacks 12 and 34; row B-09.
// Shows attack-12, attack-34.
#[test]
fn every_file_of_every_corpus_goes_through_its_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files = 0;
    for target in TARGETS {
        let folder = std::fs::read_dir(root.join(target.name));
        let folder =
            folder.unwrap_or_else(|error| panic!("the corpus of {}: {error}", target.name));
        let mut paths: Vec<_> = folder.map(|entry| entry.expect("a file").path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "the corpus of {} is empty", target.name);
        for path in paths {
            let data = std::fs::read(&path).expect("a file of a corpus");
            let ran = std::panic::catch_unwind(|| (target.run)(&data));
            assert!(
                ran.is_ok(),
                "{} fails: scripts/fuzz {} {}",
                target.name,
                target.name,
                path.display()
            );
            files += 1;
        }
    }
    assert!(files > 100, "only {files} files");
    // A folder without a target is never looked at.
    for entry in std::fs::read_dir(root).expect("tests/fuzz/corpus") {
        let name = entry.expect("a folder").file_name();
        assert!(name.to_str().and_then(find).is_some(), "no target {}", name.display());
    }
}
