//! docs/features.md names only tests that are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_list_of_features_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut functions = BTreeSet::new();
    let mut folders: Vec<PathBuf> =
        ["dataplane", "control", "bench", "tests"].map(|name| root.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the workspace").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
                functions.extend(names.map(str::to_owned));
            }
        }
    }
    let list = std::fs::read_to_string(root.join("docs/features.md")).expect("docs/features.md");
    // Every second piece between backticks is code; a test is `file::name`.
    let named: BTreeSet<&str> = list
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| Some(code.rsplit_once("::")?.1))
        .collect();
    assert!(named.len() > 50, "only {} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "named, but not there: {missing:?}");
}
