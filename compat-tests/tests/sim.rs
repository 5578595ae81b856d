//! The seeds of the simulation. `WOODPECKER_SIM_SEEDS` says how many, `WOODPECKER_SIM_FIRST_SEED` from which one on.
//! `WOODPECKER_SIM_LOG` (trace, debug, ...) shows the brokers' logs of a seed that is replayed alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use compat_tests::sim::boot;
use compat_tests::sim::cluster::Boot;
use compat_tests::sim::fake::{self, Mistake};
use compat_tests::sim::run::{Report, run_seed};

/// Seeds in `make test`.
const SEEDS: u64 = 1_000;
/// After so many failures the rest would only repeat them.
const ENOUGH_FAILURES: usize = 5;
/// Real time for one seed, after which it must be spinning: simulated time does not pass in a loop without a wait.
const SPINNING: Duration = Duration::from_secs(300);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

/// Runs seeds on all cores, one runtime per thread, until there are enough failures. The reports are in order.
fn run_seeds(seeds: Range<u64>, keep_lines: bool, boot: impl Fn() -> Boot + Sync) -> Vec<Report> {
    let (next, failures) = (AtomicU64::new(seeds.start), AtomicUsize::new(0));
    let reports = Mutex::new(Vec::new());
    let (progress, watched) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (progress, next, failures, reports, boot) = (progress.clone(), &next, &failures, &reports, &boot);
            scope.spawn(move || {
                while failures.load(Ordering::Relaxed) < ENOUGH_FAILURES {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    progress.send((seed, true)).expect("watch ends last");
                    let report = run_seed(seed, boot(), keep_lines);
                    progress.send((seed, false)).expect("watch ends last");
                    failures.fetch_add(usize::from(!report.violations.is_empty()), Ordering::Relaxed);
                    reports.lock().expect("no run panics while it holds this").push(report);
                }
            });
        }
        drop(progress);
        scope.spawn(move || watch(&watched));
    });
    let mut reports = reports.into_inner().expect("no run panics while it holds this");
    reports.sort_by_key(|report| report.seed);
    reports
}

/// Ends the process when no seed begins or ends for too long.
fn watch(progress: &Receiver<(u64, bool)>) {
    let mut running = BTreeMap::new();
    loop {
        match progress.recv_timeout(SPINNING) {
            Ok((seed, true)) => drop(running.insert(seed, ())),
            Ok((seed, false)) => drop(running.remove(&seed)),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("spinning: one of the seeds {:?}", running.keys().collect::<Vec<_>>());
                std::process::abort();
            }
        }
    }
}

/// What a failing seed leaves to work with.
fn explain(report: &Report, boot: Boot) -> String {
    let replayed = run_seed(report.seed, boot, true);
    let mut text = format!("\n--- trace of seed {} ---\n{}\n", report.seed, replayed.lines.join("\n"));
    text += &format!("--- seed {}: {} violations ---\n", report.seed, report.violations.len());
    text += &report.violations.iter().take(20).map(|violation| format!("{violation}\n")).collect::<String>();
    if replayed.hash != report.hash {
        text += "the replay took another course: something is not decided by the seed\n";
    }
    text + &format!(
        "--- replay: WOODPECKER_SIM_FIRST_SEED={} WOODPECKER_SIM_SEEDS=1 \
         cargo test -p compat-tests --test sim seeds -- --exact --nocapture\n",
        report.seed
    )
}

#[test]
fn seeds() {
    let first = number("WOODPECKER_SIM_FIRST_SEED", 0);
    let count = number("WOODPECKER_SIM_SEEDS", SEEDS);
    if let Ok(filter) = std::env::var("WOODPECKER_SIM_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let reports = run_seeds(first..first + count, false, boot::node);
    for report in reports.iter().filter(|_| std::env::var_os("WOODPECKER_SIM_HASHES").is_some()) {
        println!("seed {} {:016x}", report.seed, report.hash);
    }
    let failed: Vec<&Report> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    if let Some(worst) = failed.iter().min_by_key(|report| report.events) {
        let others: Vec<u64> = failed.iter().map(|report| report.seed).collect();
        panic!("{} of {} seeds failed: {others:?}{}", failed.len(), reports.len(), explain(worst, boot::node()));
    }
    let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} seeds: {} simulated hours, {} incarnations, {} records acknowledged, {} of unknown outcome; \
         {} offsets committed, {} assignments",
        reports.len(),
        total(|report| report.simulated_ms) / 3_600_000,
        total(|report| u64::from(report.hosts)),
        total(|report| report.acknowledged as u64),
        total(|report| report.unknown as u64),
        total(|report| report.commits as u64),
        total(|report| report.assignments as u64),
    );
    // A simulation in which nothing happens would pass as well.
    let runs = reports.len() as u64;
    assert!(total(|report| u64::from(report.hosts)) >= runs * 3, "too few incarnations");
    assert!(total(|report| report.acknowledged as u64) >= runs * 50, "too few acknowledgements");
    // Two of five seeds have groups.
    let (commits, assignments) = (total(|report| report.commits as u64), total(|report| report.assignments as u64));
    assert!(runs < 20 || commits >= runs * 10, "too few commits");
    assert!(runs < 20 || assignments >= runs * 2, "too few generations");
}

/// Everything is decided by the seed: the same one takes the same course again, in this process and in another one
/// (whose hash maps have other keys).
#[test]
fn same_seed_same_trace() {
    const SAMPLE: Range<u64> = 5_000..5_012;
    let once = run_seeds(SAMPLE, true, boot::node);
    let again = run_seeds(SAMPLE, true, boot::node);
    for (one, other) in once.iter().zip(&again) {
        let differ = one.lines.iter().zip(&other.lines).position(|(one, other)| one != other);
        let at = differ.unwrap_or_default();
        let seen = (one.lines.get(at), other.lines.get(at));
        assert_eq!((one.hash, differ), (other.hash, None), "seed {}: {seen:?}", one.seed);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["seeds", "--exact", "--nocapture"])
        .env("WOODPECKER_SIM_FIRST_SEED", SAMPLE.start.to_string())
        .env("WOODPECKER_SIM_SEEDS", (SAMPLE.end - SAMPLE.start).to_string())
        .env("WOODPECKER_SIM_HASHES", "1")
        .output()
        .unwrap();
    let elsewhere = String::from_utf8(output.stdout).unwrap();
    for report in &once {
        let line = format!("seed {} {:016x}", report.seed, report.hash);
        assert!(elsewhere.contains(&line), "{line} is not what another process found:\n{elsewhere}");
    }
}

/// A sound broker passes, and each mistake is caught within a few seeds: the checks are worth something.
#[test]
fn checks_catch_the_fakes_mistakes() {
    let mistakes = [
        (Mistake::ForgetsLastBatch, "acked-durable"),
        (Mistake::AppendsTwice, "dedup-failover"),
        (Mistake::IgnoresFence, "offset-immutable"),
        (Mistake::AcceptsGaps, "seq-gap-rejected"),
        (Mistake::DamagesRecords, "integrity"),
        (Mistake::NeverHeals, "heals"),
    ];
    for report in run_seeds(0..20, false, || fake::boot(Mistake::None)) {
        let failed = !report.violations.is_empty();
        assert!(!failed, "{}", explain(&report, fake::boot(Mistake::None)));
        assert!(report.acknowledged > 20, "{report:?}");
    }
    for (mistake, name) in mistakes {
        let reports = run_seeds(0..8, false, || fake::boot(mistake));
        let found: Vec<&String> = reports.iter().flat_map(|report| &report.violations).collect();
        assert!(found.iter().any(|violation| violation.starts_with(name)), "{mistake:?} is not {name}: {found:?}");
    }
}
