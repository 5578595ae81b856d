//! A few threads for reads of files: a read that blocks on the disk never holds up the runtime.
//!
//! Invariant: at most `QUEUE` reads wait or run at any time; further ones wait without taking memory for their results.

use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, Result};

/// Reads that wait or run.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

pub struct ReadPool {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

impl ReadPool {
    /// Starts the threads. They end when the pool is dropped.
    pub fn start(threads: usize) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let queue = queue.clone();
            thread::Builder::new()
                .name(format!("log-reader-{number}"))
                .spawn(move || run(&queue))
                .map_err(|source| Error::Unavailable { what: "a reader thread".into(), source: Box::new(source) })?;
        }
        Ok(Self { jobs, room: Arc::new(Semaphore::new(QUEUE)) })
    }

    /// Runs something that blocks. It runs to its end even if the caller gives up.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        const CLOSED: Error = Error::Closed { what: "the pool of reader threads" };
        let room = self.room.clone().acquire_owned().await.map_err(|_| CLOSED)?;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            let _ = answer.send(work());
            drop(room);
        });
        self.jobs.send(job).map_err(|_| CLOSED)?;
        answered.await.map_err(|_| CLOSED)
    }
}

fn run(queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the others wait for the lock instead.
        let job = queue.lock().recv();
        match job {
            Ok(job) => job(),
            Err(mpsc::RecvError) => return,
        }
    }
}

#[cfg(test)]
mod tests;
