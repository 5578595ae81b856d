//! What a partition costs: the same load on few and on many, and PUTs by what they are for at full load.

use std::{io, time::Duration};

use super::{
    Run, SETTLE, SMALL_RECORD_BYTES, quiet_disk,
    s3::{BATCH_BYTES, FLUSH_BYTES, NOT_TIERED, PARTITIONS as PARTITIONS_AT_LOAD, Upkeep, puts, requests},
};
use crate::{
    bucket::Bucket,
    clock::{now, pause},
    connections::{self, Trickle},
    crowd::Crowd,
    http::Metrics,
    report::Sheet,
    servers::Server,
    wire::Connection,
};

const PARTITIONS: [usize; 3] = [10, 1_000, 10_000];
const CONNECTIONS: usize = 64;
/// In one request, a record each: so requests are the same however many partitions there are.
const PARTITIONS_EACH: usize = 10;
const RECORDS_PER_S: usize = 5_000;
/// At full load: partitions, and what a producer fills a batch to.
const LOADS: [(usize, usize); 3] = [(PARTITIONS_AT_LOAD, BATCH_BYTES), (1_000, 16 << 10), (10_000, 1 << 10)];
/// After that long without rest, upkeep is not waited for any more.
const UPKEEP_LIMIT: Duration = Duration::from_secs(20);

impl Run {
    pub(super) fn flat(&mut self) -> io::Result<()> {
        let mut bucket = self.start_bucket()?;
        for round in 0..self.plan.store_rounds {
            let mut fewest = None;
            for partitions in PARTITIONS {
                let resident = self.fixed_load(&mut bucket, round, partitions, fewest)?;
                fewest.get_or_insert((partitions, resident));
            }
        }
        let caption = format!(
            "Aim: PUT/s within 10% of each other, the same records/s, a few KiB per partition. S3 server: {}. \
             {RECORDS_PER_S} records of 1 KiB per second, in requests with one record for each of {PARTITIONS_EACH} \
             partitions, on {CONNECTIONS} connections; payload signed; nothing is tiered meanwhile. KiB per partition: by \
             how much the resident set is larger than with {} partitions, runs not yet tiered included.",
            bucket.server_name, PARTITIONS[0]
        );
        self.report.sheets.captions.insert(Sheet::Flat, caption);
        for round in 0..self.plan.store_rounds {
            self.full_load(&mut bucket, round)?;
        }
        let caption = format!(
            "Aim: 1.1 for fragments, 1.5 for all PUTs, no GETs. Parts of multipart uploads are counted; flush_bytes is {} MiB; {} \
             MB of record values. Upkeep is waited for until it rests, {} s at most.",
            FLUSH_BYTES >> 20,
            self.plan.store_bytes / 1_000_000,
            UPKEEP_LIMIT.as_secs()
        );
        self.report.sheets.captions.insert(Sheet::Load, caption);
        Ok(())
    }

    /// The resident set at its end.
    fn fixed_load(
        &mut self,
        bucket: &mut Bucket,
        round: usize,
        partitions: usize,
        fewest: Option<(usize, u64)>,
    ) -> io::Result<u64> {
        let place = bucket.place(true);
        let server = self.woodpecker_at(&place, &NOT_TIERED)?;
        let topic = self.topic();
        Connection::open(server.address)?.create_topic(&topic, partitions)?;
        let mut crowd = Crowd::new()?;
        crowd.open(server.address, CONNECTIONS, &topic)?;
        let mut trickle = Trickle {
            topic,
            partitions,
            partitions_each: PARTITIONS_EACH,
            record_bytes: SMALL_RECORD_BYTES,
            records_per_s: RECORDS_PER_S,
            duration: self.plan.store_window / 2,
        };
        connections::produce(&mut crowd, 0..CONNECTIONS, &trickle)?;
        trickle.duration = self.plan.store_window;
        quiet_disk();
        let (cpu, before) = (server.cpu_s()?, Metrics::read(server.http())?);
        let outcome = connections::produce(&mut crowd, 0..CONNECTIONS, &trickle)?;
        let (cpu, after) = (server.cpu_s()? - cpu, Metrics::read(server.http())?);
        let (elapsed_s, resident) = (outcome.elapsed.as_secs_f64(), server.memory_bytes()?);
        let growth = fewest.map_or(f64::NAN, |(fewest, least)| {
            (resident as f64 - least as f64) / f64::from(1 << 10) / (partitions - fewest) as f64
        });
        self.entry(
            Sheet::Flat,
            &format!("{partitions} partitions"),
            round,
            &[
                ("fragment PUT/s", (puts(&after, Some("logs")) - puts(&before, Some("logs"))) / elapsed_s),
                ("all PUT/s", (puts(&after, None) - puts(&before, None)) / elapsed_s),
                ("records/s", outcome.records as f64 / elapsed_s),
                ("p50 ms", outcome.latency_ms(50)),
                ("p99 ms", outcome.latency_ms(99)),
                ("broker CPU-s per minute", cpu * 60.0 / elapsed_s),
                ("resident set, MiB", resident as f64 / f64::from(1 << 20)),
                ("KiB per partition", growth),
            ],
        );
        drop((crowd, server));
        place.remove()?;
        Ok(resident)
    }

    fn full_load(&mut self, bucket: &mut Bucket, round: usize) -> io::Result<()> {
        for (partitions, batch_bytes) in LOADS {
            let records = (batch_bytes / SMALL_RECORD_BYTES).max(1);
            for upkeep in [Upkeep::Off, Upkeep::On] {
                let place = bucket.place(true);
                let server = self.woodpecker_at(&place, upkeep.settings())?;
                let before = Metrics::read(server.http())?;
                let outcome = self.produce_all(&server, partitions, batch_bytes)?;
                let (after, upkeep_s) = rested(&server)?;
                let stored = |metrics: &Metrics| metrics.sum("woodpecker_produced_bytes_total", &[]);
                let flushes = (stored(&after) - stored(&before)) / FLUSH_BYTES as f64;
                let per_flush = |purpose| (puts(&after, purpose) - puts(&before, purpose)) / flushes;
                let gets = requests(&after, "get", None) - requests(&before, "get", None);
                let row = format!("{partitions} partitions, batches of {records}, {}", upkeep.name());
                self.entry(
                    Sheet::Load,
                    &row,
                    round,
                    &[
                        ("fragments", per_flush(Some("logs"))),
                        ("tiered", per_flush(Some("tiered"))),
                        ("manifests", per_flush(Some("manifests"))),
                        ("metadata", per_flush(Some("meta"))),
                        ("all PUTs", per_flush(None)),
                        ("GETs", gets / flushes),
                        ("MB/s", outcome.mb_per_s()),
                        ("s of upkeep afterwards", upkeep_s),
                    ],
                );
                drop(server);
                place.remove()?;
            }
        }
        Ok(())
    }
}

/// What upkeep asks for afterwards is part of what was produced: waits until it rests; how long that took.
fn rested(server: &Server) -> io::Result<(Metrics, f64)> {
    let (since, mut last) = (now(), Metrics::read(server.http())?);
    let asked = |metrics: &Metrics| puts(metrics, None) + requests(metrics, "get", None);
    loop {
        let elapsed = now() - since;
        pause(3 * SETTLE);
        let next = Metrics::read(server.http())?;
        if asked(&next) <= asked(&last) || elapsed > UPKEEP_LIMIT {
            return Ok((next, elapsed.as_secs_f64()));
        }
        last = next;
    }
}
