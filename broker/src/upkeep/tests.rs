//! Upkeep of a whole broker: what it costs, what it leaves, what wakes it, and that crashes in the middle of it do no harm.

mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use meta::faults::{Fault, FaultPlan, Operation};
use object_store::ObjectStore;
use object_store::path::Path;
use storage::log::Outcome;
use storage::metered::{Kind, Purpose};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::*;
use crate::node::Ended;
use crate::partition::Partition;

use self::rig::{Rig, Running, objects, runs};

/// The defaults, but for every length, of which it is this fraction: a broker at load can be watched for an hour.
const SCALE: usize = 1024;

fn scaled() -> BrokerConfig {
    let config = BrokerConfig::default();
    BrokerConfig {
        tail_bytes: config.tail_bytes / SCALE,
        flush_bytes: config.flush_bytes / SCALE,
        flush_interval: Duration::from_secs(1),
        tier: crate::config::TierConfig {
            bytes: config.tier.bytes / SCALE,
            object_bytes: config.tier.object_bytes / SCALE,
            merge_object_bytes: config.tier.merge_object_bytes / SCALE,
            merge_part_bytes: config.tier.merge_part_bytes / SCALE,
            ..config.tier
        },
        ..config
    }
}

/// At load a fragment is as long as they get. With 32 of them (256 MiB) come: an object of 11 parts (10 of 24 MiB, and the
/// rest with the index), its beginning and its completion; a part of the manifest, and the metadata's record of it: 15.
/// 47 / 32 = 1.47; fragments that exceed `flush_bytes` by their last batch make it 1.44 here.
#[tokio::test(start_paused = true)]
async fn an_hour_at_load_costs_at_most_one_and_a_half_puts_per_fragment() {
    let rig = Rig::new(1, scaled());
    let (running, _) = rig.start().await;
    let running = Arc::new(running);
    let topic = running.create("t", 40, &[]).await;
    let all: Vec<_> = (0..40).map(|number| running.partition(topic, number)).collect();
    let (began, before) = (Instant::now(), running.puts());
    let mut appends = tokio::task::JoinSet::new();
    for number in 0_usize.. {
        if began.elapsed() >= Duration::from_secs(3600) {
            break;
        }
        // 20 KiB/s, of 1 KiB each.
        let (partition, running) = (all[number * 7 % 40].clone(), running.clone());
        appends.spawn(async move { assert_eq!(running.append(&partition, 1, 900).await, Outcome::Durable) });
        sleep(Duration::from_millis(50)).await;
        while let Some(joined) = appends.try_join_next() {
            joined.unwrap();
        }
    }
    let bytes: usize = all.iter().flat_map(|partition| runs(partition)).map(|run| run.length as usize).sum();
    let per_flush = (running.puts() - before) as f64 / (bytes as f64 / rig.config.flush_bytes as f64);
    println!("{per_flush:.3} PUTs per flush_bytes");
    assert!(per_flush <= 1.5, "{per_flush}");
    running.settled().await;
    let objects = objects(&all).len();
    assert!(objects <= bytes / rig.config.tier.merge_object_bytes * 2 + 24, "{objects} objects of {bytes} bytes");
}

/// A store that takes 100 ms for every request, and 160 KiB a second: of a round of 256 KiB the 11 parts alone take 1.1 s
/// one after the other, and all else about half a second.
#[tokio::test(start_paused = true)]
async fn tiering_keeps_up_with_a_store_that_answers_late() {
    let mut config = scaled();
    // This store deletes one after the other.
    config.tier.delete_delay = Duration::from_secs(3600);
    let rig = Rig::new(11, config);
    let (running, _) = rig.start().await;
    let running = Arc::new(running);
    let topic = running.create("t", 4, &[]).await;
    let all: Vec<_> = (0..4).map(|number| running.partition(topic, number)).collect();
    rig.bucket.set_plan(FaultPlan::slow(ms(100)..=ms(100)));
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..20_000 {
        let (partition, running) = (all[number % 4].clone(), running.clone());
        appends.spawn(async move { assert_eq!(running.append(&partition, 1, 900).await, Outcome::Durable) });
        sleep(ms(6)).await;
        while let Some(joined) = appends.try_join_next() {
            joined.unwrap();
        }
    }
    let left = running.node.broker().partitions.backlog().bytes();
    assert!(left <= 4 * rig.config.tier.bytes as u64, "{left} bytes are waiting");
}

/// Many partitions have little each: a round has no more runs than memory allows, and what was overdue is done all the same.
#[tokio::test(start_paused = true)]
async fn a_round_of_many_runs_is_several() {
    // Everything is moved from memory, which takes no other, and nothing is merged.
    let tier = crate::config::TierConfig { merge_object_bytes: 0, ..BrokerConfig::default().tier };
    let small = BrokerConfig { memory_bytes: 4 << 20, tail_bytes: 2 << 20, tier, ..BrokerConfig::default() };
    let small = BrokerConfig { request_max_bytes: 1 << 20, message_max_bytes: 1 << 19, flush_bytes: 1 << 20, ..small };
    // 128 KiB for runs.
    let most_runs = (4 << 20) / ROUND_SHARE / RUN_MEMORY_BYTES;
    let rig = Rig::new(6, small);
    let (running, _) = rig.start().await;
    let topic = running.create("t", 100, &[]).await;
    let all: Vec<_> = (0..100).map(|number| running.partition(topic, number)).collect();
    let began = Instant::now();
    for _ in 0..20 {
        futures::future::join_all(all.iter().map(|partition| running.append(partition, 1, 100))).await;
    }
    let total_runs: usize = all.iter().map(|partition| runs(partition).len()).sum();
    assert!(total_runs >= 2_000 && began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let broker = running.node.broker();
    let commits = || running.counters.of(Purpose::Manifests).requests(Kind::Put);
    let (before, mut peak) = (commits(), 0);
    rig.bucket.set_plan(FaultPlan::slow(ms(20)..=ms(20)));
    while began.elapsed() < rig.config.tier.interval + Duration::from_secs(70) {
        sleep(ms(5)).await;
        peak = peak.max(broker.budget.used_bytes());
    }
    assert_eq!(broker.partitions.backlog().bytes(), 0, "all of it is done at its time");
    let rounds = commits() - before;
    assert!(rounds as usize >= total_runs.div_ceil(most_runs), "{rounds} rounds of {total_runs} runs");
    let least_bytes = most_runs / 2 * RUN_MEMORY_BYTES;
    assert!(peak >= least_bytes && peak <= 2 * least_bytes, "what is remembered of runs is paid for: {peak}");
    for partition in &all {
        assert_eq!(running.contents(partition).await.len(), 20);
    }
}

/// A little comes in every round: without merging each partition would have a run for each.
#[tokio::test(start_paused = true)]
async fn rounds_of_little_data_do_not_add_up() {
    let rig = Rig::new(2, BrokerConfig::default());
    let (running, _) = rig.start().await;
    let topic = running.create("t", 5, &[]).await;
    let all: Vec<_> = (0..5).map(|number| running.partition(topic, number)).collect();
    for round in 0..300 {
        for partition in &all[..1 + round % 5] {
            running.append(partition, 2, 100).await;
        }
        sleep(Duration::from_secs(601)).await;
    }
    let mut before = BTreeMap::new();
    for partition in &all {
        before.insert(partition.id(), running.contents(partition).await);
    }
    running.settled().await;
    assert_eq!(before[&all[0].id()].len(), 300);
    assert!(runs(&all[0]).len() <= 24, "{} runs", runs(&all[0]).len());
    assert!(objects(&all).len() <= 24, "{} objects", objects(&all).len());
    let listed: Vec<_> = rig.bucket.list(Some(&Path::from("logs"))).try_collect().await.unwrap();
    assert!(listed.len() <= 24, "what nothing refers to is gone: {} objects", listed.len());
    // Another start finds the same.
    drop(running);
    let (running, _) = rig.start().await;
    for id in all.iter().map(|partition| partition.id()) {
        assert_eq!(running.contents(&running.partition(topic, id.partition)).await, before[&id], "{id}");
    }
}

/// Whatever topics there are: when everything is tiered, merged and compacted, nothing is asked of the bucket any more.
#[tokio::test(start_paused = true)]
async fn an_idle_broker_asks_for_nothing() {
    let rig = Rig::new(3, BrokerConfig::default());
    let (running, _) = rig.start().await;
    let year_ms = (365 * 86_400_000_i64).to_string();
    let settings: [&[(&str, &str)]; 4] = [
        &[("retention.ms", "-1")],
        &[("retention.ms", &year_ms), ("retention.bytes", "1000000")],
        &[("cleanup.policy", "compact"), ("max.compaction.lag.ms", &year_ms)],
        &[("retention.ms", "50000000")],
    ];
    let mut topics = Vec::new();
    for (number, configs) in settings.iter().enumerate() {
        let topic = running.create(&format!("t{number}"), 2, configs).await;
        running.append(&running.partition(topic, 0), 3, 100).await;
        topics.push(topic);
    }
    running.settled().await;
    let before = running.requests();
    sleep(Duration::from_secs(30_000)).await;
    assert_eq!(running.requests(), before, "nothing is due");
    let aged = running.partition(topics[3], 0);
    assert_eq!(aged.inspect(|index| (index.log_start(), index.next_offset())), (0, 3));
    sleep(Duration::from_secs(30_000)).await;
    assert_eq!(aged.inspect(|index| index.log_start()), 3, "what was due has been done");
    assert!(running.requests() > before);
    running.settled().await;
    let before = running.requests();
    sleep(Duration::from_secs(200 * 86_400)).await;
    assert_eq!(running.requests(), before, "for half a year nothing is due");
}

/// Of four times the memory that there is, one record at the beginning is never written again: what it is copied from
/// must not be kept with it until there is enough for an object.
#[tokio::test(start_paused = true)]
async fn a_compaction_takes_no_more_memory_than_there_is() {
    let tier = crate::config::TierConfig { bytes: 1 << 20, ..BrokerConfig::default().tier };
    let small = BrokerConfig {
        memory_bytes: 12 << 20,
        tail_bytes: 1 << 20,
        flush_bytes: 1 << 20,
        tier,
        ..BrokerConfig::default()
    };
    // All of it becomes old enough at once.
    let flush_interval = Duration::from_millis(1);
    let small = BrokerConfig { flush_interval, ..small };
    let rig = Rig::new(5, BrokerConfig { request_max_bytes: 2 << 20, message_max_bytes: 1 << 20, ..small });
    let (running, _) = rig.start().await;
    let lag = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "3600000"), ("segment.bytes", "1048576")];
    let topic = running.create("t", 1, &lag).await;
    let partition = running.partition(topic, 0);
    assert_eq!(running.append_keyed(&partition, "early", 100).await, Outcome::Durable);
    for number in 0..400 {
        let key = format!("key-{}", number % 3);
        assert_eq!(running.append_keyed(&partition, &key, 100_000).await, Outcome::Durable);
    }
    sleep(Duration::from_secs(7_200)).await;
    running.settled().await;
    let left: usize = running.contents(&partition).await.values().map(Vec::len).sum();
    assert!(left < 4 * 110_000, "three keys and the early one are left: {left} bytes");
}

/// `max.compaction.lag.ms` and `min.compaction.lag.ms` run out while nothing comes.
#[tokio::test(start_paused = true)]
async fn what_has_waited_too_long_is_compacted() {
    let rig = Rig::new(4, BrokerConfig::default());
    let (running, _) = rig.start().await;
    let late =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "1"), ("max.compaction.lag.ms", "40000000")];
    let young =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0"), ("min.compaction.lag.ms", "40000000")];
    for configs in [late, young] {
        let topic = running.create(configs[1].1, 1, &configs).await;
        let partition = running.partition(topic, 0);
        let began = Instant::now();
        for _ in 0..20 {
            running.append(&partition, 3, 100).await;
        }
        let length = || runs(&partition).iter().map(|run| run.length).sum::<u32>();
        let before = length();
        if configs == late {
            // All of it is dirty, and so worth it: something must be clean.
            sleep(Duration::from_secs(700)).await;
            running.append(&partition, 3, 100).await;
        }
        while began.elapsed() < Duration::from_secs(39_000) {
            sleep(Duration::from_secs(500)).await;
        }
        let waiting = length();
        while began.elapsed() < Duration::from_secs(42_000) {
            sleep(Duration::from_secs(500)).await;
        }
        assert!(length() < waiting, "{configs:?}: {before}, {waiting}, {}", length());
    }
}

/// Whatever is being written, moved, merged, deleted or compacted when a broker dies, and whatever the bucket does
/// meanwhile: the next one finds all that was acknowledged and not deleted, byte by byte.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_changes_nothing() {
    for seed in 0..scale("WOODPECKER_TEST_CRASH_SEEDS", 30) {
        let random = Random::from_seed(seed);
        let below = |n: u64| random.next_u64() % n;
        let mut config = scaled();
        config.tail_bytes = [0, 3_000, 1 << 20][below(3) as usize];
        config.flush_interval = Duration::from_millis(10);
        config.tier.bytes = [1, 2_000, 20_000][below(3) as usize];
        config.tier.interval = Duration::from_millis(200);
        config.tier.object_bytes = [500, 3_000][below(2) as usize];
        config.tier.merge_object_bytes = [3_000, 40_000][below(2) as usize];
        config.tier.merge_part_bytes = [100, 1_000, 1 << 20][below(3) as usize];
        config.tier.delete_delay = Duration::from_millis(100);
        let rig = Rig::new(seed, config);
        rig.bucket.set_plan(FaultPlan { latency: ms(1)..=ms(1 + below(40)), ..FaultPlan::ambiguous(0.02) });
        // By partition: what was acknowledged, and where it begins.
        let mut model = Model::new();
        let mut merged = 0;
        for life in 0..6 {
            let (running, handle) = rig.start().await;
            let topic = running.create("t", 4, &[]).await;
            let all: Vec<_> = (0..4).map(|number| running.partition(topic, number)).collect();
            for partition in &all {
                check(&running, partition, &mut model, &format!("seed {seed}, life {life}")).await;
            }
            merged += objects(&all).iter().filter(|id| id.is_tiered()).count();
            for _ in 0..below(120) {
                let partition = &all[below(4) as usize];
                if below(20) == 0 {
                    delete_records(&running, topic, partition, below(100), &mut model).await;
                    continue;
                }
                let records = 1 + below(3) as usize;
                let from = partition.inspect(|index| index.next_offset());
                let outcome = tokio::time::timeout(ms(3_000), running.append(partition, records, 150)).await;
                if outcome != Ok(Outcome::Durable) {
                    break;
                }
                let (acked, _) = model.entry(partition.id().partition).or_default();
                acked.insert(from, Vec::new());
                sleep(ms(below(60))).await;
            }
            for partition in &all {
                check(&running, partition, &mut model, &format!("seed {seed}, end of life {life}")).await;
            }
            // Nothing that it sends arrives any more.
            handle.set_cut(true);
            drop(running);
            sleep(ms(below(2_000))).await;
        }
        assert!(merged > 0, "seed {seed}: something was tiered");
    }
}

/// A merge that finds no memory waits, and drops nothing of what others have cached.
#[tokio::test(start_paused = true)]
async fn a_merge_costs_nobody_their_cache() {
    let rig = Rig::new(7, BrokerConfig::default());
    let (running, _) = rig.start().await;
    let topic = running.create("t", 1, &[]).await;
    let partition = running.partition(topic, 0);
    let broker = running.node.broker();
    let budget = &broker.budget;
    for _ in 0..7 {
        running.append(&partition, 1, 100).await;
        sleep(Duration::from_secs(601)).await;
    }
    running.append(&partition, 1, 100).await;
    // Enough for what a round remembers, not for a merge.
    let held = budget.take_if_free(budget.total_bytes() - budget.used_bytes() - 1_000);
    assert!(held.is_some());
    sleep(Duration::from_secs(601)).await;
    running.append(&partition, 1, 100).await;
    let tail = broker.partitions.reader().tail();
    let cached = tail.bytes();
    // Who waits for memory looks again.
    drop(budget.take_if_free(10));
    sleep(Duration::from_secs(20)).await;
    let all = [partition.clone()];
    assert!(cached > 0 && tail.bytes() == cached);
    assert_eq!(objects(&all).len(), 8 + 1, "eight that could be merged, and what came last");
    drop(held);
    sleep(Duration::from_secs(20)).await;
    assert_eq!((objects(&all).len(), tail.bytes()), (1 + 1, cached), "there is room");
}

/// A broker whose rounds and merges write in parts most of the time, to a bucket that takes its time.
async fn writing_in_parts(seed: u64) -> (Rig, Running) {
    let mut config = scaled();
    config.tail_bytes = 0;
    config.flush_interval = ms(10);
    config.tier.bytes = 2_000;
    config.tier.merge_object_bytes = 40_000;
    config.tier.merge_part_bytes = 200;
    let rig = Rig::new(seed, config);
    let (running, _) = rig.start().await;
    let topic = running.create("t", 4, &[]).await;
    let all: Vec<_> = (0..4).map(|number| running.partition(topic, number)).collect();
    rig.bucket.set_plan(FaultPlan::slow(ms(5)..=ms(40)));
    for number in 0..20 + rig.random.next_u64() % 60 {
        running.append(&all[number as usize % 4], 1, 150).await;
    }
    (rig, running)
}

/// Whatever upkeep is at when a broker is told to stop: it leaves no upload in the bucket, where no listing shows it.
#[tokio::test(start_paused = true)]
async fn a_stop_gives_up_what_is_being_written_in_parts() {
    let mut interrupted = 0;
    for seed in 0..20 {
        let (rig, running) = writing_in_parts(seed).await;
        interrupted += rig.bucket.open_uploads();
        assert_eq!(running.stop().await, Ended::Drained, "seed {seed}");
        assert_eq!(rig.bucket.open_uploads(), 0, "seed {seed}");
    }
    assert!(interrupted >= 5, "{interrupted} were under way");
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_bucket_that_does_not_answer() {
    let (rig, running) = writing_in_parts(50).await;
    while rig.bucket.open_uploads() == 0 {
        sleep(ms(1)).await;
    }
    // Whatever comes first: that it is given up, or that the next one is begun.
    rig.bucket.script(Operation::Other, "tiered", 0, Fault::Hang);
    let began = Instant::now();
    assert_eq!(running.stop().await, Ended::Drained);
    assert_eq!(rig.bucket.scripts_left(), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn scale(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

type Model = BTreeMap<i32, (BTreeMap<i64, Vec<u8>>, i64)>;

async fn delete_records(running: &Running, topic: Uuid, partition: &Partition, percent: u64, model: &mut Model) {
    let (acked, start) = model.entry(partition.id().partition).or_default();
    let (low, high) = partition.inspect(|index| (index.log_start(), index.next_offset()));
    let offset = low + (high - low) * percent as i64 / 100;
    let broker = running.node.broker();
    let found = broker.topics.by_id(topic).expect("it exists");
    let moved = || {
        partition.raise_log_start(offset);
        broker.partitions.backlog().dropped();
    };
    let starts = BTreeMap::from([(partition.id().partition, offset)]);
    if broker.topics.raise_log_starts(&found, &starts, moved).await.is_ok() {
        *start = (*start).max(offset);
        acked.retain(|base_offset, _| *base_offset >= offset);
    }
}

/// The first time bytes are seen they are remembered.
async fn check(running: &Running, partition: &Partition, model: &mut Model, when: &str) {
    let found = running.contents(partition).await;
    let (acked, start) = model.entry(partition.id().partition).or_default();
    let begins_at = partition.inspect(|index| index.log_start());
    assert!(begins_at >= *start, "{when}: it begins at {begins_at}, and began at {start}");
    *start = begins_at;
    acked.retain(|base_offset, _| *base_offset >= begins_at);
    for (offset, bytes) in acked.iter_mut() {
        let now = found.get(offset).unwrap_or_else(|| panic!("{when}: what was acknowledged at {offset} is gone"));
        assert!(bytes.is_empty() || bytes == now, "{when}: what was acknowledged at {offset} has changed");
        bytes.clone_from(now);
    }
}
