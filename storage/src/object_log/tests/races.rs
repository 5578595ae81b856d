//! A writer and two recoverers against each other, on a store where everything ambiguous happens, under many seeds.

use parking_lot::Mutex;

use super::*;

/// What one such run came to, for comparing two runs of one seed.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    ends: Vec<Option<u64>>,
    outcomes: Vec<Option<Outcome>>,
    elapsed: Duration,
    counts: meta::faults::Counts,
}

/// Looks for a fence all the time, and notes when the last look began that found the log unfenced.
async fn look_for_fences(log: Arc<dyn Log>, confirmed: Arc<Mutex<Instant>>) {
    loop {
        let began = Instant::now();
        match log.confirm_unfenced().await {
            Ok(()) => *confirmed.lock() = began,
            Err(error) if error.kind() == ErrorKind::Retriable => {}
            Err(_) => return,
        }
        sleep(Duration::from_millis(7)).await;
    }
}

async fn fight(seed: u64) -> Trace {
    let began = Instant::now();
    let ambiguous = FaultPlan::ambiguous(0.25);
    let plan = FaultPlan { latency: Duration::from_millis(1)..=Duration::from_millis(150), ..ambiguous };
    let mut world = World::seeded(seed, plan);
    world.options = WriterOptions {
        flush_interval: Duration::from_millis(10),
        unknown_after: Duration::from_millis(150 + 350 * (seed % 3)),
        call_timeout: Duration::from_millis(120 + 150 * (seed % 2)),
        ..WriterOptions::default()
    };
    let writer = world.writer().await;
    let confirmed = Arc::new(Mutex::new(began));
    let looking = tokio::spawn(look_for_fences(writer.log.clone(), confirmed.clone()));
    let mut fencers = Vec::new();
    let mut pending = Vec::new();
    for offset in 0..80 {
        pending.extend(writer.append([offset]));
        sleep(Duration::from_millis(12)).await;
        if offset == 40 || offset == 42 + (seed % 5) as i64 {
            let (world, sealer) = (world.clone(), if offset == 40 { SEALER } else { OTHER_SEALER });
            fencers.push(tokio::spawn(async move { (world.fence(1, sealer).await, Instant::now()) }));
        }
    }
    let mut ends = Vec::new();
    let mut serves = None;
    for fencer in fencers {
        let (end, at) = fencer.await.unwrap();
        ends.push(end.unwrap());
        serves = Some(serves.map_or(at, |serves: Instant| serves.min(at)));
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "seed {seed}: recoverers disagree: {ends:?}");
    let outcomes = all(&pending).await;
    let told = writer.sink.offsets();
    looking.await.unwrap();
    assert!(Some(*confirmed.lock()) < serves, "seed {seed}: found unfenced after another one could serve");
    // Whatever was still on its way lands now, and then a third recoverer looks.
    world.store.set_plan(FaultPlan::default());
    sleep(Duration::from_secs(60)).await;
    world.store.land_due().await;
    let record = world.recover(1, Incarnation(0x44)).await;
    assert_eq!(record.segments.last().and_then(|last| last.end), Some(ends[0]), "seed {seed}: the end moved");

    let content = world.content(1).await.remove(&partition(1, 0)).unwrap_or_default();
    assert_eq!(content, (0..content.len() as i64).collect::<Vec<_>>(), "seed {seed}: contiguous, in order, once");
    for (offset, outcome) in outcomes.iter().enumerate() {
        let is_content = offset < content.len();
        match outcome {
            Outcome::Durable => assert!(is_content, "seed {seed}: {offset} was acknowledged and is lost"),
            Outcome::Fenced => assert!(!is_content, "seed {seed}: {offset} was refused and is there"),
            Outcome::Unknown => {}
        }
    }
    assert!(told.iter().map(|(_, offset)| *offset).eq(0..told.len() as i64), "seed {seed}: told in order");
    assert!(told.len() <= content.len(), "seed {seed}: told of what is not there");
    let ends = record.segments.iter().map(|segment| segment.end).collect();
    let outcomes = pending.iter().map(Pending::outcome).collect();
    Trace { ends, outcomes, elapsed: began.elapsed(), counts: world.store.counts() }
}

#[tokio::test(start_paused = true)]
async fn a_writer_and_two_recoverers_always_agree() {
    let (mut rolled, mut durable, mut fenced) = (0, 0, 0);
    for seed in 0..120 {
        let trace = fight(seed).await;
        rolled += usize::from(trace.ends.len() > 1);
        durable += trace.outcomes.iter().filter(|outcome| **outcome == Some(Outcome::Durable)).count();
        fenced += trace.outcomes.iter().filter(|outcome| **outcome == Some(Outcome::Fenced)).count();
    }
    println!("rolled in {rolled} of 120 runs; {durable} entries durable, {fenced} fenced");
    assert!(rolled > 0 && durable > 0 && fenced > 0, "the runs reach what they are for");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    for seed in [3, 17, 40] {
        assert_eq!(fight(seed).await, fight(seed).await);
    }
}
