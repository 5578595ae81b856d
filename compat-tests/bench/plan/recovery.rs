//! How long a broker needs after kill -9: with data that no manifest has yet, and with many partitions.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{CONNECTIONS, Run, SMALL_RECORD_BYTES, WINDOW, quiet_disk, s3::NOT_TIERED};
use crate::{
    bucket::Place,
    clock::{now, pause},
    http,
    load::{self, Load},
    report::Sheet,
    servers::Server,
    wire::{Connection, failed},
};

/// Little less than 1 GiB as stored, which is as much as can be left untiered.
const UNTIERED_BYTES: u64 = 1_040_000_000;
/// Partitions, and what a producer fills a batch to.
const CASES: [(usize, usize); 2] = [(16, 16 << 10), (10_000, 8 << 10)];
const START_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

impl Run {
    pub(super) fn recovery(&mut self) -> io::Result<()> {
        let mut bucket = self.start_bucket()?;
        for round in 0..self.plan.store_rounds {
            for (partitions, batch_bytes) in CASES {
                let folder = self.plan.folder.join("data").to_string_lossy().into_owned();
                self.killed("a folder", &folder, &[], round, partitions, batch_bytes)?;
                std::fs::remove_dir_all(&folder)?;
                let place: Place = bucket.place(true);
                self.killed("S3", &place.url(), &place.environment(), round, partitions, batch_bytes)?;
                place.remove()?;
            }
        }
        let caption = format!(
            "Aim: seconds. From the start of the process to /readyz and to the first Fetch answered with the oldest \
             records. S3 server: {}. Nothing was tiered before the kill.",
            bucket.server_name
        );
        self.report.sheets.captions.insert(Sheet::Recovery, caption);
        Ok(())
    }

    fn killed(
        &mut self,
        what: &str,
        storage: &str,
        environment: &[(String, String)],
        round: usize,
        partitions: usize,
        batch_bytes: usize,
    ) -> io::Result<()> {
        let settings = NOT_TIERED.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment: Vec<(String, String)> = environment.iter().cloned().chain(settings).collect();
        let mut server = self.woodpecker_with(storage, &environment)?;
        let load = Load {
            topic: self.topic(),
            partitions,
            record_bytes: SMALL_RECORD_BYTES,
            batch_bytes,
            connections: CONNECTIONS,
            // A request has a batch for each partition.
            window: if partitions > 1_000 { 1 } else { WINDOW },
            total_bytes: UNTIERED_BYTES,
        };
        Connection::open(server.address)?.create_topic(&load.topic, partitions)?;
        let produced = load::produce(server.address, &load)?;
        server.kill()?;
        quiet_disk();
        server.start_again()?;
        let since = now();
        http::wait_for_ok(server.http(), "/readyz", START_LIMIT)?;
        let ready_s = (now() - since).as_secs_f64();
        first_fetch(&mut server, &load.topic, since)?;
        let fetched_s = (now() - since).as_secs_f64();
        let per_batch = batch_bytes / SMALL_RECORD_BYTES;
        let row = format!(
            "{what}, {:.2} GB untiered in {partitions} partitions, batches of {per_batch} records",
            produced.bytes as f64 / 1e9
        );
        self.entry(
            Sheet::Recovery,
            &row,
            round,
            &[
                ("s until ready", ready_s),
                ("s until the first fetch", fetched_s),
                ("CPU-s", server.cpu_s()?),
                ("resident set, MiB", server.memory_bytes()? as f64 / f64::from(1 << 20)),
            ],
        );
        Ok(())
    }
}

fn first_fetch(server: &mut Server, topic: &str, since: Instant) -> io::Result<()> {
    loop {
        match load::fetch_oldest(server.address, topic) {
            Ok(records) if records > 0 => return Ok(()),
            Ok(_) => return Err(failed("acknowledged records are gone")),
            Err(error) if now() - since > START_LIMIT => return Err(error),
            Err(_) => {
                server.check_alive()?;
                pause(POLL);
            }
        }
    }
}
