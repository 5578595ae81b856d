//! Power cuts under load: everything acknowledged was on the disk, not in a cache that forgets.
//!
//! The disk is a real ext4 whose backing store drops what was not flushed (servers/power-disk). Needs root and FUSE; a
//! machine without them fails this test rather than passing it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use compat_tests::checker::Rules;
use compat_tests::clients;
use compat_tests::process::Launch;
use compat_tests::wait::{Dice, alone, scale};
use compat_tests::workload::{Load, Workload};
use tokio::task::block_in_place;

/// The disk, dismantled at the end whatever happens.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    fn control(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/power-disk");
        let output = block_in_place(|| Command::new(script).arg(verb).arg(self.0).output()).expect("power-disk runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "power-disk {verb}: {}\n{said}", output.status);
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/power-disk");
        let _ = Command::new(script).arg("off").arg(self.0).output();
    }
}

async fn cuts(name: &str, idempotent: bool) {
    let _turn = alone().await;
    let mut dice = Dice::new(name);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let machine = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk(folder.path());
    disk.control("on");
    let launch = Launch::new(machine.path()).storage(folder.path().join("mnt/data").to_string_lossy()).busy_upkeep();
    let mut broker = launch.start().await;
    let load = Load::small("cuts", idempotent);
    clients::create_topic(&launch.kafka, &load.topic, load.partitions).await;
    let workload = Workload::start(&launch.kafka, load);
    for _ in 0..scale("WOODPECKER_TEST_POWER_CUTS", 3) {
        workload.progress(200).await;
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(500))).await;
        // The disk goes first: what the broker still acknowledges after it could not have been flushed.
        disk.control("cut");
        broker.kill().await;
        disk.control("off");
        disk.control("on");
        broker = launch.start().await;
    }
    workload.progress(200).await;
    let history = workload.finish(&launch.kafka).await;
    println!("{name}: {} acknowledged, {} unknown", history.acknowledged(), history.unknown());
    history.assert_sound(&Rules::idempotent(), name);
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_a_power_cut() {
    cuts("power cuts, plain producers", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_producers_go_on_after_a_power_cut() {
    cuts("power cuts, idempotent producers", true).await;
}
