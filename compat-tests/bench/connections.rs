//! Producers of which each has little to say: a fixed rate over many connections, whatever the broker answers.
//!
//! A latency counts from when the record was due, so that a broker that stalls is not asked less and looks no better.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    batch::Batch,
    clock::{epoch_ms, now},
    crowd::Crowd,
    load::{Outcome, check_produced, produce_request},
    wire::failed,
};

/// After the last record was due, that long until it is answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Trickle {
    pub topic: String,
    pub partitions: usize,
    pub record_bytes: usize,
    /// Of all connections together.
    pub records_per_s: usize,
    pub duration: Duration,
}

/// The connections take turns, each with one record for one partition; acks=all.
pub fn produce(crowd: &mut Crowd, producers: Range<usize>, trickle: &Trickle) -> io::Result<Outcome> {
    let batch = Batch::of(1, trickle.record_bytes, epoch_ms());
    let partitions = 0..trickle.partitions;
    let mut frames: Vec<Vec<u8>> =
        partitions.map(|partition| produce_request(&trickle.topic, partition..partition + 1, &batch)).collect();
    let records = (trickle.duration.as_secs_f64() * trickle.records_per_s as f64) as usize;
    let gap = Duration::from_secs(1) / trickle.records_per_s as u32;
    let since = now();
    // When what each connection has not been answered yet was due; only the first of it has been sent.
    let mut waiting = vec![VecDeque::<Instant>::new(); producers.len()];
    let mut latencies = Vec::with_capacity(records);
    let limit = since + trickle.duration + ANSWER_LIMIT;
    let mut begun = 0;
    while latencies.len() < records {
        let due = |record: usize| since + gap * record as u32;
        while begun < records && due(begun) <= now() {
            let producer = begun % producers.len();
            waiting[producer].push_back(due(begun));
            if waiting[producer].len() == 1 {
                crowd.ask_frame(producers.start + producer, &mut frames[producer % trickle.partitions])?;
            }
            begun += 1;
        }
        let until = if begun < records { due(begun) } else { limit };
        for who in crowd.answered(until)? {
            check_produced(crowd.answer(who)?)?;
            let producer = who.checked_sub(producers.start).ok_or_else(|| failed("an idle connection was answered"))?;
            let due = waiting[producer].pop_front().ok_or_else(|| failed("an answer to no request"))?;
            latencies.push(now() - due);
            if !waiting[producer].is_empty() {
                crowd.ask_frame(who, &mut frames[producer % trickle.partitions])?;
            }
        }
        if now() > limit {
            return Err(failed(format!("{} of {records} records are acknowledged", latencies.len())));
        }
    }
    latencies.sort_unstable();
    let bytes = (records * trickle.record_bytes) as u64;
    Ok(Outcome { bytes, records: records as u64, elapsed: now() - since, latencies })
}
