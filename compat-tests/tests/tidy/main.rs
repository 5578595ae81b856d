//! The house rules that a compiler does not check, as tests over the text of the whole tree.
//!
//! Every rule is a function from sources to complaints. Each has a self-test beside it in `planted.rs`, which breaks the
//! rule on purpose and requires the complaint: a rule that finds nothing anywhere proves nothing.

mod modules;
mod planted;
mod rules;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

use source::Source;

/// The folder that holds the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace").to_owned()
}

/// Every text file that git knows or would know, with its path from the root.
fn tree() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let sources: Vec<Source> = names
        .split_terminator('\0')
        .filter_map(|name| std::fs::read_to_string(root().join(name)).ok().map(|text| Source::new(name, &text)))
        .collect();
    assert!(sources.iter().any(|s| s.path == "Cargo.toml"), "the tree has no Cargo.toml: nothing was read");
    sources
}

fn clean(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn files_are_short() {
    clean(rules::long_files(&tree()));
}

#[test]
fn functions_are_short() {
    clean(rules::long_functions(&tree()));
}

#[test]
fn files_say_what_they_are_for() {
    clean(rules::missing_heads(&tree()));
}

#[test]
fn no_test_is_ignored() {
    clean(rules::ignored_tests(&tree()));
}

#[test]
fn properties_write_no_files() {
    clean(rules::written_regressions(&tree()));
}

#[test]
fn no_forbidden_words() {
    clean(rules::forbidden_words(&tree()));
}

#[test]
fn only_known_entries_at_the_top() {
    clean(rules::top_level(&tree()));
}

#[test]
fn crates_depend_downwards() {
    clean(modules::crate_back_edges(&tree()));
}

#[test]
fn modules_depend_downwards() {
    clean(modules::module_back_edges(&tree()));
}
