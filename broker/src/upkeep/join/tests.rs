//! Runs joined into long objects: every byte where it belongs, whatever the lengths of parts, windows and objects, and
//! nothing is passed on that is damaged.

use meta::faults::{Fault, FaultPlan, FaultStore, Operation};
use meta::seams::Random;
use object_store::ObjectStore;
use storage::error::Error;
use storage::samples::{bytes_of, entry, partition};
use tokio::time::{Instant, sleep};

use super::*;

const SELF: Incarnation = Incarnation(9);
const SECOND: Duration = Duration::from_secs(1);

struct Sample {
    store: FaultStore,
    jobs: Vec<Job>,
    /// By job: the bytes of all entries, in order.
    expected: Vec<Vec<u8>>,
}

/// Objects of an earlier start with runs of four partitions, some of which nobody wants any more.
async fn sample(random: &Random) -> Sample {
    let below = |n: u64| random.next_u64() % n;
    let store = FaultStore::in_memory();
    let objects = TieredObjects::new(Arc::new(store.clone()));
    let mut jobs: Vec<Job> = (0..4)
        .map(|number| Job {
            partition: partition(5, number),
            runs: Vec::new(),
            segment_bytes: [1_000, u64::MAX][below(2) as usize],
            span_ms: [3, i64::MAX][below(2) as usize],
            filter: None,
        })
        .collect();
    let (mut expected, mut next) = (vec![Vec::new(); 4], [0_i64; 4]);
    for object in 0..1 + below(12) {
        let mut builder = TieredBuilder::new(1, object);
        for place in (0..4_usize).filter(|place| *place == 0 || below(3) > 0) {
            builder.begin_run(jobs[place].partition, next[place], 3);
            for _ in 0..1 + below(8) {
                let entry = entry(jobs[place].partition, next[place], 1 + below(3) as i64, 10 + below(300) as usize);
                next[place] = entry.meta.last_offset + 1;
                let length = entry.len() as u32;
                let indexed = IndexedEntry { meta: entry.meta, position: 0, length, checksum: entry.checksum() };
                builder.push(&indexed, [bytes_of(&entry).into()]);
                expected[place].extend(bytes_of(&entry));
            }
            // Compaction has taken some away.
            next[place] += below(3) as i64;
            builder.end_run(next[place]);
        }
        let encoded = builder.finish(Incarnation(1));
        for indexed in &encoded.index.runs {
            let job = jobs.iter_mut().find(|job| job.partition == indexed.partition).unwrap();
            job.runs.push(indexed.run);
        }
        objects.write(encoded).await.unwrap();
    }
    if below(2) == 0 {
        jobs[1].runs.clear();
        expected[1].clear();
    }
    Sample { store, jobs, expected }
}

fn joiner(store: &FaultStore, random: &Random) -> Joiner {
    let (end, uploads) = super::super::uploads::uploads();
    // Dropped, it would end them.
    std::mem::forget(end);
    let pick = |of: [usize; 3]| of[(random.next_u64() % 3) as usize];
    Joiner {
        objects: TieredObjects::new(Arc::new(store.clone())),
        budget: Budget::new(1 << 30),
        numbers: Arc::default(),
        uploads,
        log: 2,
        incarnation: SELF,
        limits: Limits {
            object_bytes: pick([1, 2_000, 1 << 20]) as u64,
            entries: pick([1, 20, 10_000]),
            parts: Parts {
                bytes: pick([50, 333, 1 << 20]),
                at_once: pick([1, 2, 3]),
                allowed: random.next_u64().is_multiple_of(2),
                reads_back: true,
            },
            reads: pick([1, 8, 16]),
            windows_bytes: pick([1, 100_000, 1 << 20]),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn every_byte_is_where_it_belongs() {
    for seed in 0..60 {
        let random = Random::from_seed(seed);
        let Sample { store, jobs, expected } = sample(&random).await;
        let joiner = joiner(&store, &random);
        let joined = joiner.join(&jobs, &mut Vec::new()).await.unwrap();
        assert!(joined.objects.iter().all(|id| id.log == 2 && id.is_tiered()), "seed {seed}");
        for ((job, runs), expected) in jobs.iter().zip(&joined.runs).zip(&expected) {
            let mut found = Vec::new();
            for run in runs {
                let entries = joiner.objects.read_run_index(run).await.unwrap();
                let data = joiner.objects.read(run.fragment, run.position, run.length).await.unwrap();
                let all: Vec<&IndexedEntry> = entries.iter().collect();
                verify(&data, &all).unwrap();
                found.extend_from_slice(&data);
                let times = || entries.iter().map(|entry| entry.meta.max_timestamp);
                let span_ms = times().max().unwrap() - times().min().unwrap();
                assert!(span_ms <= job.span_ms && (u64::from(run.length) <= job.segment_bytes || entries.len() == 1));
            }
            assert_eq!(&found, expected, "seed {seed}, {}", job.partition);
            let ends = |runs: &[Run]| Some((runs.first()?.base_offset, runs.last()?.next_offset));
            assert_eq!(ends(runs), ends(&job.runs), "seed {seed}, {}", job.partition);
        }
    }
}

/// Bytes that were damaged on their way are read once more; what is damaged where it lies is not passed on.
#[tokio::test(start_paused = true)]
async fn damage_is_found() {
    let random = Random::from_seed(7);
    let Sample { store, jobs, .. } = sample(&random).await;
    for nth in 0..4 {
        store.script(Operation::Get, "tiered", nth, Fault::BitFlip);
    }
    joiner(&store, &random).join(&jobs, &mut Vec::new()).await.unwrap();
    let first = jobs[0].runs[0];
    let key = first.fragment.key();
    let mut bytes = store.inner().get_opts(&key, Default::default()).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[first.position as usize + 30] ^= 1;
    store.inner().put_opts(&key, bytes.into(), Default::default()).await.unwrap();
    let error = joiner(&store, &random).join(&jobs, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { key: found, .. } if *found == key.to_string()), "{error}");
}

/// What comes next is read while what came before is being written.
#[tokio::test(start_paused = true)]
async fn reads_go_on_while_nobody_waits_for_them() {
    let random = Random::from_seed(3);
    let Sample { store, jobs, .. } = sample(&random).await;
    let pieces: Vec<Piece> = jobs.iter().flat_map(|job| &job.runs).map(index_piece).collect();
    assert!(pieces.len() > 2, "{}", pieces.len());
    store.set_plan(FaultPlan::slow(SECOND..=SECOND));
    let mut sources = Sources::new(TieredObjects::new(Arc::new(store)), pieces.iter().copied(), 1, 2);
    sources.next(pieces[0]).await.unwrap();
    sleep(SECOND).await;
    let began = Instant::now();
    sources.next(pieces[1]).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// However short they are.
#[test]
fn what_is_remembered_of_runs_is_paid_for() {
    let run = |number: i64| Run {
        fragment: FragmentId::tiered(1, 0),
        base_offset: number,
        next_offset: number + 1,
        max_timestamp: 5,
        leader_epoch: 1,
        file_position: 0,
        position: 80,
        length: 1,
        index_position: 180,
        index_length: 1,
    };
    let jobs = |runs: i64| {
        let runs = (0..runs).map(run).collect();
        [Job { partition: partition(5, 0), runs, segment_bytes: 1, span_ms: 1, filter: None }]
    };
    let limits = joiner(&FaultStore::in_memory(), &Random::from_seed(0)).limits;
    let joined = limits.memory_bytes(&jobs(1_001)) - limits.memory_bytes(&jobs(1));
    assert!(joined >= 1_000 * JOINED_RUN_BYTES, "{joined}");
    let kept = rewrite::memory_bytes(&jobs(1_001)) - rewrite::memory_bytes(&jobs(1));
    assert!(kept >= 3 * 1_000 * size_of::<Run>(), "{kept}");
}

/// Nothing that is cached goes for a merge while it can be expected to find room, and little of it afterwards.
#[tokio::test(start_paused = true)]
async fn what_can_wait_takes_what_is_free_and_later_less() {
    let random = Random::from_seed(8);
    let Sample { store, jobs, expected } = sample(&random).await;
    let mut joiner = joiner(&store, &random);
    let parts = Parts { bytes: 40 << 20, at_once: 1, allowed: true, reads_back: true };
    joiner.limits = Limits { object_bytes: 1 << 30, entries: 10_000, parts, reads: 8, windows_bytes: 1_000 };
    joiner.budget = Budget::new(10_000_000);
    let paid = joiner.pay_patiently(&jobs, 77).await;
    let whole_bytes = joiner.limits.memory_bytes(&jobs) + 77;
    assert_eq!(paid.bytes(), whole_bytes, "what is free is taken at once");
    drop(paid);
    let cached = Arc::new(parking_lot::Mutex::new(joiner.budget.take_if_free(10_000_000 - whole_bytes + 1)));
    let cache = cached.clone();
    joiner.budget.on_shortage(Arc::new(move || cache.lock().take().is_some()));
    let began = Instant::now();
    let (waiting, all) = (joiner.pay_patiently(&jobs, 77), async {
        sleep(PATIENCE - Duration::from_secs(1)).await;
        cached.lock().is_some()
    });
    let (paid, was_there) = tokio::join!(waiting, all);
    assert!(was_there && began.elapsed() == PATIENCE && paid.bytes() < whole_bytes, "{paid:?} of {whole_bytes}");
    assert_eq!((joiner.limits.windows_bytes, joiner.limits.parts.bytes), (250, 10 << 20));
    let joined = joiner.join(&jobs, &mut Vec::new()).await.unwrap();
    let lengths = joined.runs.iter().map(|runs| runs.iter().map(|run| run.length as usize).sum::<usize>());
    assert!(lengths.eq(expected.iter().map(Vec::len)), "it does all the same");
    assert_eq!(joiner.limits.less().parts.bytes, LEAST_PART_BYTES, "no shorter than what stores take");
}
