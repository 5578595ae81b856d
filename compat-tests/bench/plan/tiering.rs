//! What tiering costs producers: the same load at a fixed rate, while nothing is tiered and while all of it is.

use std::{io, time::Duration};

use super::{
    Run, quiet_disk,
    replay::{GET_DELAY, PUT_DELAY},
    s3::{PARTITIONS, Upkeep, requests},
};
use crate::{
    bucket::Bucket,
    connections::{self, Trickle},
    crowd::Crowd,
    delay::{SlowPuts, Slowness},
    http::Metrics,
    load::Outcome,
    report::Sheet,
    wire::Connection,
};

/// Records are large, so that it is the broker that the rate is much for, and not the client.
const RECORD_BYTES: usize = 32 << 10;
/// In one request, a record each.
const PARTITIONS_EACH: usize = 4;
/// So much that two cores that carry everything are not always busy, though each byte passes the proxy three times.
const MB_PER_S: usize = 40;
/// Each waits for its answer: more of them than are on their way at a time.
const CONNECTIONS: usize = 400;
/// Rounds of upkeep move 256 MiB each: there are several of them meanwhile. What is not to be tiered at all is no more than
/// can be kept from it.
const WINDOW: Duration = Duration::from_secs(24);
const WARM_UP: Duration = Duration::from_secs(8);

impl Run {
    pub(super) fn tiering(&mut self) -> io::Result<()> {
        let mut bucket = self.start_bucket()?;
        for round in 0..self.plan.rounds {
            let mut turns = [Upkeep::Off, Upkeep::On];
            if round % 2 == 1 {
                turns.reverse();
            }
            let mut measured = Vec::new();
            for upkeep in turns {
                measured.push((upkeep, self.fixed_rate(&mut bucket, upkeep)?));
            }
            measured.sort_by_key(|(upkeep, _)| *upkeep);
            let alone_ms = measured.first().map_or(f64::NAN, |(_, (outcome, _))| outcome.latency_ms(99));
            for (upkeep, (outcome, mut row)) in measured {
                row.insert(3, ("p99, times that of nothing tiered", outcome.latency_ms(99) / alone_ms));
                self.entry(Sheet::Tiering, upkeep.name(), round, &row);
            }
        }
        let caption = format!(
            "Aim: the same p99. S3 server: {}. {MB_PER_S} MB/s of records of {} KiB, in requests with one record for each of \
             {PARTITIONS_EACH} of {PARTITIONS} partitions, on {CONNECTIONS} connections, latencies from when each was due. \
             Moved: bytes read, and written to anything but fragments, per byte produced.",
            bucket.server_name,
            RECORD_BYTES >> 10
        );
        self.report.sheets.captions.insert(Sheet::Tiering, caption);
        Ok(())
    }

    fn fixed_rate(&mut self, bucket: &mut Bucket, upkeep: Upkeep) -> io::Result<(Outcome, Vec<(&'static str, f64)>)> {
        let slowness = Slowness { put_delay: PUT_DELAY, get_delay: GET_DELAY, bytes_per_s: 0 };
        let proxy = SlowPuts::slow(bucket.server.address, slowness)?;
        let place = bucket.place(true).through(proxy.address);
        let server = self.woodpecker_at(&place, upkeep.settings())?;
        let topic = self.topic();
        Connection::open(server.address)?.create_topic(&topic, PARTITIONS)?;
        let mut crowd = Crowd::new()?;
        crowd.open(server.address, CONNECTIONS, &topic)?;
        let mut load = Trickle {
            topic,
            partitions: PARTITIONS,
            partitions_each: PARTITIONS_EACH,
            record_bytes: RECORD_BYTES,
            records_per_s: MB_PER_S * 1_000_000 / RECORD_BYTES,
            duration: WARM_UP,
        };
        // Until the first rounds of upkeep are under way.
        connections::produce(&mut crowd, 0..CONNECTIONS, &load)?;
        load.duration = WINDOW;
        quiet_disk();
        let (cpu, before) = (server.cpu_s()?, Metrics::read(server.http())?);
        let outcome = connections::produce(&mut crowd, 0..CONNECTIONS, &load)?;
        let (cpu, after) = (server.cpu_s()? - cpu, Metrics::read(server.http())?);
        let moved = |metrics: &Metrics| {
            let all = metrics.sum("woodpecker_store_bytes_total", &[]);
            all - metrics.sum("woodpecker_store_bytes_total", &[("purpose", "logs"), ("direction", "written")])
        };
        let puts = requests(&after, "put", None) - requests(&before, "put", None);
        let row = vec![
            ("MB/s", outcome.mb_per_s()),
            ("p50 ms", outcome.latency_ms(50)),
            ("p99 ms", outcome.latency_ms(99)),
            ("moved", (moved(&after) - moved(&before)) / outcome.bytes as f64),
            ("PUT/s", puts / outcome.elapsed.as_secs_f64()),
            ("untiered MiB at the end", after.sum("woodpecker_untiered_bytes", &[]) / f64::from(1 << 20)),
            ("broker CPU-s per minute", cpu * 60.0 / outcome.elapsed.as_secs_f64()),
        ];
        drop((crowd, server));
        place.remove()?;
        Ok((outcome, row))
    }
}
