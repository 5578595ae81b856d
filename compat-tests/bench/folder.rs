//! What the folder itself can do: the limits that no broker which syncs before it acknowledges can pass.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use crate::{
    clock::{now, pause},
    load::Outcome,
};

/// Appends `total` bytes in chunks, each synced before the next: the throughput of one writer.
pub fn sequential(folder: &Path, chunk_bytes: usize, total_bytes: u64) -> io::Result<Outcome> {
    let chunks = (total_bytes / chunk_bytes as u64).max(1);
    append(folder, chunk_bytes, chunks as usize, Duration::ZERO)
}

/// Appends 4 KiB and syncs, with a pause before each: the latency under everything that is acknowledged when durable.
pub fn small_appends(folder: &Path, count: usize, gap: Duration) -> io::Result<Outcome> {
    append(folder, 4 << 10, count, gap)
}

/// Bytes given to the kernel at a time: with much larger writes it takes huge pages for its cache, which in a virtual
/// machine can cost more than the disk does.
const WRITE_BYTES: usize = 256 << 10;

fn append(folder: &Path, chunk_bytes: usize, count: usize, gap: Duration) -> io::Result<Outcome> {
    let path = folder.join("raw");
    let mut file = File::create(&path)?;
    let chunk: Vec<u8> = (0..chunk_bytes).map(|position| (position * 31 % 251) as u8).collect();
    let mut latencies = Vec::with_capacity(count);
    let since_all = now();
    for _ in 0..count {
        pause(gap);
        let since = now();
        for piece in chunk.chunks(WRITE_BYTES) {
            file.write_all(piece)?;
        }
        file.sync_data()?;
        latencies.push(now() - since);
    }
    let elapsed = now() - since_all;
    fs::remove_file(&path)?;
    latencies.sort_unstable();
    Ok(Outcome { bytes: (chunk_bytes * count) as u64, records: count as u64, elapsed, latencies })
}
