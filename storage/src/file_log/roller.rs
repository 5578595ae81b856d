//! Registers next segments for a writer's thread, which cannot wait on the metadata store itself.

use std::sync::Arc;
use std::time::Duration;

use meta::error::ErrorKind;
use meta::seams::Incarnation;
use meta::store::MetaStore;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::registry;

/// While its outcome is open nothing can be appended, so it is tried again until it is known, for about ten seconds.
const ATTEMPTS: u32 = 12;
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

struct Request {
    segment: u32,
    end: u64,
    /// The writer can go on without: an attempt that changed nothing is not repeated.
    if_possible: bool,
    answer: oneshot::Sender<Result<u32>>,
}

/// The thread's end. The task behind it ends when this is dropped.
pub(super) struct Roller(mpsc::Sender<Request>);

impl Roller {
    pub fn start(meta: Arc<dyn MetaStore>, log: u64, writer: Incarnation) -> Self {
        let (sender, mut requests) = mpsc::channel::<Request>(1);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let registered = register(&*meta, log, writer, &request).await;
                if request.answer.send(registered).is_err() {
                    return;
                }
            }
        });
        Self(sender)
    }

    /// Records where a segment ends and registers the next one. Blocks. After an error it may have happened or not.
    pub fn next_segment(&self, segment: u32, end: u64) -> Result<u32> {
        self.ask(segment, end, false).and_then(|next| next)
    }

    /// The same, if the metadata store can be reached. None if it cannot: then nothing has happened.
    pub fn next_segment_if_possible(&self, segment: u32, end: u64) -> Result<Option<u32>> {
        match self.ask(segment, end, true)? {
            Ok(next) => Ok(Some(next)),
            Err(error) if error.kind() == ErrorKind::Retriable => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, segment: u32, end: u64, if_possible: bool) -> Result<Result<u32>> {
        const CLOSED: Error = Error::Closed { what: "the runtime" };
        let (answer, answered) = oneshot::channel();
        self.0.blocking_send(Request { segment, end, if_possible, answer }).map_err(|_| CLOSED)?;
        answered.blocking_recv().map_err(|_| CLOSED)
    }
}

async fn register(meta: &dyn MetaStore, log: u64, writer: Incarnation, request: &Request) -> Result<u32> {
    let mut backoff = BACKOFF;
    let mut doubted = false;
    for attempt in 1.. {
        match registry::next_segment(meta, log, writer, request.segment, request.end).await {
            Err(error) if error.kind() == ErrorKind::Retriable && request.if_possible && !doubted => {
                tracing::warn!(log, segment = request.segment, %error, "going on in this segment for now");
                return Err(error);
            }
            // The last answer alone would say that nothing has happened.
            Err(error) if error.kind() == ErrorKind::Retriable && doubted && attempt == ATTEMPTS => {
                return Err(Error::Unknown { what: error.to_string() });
            }
            Err(error) if settles_later(&error) && attempt < ATTEMPTS => {
                tracing::warn!(log, segment = request.segment, %error, attempt, "could not register the next segment");
                doubted |= error.kind() == ErrorKind::Unknown;
            }
            settled => return settled,
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
    unreachable!("the last attempt returns")
}

fn settles_later(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Retriable | ErrorKind::Unknown)
}
