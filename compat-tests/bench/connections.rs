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
    /// In each request, one record for each of them; requests go round all partitions.
    pub partitions_each: usize,
    pub record_bytes: usize,
    /// Of all connections together.
    pub records_per_s: usize,
    pub duration: Duration,
}

/// The connections take turns, each with one request; acks=all.
pub fn produce(crowd: &mut Crowd, producers: Range<usize>, trickle: &Trickle) -> io::Result<Outcome> {
    let batch = Batch::of(1, trickle.record_bytes, epoch_ms());
    let each = trickle.partitions_each;
    let firsts = (0..trickle.partitions).step_by(each);
    let mut frames: Vec<Vec<u8>> =
        firsts.map(|first| produce_request(&trickle.topic, first..first + each, &batch)).collect();
    let requests = (trickle.duration.as_secs_f64() * trickle.records_per_s as f64) as usize / each;
    let gap = Duration::from_secs(1) * each as u32 / trickle.records_per_s as u32;
    let since = now();
    // When what each connection has not been answered yet was due; only the first of it has been sent.
    let mut waiting = vec![VecDeque::<Instant>::new(); producers.len()];
    let mut latencies = Vec::with_capacity(requests);
    let limit = since + trickle.duration + ANSWER_LIMIT;
    let (mut begun, mut sent) = (0, 0);
    let mut ask = |crowd: &mut Crowd, who: usize| {
        let frame = sent % frames.len();
        sent += 1;
        crowd.ask_frame(who, &mut frames[frame])
    };
    while latencies.len() < requests {
        let due = |request: usize| since + gap * request as u32;
        while begun < requests && due(begun) <= now() {
            let producer = begun % producers.len();
            waiting[producer].push_back(due(begun));
            if waiting[producer].len() == 1 {
                ask(crowd, producers.start + producer)?;
            }
            begun += 1;
        }
        let until = if begun < requests { due(begun) } else { limit };
        for who in crowd.answered(until)? {
            check_produced(crowd.answer(who)?)?;
            let producer = who.checked_sub(producers.start).ok_or_else(|| failed("an idle connection was answered"))?;
            let due = waiting[producer].pop_front().ok_or_else(|| failed("an answer to no request"))?;
            latencies.push(now() - due);
            if !waiting[producer].is_empty() {
                ask(crowd, who)?;
            }
        }
        if now() > limit {
            return Err(failed(format!("{} of {requests} requests are acknowledged", latencies.len())));
        }
    }
    latencies.sort_unstable();
    let records = requests * each;
    let bytes = (records * trickle.record_bytes) as u64;
    Ok(Outcome { bytes, records: records as u64, elapsed: now() - since, latencies })
}
