//! Produce and fetch: for every cell a fresh Woodpecker, so that the space of the one before is given back. Rounds
//! are the outer loop: what the machine does for a minute falls upon one round of many cells, not on one cell.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use super::{Run, SINK_PORT, Section, progress, quiet_disk, turns};
use crate::{
    clock::now,
    folder, java,
    load::{self, Load, Outcome},
    report::{Case, Kind},
    servers::{Server, Who},
    wire::Connection,
};

const FOLDER_CHUNKS: [usize; 2] = [1 << 20, 8 << 20];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    Own,
    Java,
}

/// Client and round, the most important first: one round of each client, then the others of our own, then Java's.
pub fn passes(rounds: usize, java_rounds: usize) -> Vec<(Client, usize)> {
    let of = |client, rounds: std::ops::Range<usize>| rounds.map(move |round| (client, round));
    let first = of(Client::Own, 0..rounds.min(1)).chain(of(Client::Java, 0..java_rounds.min(1)));
    first.chain(of(Client::Own, 1..rounds)).chain(of(Client::Java, 1..java_rounds)).collect()
}

/// Client, partitions, record size.
type Work = (Client, usize, usize);

/// How long each kind of work took the last time, to leave out what cannot be finished in time.
#[derive(Debug, Default)]
pub struct Pace(BTreeMap<Work, Duration>);

impl Pace {
    pub fn fits(&self, work: Work, at: Instant, deadline: Instant) -> bool {
        self.0.get(&work).is_none_or(|last| at + *last <= deadline)
    }

    pub fn note(&mut self, work: Work, took: Duration) {
        self.0.insert(work, took);
    }
}

impl Run {
    fn wants(&self, section: Section) -> bool {
        self.plan.sections.contains(&section)
    }

    pub(super) fn throughput(&mut self, kafka: Option<&Server>) -> io::Result<()> {
        let mut pace = Pace::default();
        for (client, round) in passes(self.plan.rounds, self.plan.java_rounds) {
            let in_time = round == 0 || now() < self.deadline;
            if client == Client::Own && self.wants(Section::Produce) && in_time {
                self.folder_limits(round)?;
            }
            for (partitions, record_bytes) in self.plan.cells.clone() {
                let (work, since) = ((client, partitions, record_bytes), now());
                if !pace.fits(work, since, self.deadline) {
                    let round = round + 1;
                    progress(format_args!("no time for round {round} of {client:?} x{partitions} {record_bytes} B"));
                    continue;
                }
                self.cell(client, kafka, (partitions, record_bytes), round)?;
                pace.note(work, now() - since);
            }
        }
        Ok(())
    }

    fn cell(
        &mut self,
        client: Client,
        kafka: Option<&Server>,
        (partitions, record_bytes): (usize, usize),
        round: usize,
    ) -> io::Result<()> {
        let woodpecker = self.start_woodpecker(64 << 20)?;
        // What a client can do is asked of Kafka's only once: it costs as much as measuring a broker.
        let with_sink = self.wants(Section::Produce) && (client == Client::Own || round == 0);
        let sink = || Server::sink(self.plan.folder.join("sink"), SINK_PORT, partitions);
        let sink = with_sink.then(sink).transpose()?;
        let servers: Vec<&Server> = kafka.into_iter().chain(&woodpecker).chain(&sink).collect();
        for batch_bytes in self.plan.batches.clone() {
            let case = Case { kind: Kind::Produce, partitions, record_bytes, batch_bytes };
            for server in turns(&servers, round) {
                match client {
                    Client::Own => self.own_client(server, case, round)?,
                    Client::Java => self.java_client(server, case, round)?,
                }
            }
        }
        self.note_memory(&servers)
    }

    fn own_client(&mut self, server: &Server, case: Case, round: usize) -> io::Result<()> {
        let load = self.load(case, self.plan.bytes);
        Connection::open(server.address)?.create_topic(&load.topic, load.partitions)?;
        if self.wants(Section::Produce) {
            self.sample(server, case, round, || load::produce(server.address, &load))?;
        } else {
            load::produce(server.address, &load)?;
        }
        if self.wants(Section::Fetch) && server.who != Who::Sink {
            let case = Case { kind: Kind::Fetch, ..case };
            self.sample(server, case, round, || load::drain(server.address, &load))?;
        }
        Connection::open(server.address)?.delete_topic(&load.topic)
    }

    fn java_client(&mut self, server: &Server, case: Case, round: usize) -> io::Result<()> {
        let script = self.plan.kafka_script.clone();
        if self.wants(Section::Produce) {
            let load = self.load(case, self.plan.java_bytes);
            let records = load.total_bytes / load.record_bytes as u64;
            Connection::open(server.address)?.create_topic(&load.topic, load.partitions)?;
            self.java_sample(server, Case { kind: Kind::Java, ..case }, round, records, || {
                java::produce(&script, server.address, &load.topic, load.record_bytes, load.batch_bytes, records)
            })?;
            Connection::open(server.address)?.delete_topic(&load.topic)?;
        }
        if self.wants(Section::Fetch) && server.who != Who::Sink {
            let load: Load = self.load(case, self.plan.bytes);
            Connection::open(server.address)?.create_topic(&load.topic, load.partitions)?;
            let records = load::produce(server.address, &load)?.records;
            self.java_sample(server, Case { kind: Kind::JavaFetch, ..case }, round, records, || {
                java::consume(&script, server.address, &load.topic, load.record_bytes, records)
            })?;
            Connection::open(server.address)?.delete_topic(&load.topic)?;
        }
        Ok(())
    }

    /// The CPU time is of all records; rate and latency are what the tool prints of its steady state.
    fn java_sample(
        &mut self,
        server: &Server,
        case: Case,
        round: usize,
        records: u64,
        tool: impl FnOnce() -> io::Result<java::Java>,
    ) -> io::Result<()> {
        let mut printed = None;
        self.sample(server, case, round, || {
            let since = now();
            printed = Some(tool()?);
            let bytes = records * case.record_bytes as u64;
            Ok(Outcome { bytes, records, elapsed: now() - since, ..Outcome::default() })
        })?;
        if let (Some(java), Some(sample)) = (printed, self.report.samples.last_mut()) {
            sample.mb_per_s = java.mb_per_s;
            (sample.p50_ms, sample.p99_ms) = (java.p50_ms, java.p99_ms);
            progress(format_args!("        the tool says {:.0} MB/s, p50 {} ms", java.mb_per_s, java.p50_ms));
        }
        Ok(())
    }

    fn folder_limits(&mut self, round: usize) -> io::Result<()> {
        for chunk_bytes in FOLDER_CHUNKS {
            quiet_disk();
            let outcome = folder::sequential(&self.plan.folder, chunk_bytes, self.plan.bytes)?;
            self.push_folder(round, chunk_bytes, &outcome);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
