//! Old data read from S3 by several consumers: how much of what plain GETs reach there, and how little it disturbs who
//! produces and who follows, at a fixed rate below saturation.
//!
//! A store that is as fast as the machine lets it be makes everything compete for the processors; one that has a limit of
//! its own, as a network has, shows what the broker makes of it. Both are measured.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{CONNECTIONS, Run, SETTLE, SMALL_RECORD_BYTES, quiet_disk};
use crate::{
    bucket::Place,
    clock::{now, pause},
    connections::{self, Trickle},
    crowd::Crowd,
    delay::{SlowPuts, Slowness},
    http::Metrics,
    load::{self, Load, Outcome},
    report::{Case, Kind, Sheet},
    servers::Server,
    wire::{Connection, failed},
};

pub(super) const PUT_DELAY: Duration = Duration::from_millis(100);
pub(super) const GET_DELAY: Duration = Duration::from_millis(30);
/// Two that leave processors idle, and none, where they are what is shared out.
const LIMITS: [u64; 3] = [100_000_000, 200_000_000, 0];
/// What is old has been tiered: everything is, at once.
const TIERED: (&str, &str) = ("WOODPECKER_TIER_INTERVAL_MS", "1000");
const TIERED_WITHIN: Duration = Duration::from_secs(60);
const PARTITIONS: usize = 16;
const BATCH_BYTES: usize = 256 << 10;
/// What one GET of the broker brings at most, and as many as it has on their way.
const PART_BYTES: u64 = 4 << 20;
const PARALLEL: usize = 16;
/// Each waits for its answer: more of them than are on their way at a time.
const PRODUCERS: usize = 150;
const PRODUCED_PER_S: usize = 400;
/// So long a store is read, at least once.
const ALONE: Duration = Duration::from_secs(5);

/// What the fixed load saw.
struct Seen {
    produced: Outcome,
    followed: Outcome,
}

impl Run {
    pub(super) fn replay(&mut self) -> io::Result<()> {
        let mut bucket = self.start_bucket()?;
        for limit in LIMITS {
            let slowness = Slowness { put_delay: PUT_DELAY, get_delay: GET_DELAY, bytes_per_s: limit };
            let proxy = SlowPuts::slow(bucket.server.address, slowness)?;
            let direct = bucket.place(true);
            let place = direct.through(proxy.address);
            self.replay_at(&direct, &place, limit)?;
            direct.remove()?;
        }
        let caption = format!(
            "Aims, where a limit of the store leaves the processors idle: 0.9 of plain GETs; 1.2 times the quiet p99. S3 \
             server: {}. Plain GETs: {} MiB each, {PARALLEL} at a time, \
             of the same objects, by the broker's own S3 client. Replay: {CONNECTIONS} consumers, {PARTITIONS} partitions, \
             everything tiered, nothing of it in memory at first. The fixed load: {PRODUCED_PER_S} records of 1 KiB per second, latencies from \
             when each was due to its acknowledgement, and to its arrival at a consumer. Servers, proxy and clients share \
             the machine.",
            bucket.server_name,
            PART_BYTES >> 20
        );
        self.report.sheets.captions.insert(Sheet::Replay, caption);
        Ok(())
    }

    fn replay_at(&mut self, direct: &Place, place: &Place, limit: u64) -> io::Result<()> {
        let named = |what: &str| match limit {
            0 => format!("{what}, store without a limit"),
            limit => format!("{what}, store of {} MB/s", limit / 1_000_000),
        };
        // Written without delays, and tiered; then everything that was in memory is gone.
        let case = Case {
            kind: Kind::Fetch,
            partitions: PARTITIONS,
            record_bytes: SMALL_RECORD_BYTES,
            batch_bytes: BATCH_BYTES,
        };
        let old = self.load(case, self.plan.store_bytes);
        let server = self.woodpecker_at(direct, &[TIERED])?;
        Connection::open(server.address)?.create_topic(&old.topic, PARTITIONS)?;
        load::produce(server.address, &old)?;
        wait_until_tiered(&server)?;
        drop(server);
        let server = self.woodpecker_at(place, &[])?;
        let live = self.topic();
        Connection::open(server.address)?.create_topic(&live, 1)?;
        for round in 0..self.plan.rounds.min(3) {
            quiet_disk();
            let plain = again_until(ALONE, || place.plain_gets(PART_BYTES, PARALLEL))?.mb_per_s();
            self.entry(Sheet::Replay, &named("plain GETs"), round, &[("MB/s", plain), ("of plain GETs", 1.0)]);
            let before = Metrics::read(server.http())?;
            let alone = again_until(ALONE, || load::drain(server.address, &old))?;
            let after = Metrics::read(server.http())?;
            let read = |metrics: &Metrics| metrics.sum("woodpecker_store_bytes_total", &[("direction", "read")]);
            let gets = |metrics: &Metrics| metrics.sum("woodpecker_store_requests_total", &[("kind", "get")]);
            self.entry(
                Sheet::Replay,
                &named("replay alone"),
                round,
                &[
                    ("MB/s", alone.mb_per_s()),
                    ("of plain GETs", alone.mb_per_s() / plain),
                    ("bytes read per byte", (read(&after) - read(&before)) / alone.bytes as f64),
                    (
                        "MiB per GET",
                        (read(&after) - read(&before)) / (gets(&after) - gets(&before)) / f64::from(1 << 20),
                    ),
                ],
            );
            self.beside(&server, &old, &live, round, &named, plain)?;
        }
        Ok(())
    }

    /// The fixed load alone, then with a replay beside it.
    fn beside(
        &mut self,
        server: &Server,
        old: &Load,
        live: &str,
        round: usize,
        named: &dyn Fn(&str) -> String,
        plain: f64,
    ) -> io::Result<()> {
        pause(SETTLE);
        let window = self.plan.store_window;
        let quiet = fixed_load(server, live, window)?;
        let figures = |seen: &Seen| {
            [
                ("produce p50 ms", seen.produced.latency_ms(50)),
                ("produce p99 ms", seen.produced.latency_ms(99)),
                ("tail p50 ms", seen.followed.latency_ms(50)),
                ("tail p99 ms", seen.followed.latency_ms(99)),
            ]
        };
        self.entry(Sheet::Replay, &named("fixed load, quiet"), round, &figures(&quiet));
        let over = AtomicBool::new(false);
        let (busy, replayed) = thread::scope(|scope| {
            let replay = scope.spawn(|| {
                let mut all = Outcome::default();
                while !over.load(Ordering::Relaxed) {
                    add(&mut all, &load::drain(server.address, old)?);
                }
                io::Result::Ok(all)
            });
            let busy = fixed_load(server, live, window);
            over.store(true, Ordering::Relaxed);
            let replayed = replay.join().map_err(|_| failed("a replay panicked"))?;
            io::Result::Ok((busy?, replayed?))
        })?;
        let mut row = vec![("MB/s", replayed.mb_per_s()), ("of plain GETs", replayed.mb_per_s() / plain)];
        row.extend(figures(&busy));
        let times = |of: fn(&Seen) -> &Outcome| of(&busy).latency_ms(99) / of(&quiet).latency_ms(99);
        row.push(("produce p99, times quiet", times(|seen| &seen.produced)));
        row.push(("tail p99, times quiet", times(|seen| &seen.followed)));
        self.entry(Sheet::Replay, &named("fixed load, during a replay"), round, &row);
        Ok(())
    }
}

fn wait_until_tiered(server: &Server) -> io::Result<()> {
    let since = now();
    while Metrics::read(server.http())?.sum("woodpecker_untiered_bytes", &[]) > 0.0 {
        if now() - since > TIERED_WITHIN {
            return Err(failed("what was produced is not tiered in time"));
        }
        pause(SETTLE);
    }
    Ok(())
}

/// Produces at the fixed rate, and follows.
fn fixed_load(server: &Server, topic: &str, window: Duration) -> io::Result<Seen> {
    let mut crowd = Crowd::new()?;
    crowd.open(server.address, PRODUCERS, topic)?;
    let trickle = Trickle {
        topic: topic.to_owned(),
        partitions: 1,
        partitions_each: 1,
        record_bytes: SMALL_RECORD_BYTES,
        records_per_s: PRODUCED_PER_S,
        duration: window,
    };
    let records = (window.as_secs_f64() * PRODUCED_PER_S as f64) as usize;
    let from = Connection::open(server.address)?.end_offset(topic, 0)?;
    thread::scope(|scope| {
        let follower = scope.spawn(|| load::tail(server.address, topic, from, records));
        pause(SETTLE);
        let since = now();
        let produced = connections::produce(&mut crowd, 0..PRODUCERS, &trickle)?;
        let arrivals = follower.join().map_err(|_| failed("the follower panicked"))??;
        // Records are due one after the other, and get their offsets in about this order.
        let due = |record: usize| since + Duration::from_secs(1) / PRODUCED_PER_S as u32 * record as u32;
        let late = |(record, arrival): (usize, Instant)| arrival.saturating_duration_since(due(record));
        let mut latencies: Vec<Duration> = arrivals.into_iter().enumerate().map(late).collect();
        latencies.sort_unstable();
        let elapsed = now() - since;
        Ok(Seen {
            followed: Outcome { bytes: produced.bytes, records: produced.records, elapsed, latencies },
            produced,
        })
    })
}

fn again_until(limit: Duration, work: impl Fn() -> io::Result<Outcome>) -> io::Result<Outcome> {
    let since = now();
    let mut all = Outcome::default();
    loop {
        add(&mut all, &work()?);
        if now() - since >= limit {
            return Ok(all);
        }
    }
}

fn add(all: &mut Outcome, more: &Outcome) {
    all.bytes += more.bytes;
    all.records += more.records;
    all.elapsed += more.elapsed;
}
