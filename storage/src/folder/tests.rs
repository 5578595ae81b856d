//! Tests of the folder lock: who is refused, and what that changes (nothing).

use meta::error::ErrorKind;

use super::*;

fn lock(root: &Path) -> Result<Folder> {
    Folder::lock(root, Incarnation(7), 1234)
}

#[test]
fn the_second_is_refused_by_the_owners_pid_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = lock(dir.path()).unwrap();
    let content = fs::read(dir.path().join(LOCK_FILE)).unwrap();
    let error = Folder::lock(dir.path(), Incarnation(8), 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(text.contains(&Incarnation(7).to_string()), "{text}");
    assert_eq!(fs::read(dir.path().join(LOCK_FILE)).unwrap(), content);
    assert!(lock(dir.path()).is_err(), "a refusal does not release it");
    drop(first);
    lock(dir.path()).unwrap();
}

#[test]
fn what_a_dead_owner_wrote_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let stale = "pid 999999\nincarnation 0123\nstarted_ms 5\nand much more text than a new owner writes".repeat(20);
    fs::write(dir.path().join(LOCK_FILE), stale).unwrap();
    let held = lock(dir.path()).unwrap();
    let content = fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap();
    assert_eq!(content, format!("pid {}\nincarnation {}\nstarted_ms 1234\n", std::process::id(), Incarnation(7)));
    drop(held);
}

#[test]
fn an_owner_that_has_not_signed_yet_still_owns() {
    let dir = tempfile::tempdir().unwrap();
    let held = lock(dir.path()).unwrap();
    fs::write(dir.path().join(LOCK_FILE), [0xFF, 0xFE]).unwrap();
    let text = lock(dir.path()).unwrap_err().to_string();
    assert!(text.contains("in use by another process"), "{text}");
    drop(held);
}

#[test]
fn a_missing_path_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let folder = lock(&dir.path().join("a/b/c")).unwrap();
    assert!(folder.root().is_absolute() && folder.root().ends_with("a/b/c"));
    let file = dir.path().join("a-file");
    fs::write(&file, b"").unwrap();
    assert_eq!(lock(&file).unwrap_err().kind(), ErrorKind::Retriable);
}

#[test]
fn what_was_not_complete_when_its_writer_died_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = lock(dir.path()).unwrap();
    assert_eq!(folder.remove_unfinished().unwrap(), 0);
    let tiered = dir.path().join("logs/0000000001/tiered");
    fs::create_dir_all(&tiered).unwrap();
    fs::create_dir_all(dir.path().join("meta/journal")).unwrap();
    let kept = ["000000000001.frag", "#", "x#1y"];
    for name in kept.iter().chain(&["000000000002.frag#1", "000000000001.frag#17"]) {
        fs::write(tiered.join(name), "x").unwrap();
    }
    fs::write(dir.path().join("meta/journal/5#2"), "x").unwrap();
    fs::write(dir.path().join("other#1"), "x").unwrap();
    assert_eq!(folder.remove_unfinished().unwrap(), 3);
    assert!(kept.iter().all(|name| tiered.join(name).exists()));
    assert!(dir.path().join("other#1").exists(), "it is none of ours");
}
