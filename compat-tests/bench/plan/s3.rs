//! Produce on a real S3 server: how much of what plain PUTs reach there, what it costs in CPU time, and what a producer
//! waits where a PUT takes long.

use std::{io, time::Duration};

use super::{Run, SETTLE, SMALL_RECORD_BYTES, WOODPECKER_PORT, progress, quiet_disk};
use crate::{
    bucket::{Bucket, Place},
    clock::pause,
    connections::{self, Trickle},
    crowd::Crowd,
    delay::SlowPuts,
    http::Metrics,
    load::{self, Outcome},
    report::{Case, Entry, Kind, Sheet},
    servers::{Server, own_cpu_s},
    wire::Connection,
};

const STORE_PORT: u16 = 21_392;
/// Of the broker, by default.
pub(super) const FLUSH_BYTES: usize = 8 << 20;
/// Fragments that the broker has on their way at most.
const PARALLEL: usize = 8;
pub(super) const PARTITIONS: usize = 16;
pub(super) const BATCH_BYTES: usize = 256 << 10;
const WARM_UP_BYTES: u64 = 64 << 20;
/// So that nothing is tiered while something else is measured: what waits for it is bounded by the tail too.
pub(super) const NOT_TIERED: [(&str, &str); 4] = [
    ("WOODPECKER_TIER_BYTES", "1073741824"),
    ("WOODPECKER_TIER_INTERVAL_MS", "86400000"),
    ("WOODPECKER_TAIL_BYTES", "2147483648"),
    ("WOODPECKER_MEMORY_BYTES", "4294967296"),
];

/// What a PUT of some MiB takes on S3.
const LARGE_PUT_DELAY: Duration = Duration::from_millis(300);
/// What a small one takes.
const PUT_DELAY: Duration = Duration::from_millis(100);
/// The default first.
const INTERVALS_MS: [u64; 3] = [100, 50, 25];
const PRODUCERS: usize = 16;
/// Four a second each: one that waits for the previous answer would be asked later than it was due.
const PRODUCED_PER_S: usize = 70;
/// Longer than any interval and its PUT: a message that finds nothing under way.
const LONE_GAP: Duration = Duration::from_millis(250);
const MONTH_S: f64 = 365.25 / 12.0 * 86_400.0;
/// S3 Standard's.
const PUT_USD: f64 = 0.005 / 1000.0;

/// How PUTs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Signed,
    Unsigned,
    /// Signed, and slow.
    Slow,
}

impl Way {
    const ALL: [Self; 3] = [Self::Signed, Self::Unsigned, Self::Slow];

    fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Slow => "signed and slow",
        }
    }
}

/// Whether data is tiered meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Upkeep {
    Off,
    On,
}

impl Upkeep {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "nothing tiered",
            Self::On => "tiering",
        }
    }

    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Off => &NOT_TIERED,
            Self::On => &[],
        }
    }
}

/// Figures with their names, the rate first.
type Taken = Vec<(&'static str, f64)>;

/// PUTs and parts of uploads for one purpose, of which `None` is any.
pub(super) fn puts(metrics: &Metrics, purpose: Option<&str>) -> f64 {
    let of = |kind| requests(metrics, kind, purpose);
    of("put") + of("part")
}

pub(super) fn requests(metrics: &Metrics, kind: &str, purpose: Option<&str>) -> f64 {
    let labels: Vec<(&str, &str)> = [("kind", kind)].into_iter().chain(purpose.map(|name| ("purpose", name))).collect();
    metrics.sum("woodpecker_store_requests_total", &labels)
}

impl Run {
    pub(super) fn entry(&mut self, sheet: Sheet, row: &str, round: usize, values: &[(&'static str, f64)]) {
        let shown: Vec<String> = values.iter().map(|(column, value)| format!("{column} {value:.2}")).collect();
        progress(format_args!("round {}: {row}: {}", round + 1, shown.join(", ")));
        let entries =
            values.iter().map(|(column, value)| Entry { sheet, row: row.to_owned(), column, round, value: *value });
        self.report.sheets.entries.extend(entries);
    }

    pub(super) fn start_bucket(&mut self) -> io::Result<Bucket> {
        Bucket::start(&self.plan.store_script, self.plan.folder.join("s3"), STORE_PORT)
    }

    /// A broker whose data is at this place, with settings as environment variables.
    pub(super) fn woodpecker_at(&mut self, place: &Place, settings: &[(&str, &str)]) -> io::Result<Server> {
        let mut environment = place.environment();
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.woodpecker_with(&place.url(), &environment)
    }

    pub(super) fn woodpecker_with(&self, storage: &str, environment: &[(String, String)]) -> io::Result<Server> {
        let binary = self.plan.woodpecker.clone().ok_or_else(|| crate::wire::failed("no broker of ours to measure"))?;
        Server::woodpecker_on(&binary, self.plan.folder.join("woodpecker"), WOODPECKER_PORT, storage, environment)
    }

    pub(super) fn s3(&mut self) -> io::Result<()> {
        let mut bucket = self.start_bucket()?;
        for round in 0..self.plan.rounds {
            for way in Way::ALL {
                self.beside_plain_puts(&mut bucket, round, way)?;
            }
        }
        let (flush, parallel, slow) = (FLUSH_BYTES >> 20, PARALLEL, LARGE_PUT_DELAY.as_millis());
        let caption = format!(
            "Aim: 0.9 of plain PUTs. S3 server: {}. Plain PUTs: {flush} MiB each, {parallel} at a time, by the broker's own \
             S3 client, create-if-absent. Signed payloads are the client's default, over HTTP and HTTPS alike; unsigned: \
             AWS_UNSIGNED_PAYLOAD=true. Servers and clients share the machine, so that where PUTs are fast CPU time is \
             what is shared out; slow: a proxy holds each PUT for {slow} ms (its CPU time is in that of plain PUTs and of \
             producers). Tiering moves everything once more while it is produced.",
            bucket.server_name
        );
        self.report.sheets.captions.insert(Sheet::Throughput, caption);
        self.slow_puts(&mut bucket)?;
        let caption = format!(
            "Aim: one PUT a lone message and no more than its time; 1.3 times a PUT's time with several producers. S3 \
             server: {}, behind a proxy that holds every PUT for {} ms. Producers: {PRODUCERS} connections, {PRODUCED_PER_S} \
             records of 1 KiB per second between them, latencies from when each was due. Dollars: PUTs of fragments at \
             $0.005 per 1,000, all month.",
            bucket.server_name,
            PUT_DELAY.as_millis()
        );
        self.report.sheets.captions.insert(Sheet::Latency, caption);
        Ok(())
    }

    /// Plain PUTs and the broker, with tiering and without, one after the other, in turns.
    fn beside_plain_puts(&mut self, bucket: &mut Bucket, round: usize, way: Way) -> io::Result<()> {
        let mut measured = Vec::new();
        let mut turns: Vec<Option<Upkeep>> = vec![None, Some(Upkeep::Off), Some(Upkeep::On)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for upkeep in turns {
            let place = bucket.place(way != Way::Unsigned);
            let place = match way {
                Way::Slow => place.through(SlowPuts::before(bucket.server.address, LARGE_PUT_DELAY)?.address),
                Way::Signed | Way::Unsigned => place,
            };
            let taken = match upkeep {
                None => self.plain_puts(bucket, &place)?,
                Some(upkeep) => self.produce_at(bucket, &place, upkeep)?,
            };
            place.remove()?;
            measured.push((upkeep, taken));
        }
        let rate = |of: &Taken| of.first().map_or(f64::NAN, |(_, mb_per_s)| *mb_per_s);
        let plain = measured.iter().find(|(upkeep, _)| upkeep.is_none()).map_or(f64::NAN, |(_, taken)| rate(taken));
        // Tables show rows in the order in which they came first: plain PUTs above what is compared with them.
        measured.sort_by_key(|(upkeep, _)| *upkeep);
        for (upkeep, mut taken) in measured {
            taken.insert(1, ("of plain PUTs", rate(&taken) / plain));
            let row = match upkeep {
                None => format!("plain PUTs, {}", way.name()),
                Some(upkeep) => format!("Woodpecker, {}, {}", way.name(), upkeep.name()),
            };
            self.entry(Sheet::Throughput, &row, round, &taken);
        }
        Ok(())
    }

    fn plain_puts(&mut self, bucket: &Bucket, place: &Place) -> io::Result<Taken> {
        let count = (self.plan.store_bytes as usize / FLUSH_BYTES).max(PARALLEL);
        quiet_disk();
        let (own, store) = (own_cpu_s()?, bucket.server.cpu_s()?);
        let plain = place.plain_puts(FLUSH_BYTES, PARALLEL, count)?;
        let gigabytes = plain.bytes as f64 / 1e9;
        Ok(vec![
            ("MB/s", plain.mb_per_s()),
            ("CPU-s/GB", (own_cpu_s()? - own) / gigabytes),
            ("S3 server's CPU-s/GB", (bucket.server.cpu_s()? - store) / gigabytes),
        ])
    }

    fn produce_at(&mut self, bucket: &Bucket, place: &Place, upkeep: Upkeep) -> io::Result<Taken> {
        let server = self.woodpecker_at(place, upkeep.settings())?;
        self.warm_up(&server, BATCH_BYTES, WARM_UP_BYTES)?;
        quiet_disk();
        let (own, cpu, store) = (own_cpu_s()?, server.cpu_s()?, bucket.server.cpu_s()?);
        let before = Metrics::read(server.http())?;
        let outcome = self.produce_all(&server, PARTITIONS, BATCH_BYTES)?;
        let gigabytes = outcome.bytes as f64 / 1e9;
        let fragments = puts(&Metrics::read(server.http())?, Some("logs")) - puts(&before, Some("logs"));
        Ok(vec![
            ("MB/s", outcome.mb_per_s()),
            ("CPU-s/GB", (server.cpu_s()? - cpu) / gigabytes),
            ("S3 server's CPU-s/GB", (bucket.server.cpu_s()? - store) / gigabytes),
            ("producers' CPU-s/GB", (own_cpu_s()? - own) / gigabytes),
            ("MiB per fragment", outcome.bytes as f64 / fragments / f64::from(1 << 20)),
        ])
    }

    /// As fast as it goes.
    pub(super) fn produce_all(
        &mut self,
        server: &Server,
        partitions: usize,
        batch_bytes: usize,
    ) -> io::Result<Outcome> {
        let case = Case { kind: Kind::Produce, partitions, record_bytes: SMALL_RECORD_BYTES, batch_bytes };
        let mut load = self.load(case, self.plan.store_bytes);
        if partitions * batch_bytes > FLUSH_BYTES {
            // A request has a batch for each partition.
            load.window = 1;
        }
        Connection::open(server.address)?.create_topic(&load.topic, load.partitions)?;
        load::produce(server.address, &load)
    }

    fn slow_puts(&mut self, bucket: &mut Bucket) -> io::Result<()> {
        let proxy = SlowPuts::before(bucket.server.address, PUT_DELAY)?;
        for round in 0..self.plan.store_rounds {
            let place = bucket.place(true).through(proxy.address);
            // As many bytes as the producers below have in one interval.
            let plain = place.plain_puts(16 << 10, 1, self.plan.lone_records)?;
            let put_ms = plain.latency_ms(50);
            self.entry(
                Sheet::Latency,
                "a plain PUT of 16 KiB",
                round,
                &[("p50 ms", put_ms), ("p99 ms", plain.latency_ms(99))],
            );
            place.remove()?;
            for interval in INTERVALS_MS {
                let place = bucket.place(true).through(proxy.address);
                let interval_ms = interval.to_string();
                let settings: Vec<(&str, &str)> =
                    NOT_TIERED.into_iter().chain([("WOODPECKER_FLUSH_INTERVAL_MS", interval_ms.as_str())]).collect();
                let server = self.woodpecker_at(&place, &settings)?;
                let default = if interval == INTERVALS_MS[0] { " (default)" } else { "" };
                let row = |what: &str| format!("{what}, flush_interval_ms {interval}{default}");
                let topic = self.topic();
                Connection::open(server.address)?.create_topic(&topic, PARTITIONS)?;
                self.lone_messages(&server, &proxy, &topic, round, &row("a lone message"), put_ms)?;
                self.several_producers(&server, &topic, round, &row("16 producers"), put_ms)?;
                drop(server);
                place.remove()?;
            }
        }
        Ok(())
    }

    fn lone_messages(
        &mut self,
        server: &Server,
        proxy: &SlowPuts,
        topic: &str,
        round: usize,
        row: &str,
        put_ms: f64,
    ) -> io::Result<()> {
        // What creating the topic set off is done.
        pause(SETTLE);
        let (count, before) = (self.plan.lone_records, proxy.puts());
        let outcome = load::single_records(server.address, topic, SMALL_RECORD_BYTES, count, LONE_GAP)?;
        self.entry(
            Sheet::Latency,
            row,
            round,
            &[
                ("p50 ms", outcome.latency_ms(50)),
                ("p99 ms", outcome.latency_ms(99)),
                ("p50, times a PUT's", outcome.latency_ms(50) / put_ms),
                ("PUTs per record", (proxy.puts() - before) as f64 / count as f64),
            ],
        );
        Ok(())
    }

    fn several_producers(
        &mut self,
        server: &Server,
        topic: &str,
        round: usize,
        row: &str,
        put_ms: f64,
    ) -> io::Result<()> {
        let mut crowd = Crowd::new()?;
        crowd.open(server.address, PRODUCERS, topic)?;
        let trickle = Trickle {
            topic: topic.to_owned(),
            partitions: PARTITIONS,
            partitions_each: 1,
            record_bytes: SMALL_RECORD_BYTES,
            records_per_s: PRODUCED_PER_S,
            duration: self.plan.store_window,
        };
        let before = Metrics::read(server.http())?;
        let outcome = connections::produce(&mut crowd, 0..PRODUCERS, &trickle)?;
        let fragments = puts(&Metrics::read(server.http())?, Some("logs")) - puts(&before, Some("logs"));
        let puts_per_s = fragments / outcome.elapsed.as_secs_f64();
        self.entry(
            Sheet::Latency,
            row,
            round,
            &[
                ("p50 ms", outcome.latency_ms(50)),
                ("p99 ms", outcome.latency_ms(99)),
                ("p50, times a PUT's", outcome.latency_ms(50) / put_ms),
                ("PUTs per record", fragments / outcome.records as f64),
                ("PUT/s", puts_per_s),
                ("$ a month", puts_per_s * MONTH_S * PUT_USD),
            ],
        );
        Ok(())
    }
}
