//! Watches: one stream of etcd each, continued on another connection whenever one breaks.
//!
//! Invariant: `next` is the first revision of which the receiver may not have everything; it moves when a batch was
//! handed over, or when etcd says that there was nothing up to a revision. A stream begins at `next`, so that nothing is
//! lost or told twice. A slow receiver holds up its stream, and what it has not taken stays in etcd: if it is compacted
//! meanwhile, the watch ends with `Compacted`.

use std::collections::BTreeMap;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::store::{Event, Revision, Watch, WatchBatch};

use super::failure::Failure;
use super::link::{Connection, Link, closed};
use super::space::{Space, etcd_revision, revision};

/// Batches that a receiver may be behind.
const QUEUE_MAX: usize = 256;
/// A message of etcd holds at most a thousand revisions.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
const WHAT: &str = "a metadata watch";

struct Watching {
    link: Link,
    space: Space,
    prefix: Vec<u8>,
    next: Revision,
    queue: mpsc::Sender<Result<WatchBatch>>,
}

/// Why a stream is not read any more.
enum Broken {
    /// For good: the receiver is told, if there is something to tell.
    Ended(Option<Error>),
    /// To be continued on another connection.
    Lost(Failure),
}

pub fn watch(link: &Link, space: &Space, prefix: &str, from: Revision) -> Watch {
    let (queue, watch) = mpsc::channel(QUEUE_MAX);
    let prefix = space.key(prefix);
    // For etcd 0 means "from now on".
    let watching = Watching { link: link.clone(), space: space.clone(), prefix, next: from.max(1), queue };
    tokio::spawn(watching.run());
    watch
}

impl Watching {
    async fn run(mut self) {
        let (link, queue) = (self.link.clone(), self.queue.clone());
        let why = tokio::select! {
            biased;
            () = link.closed() => Some(closed()),
            () = queue.closed() => None,
            why = self.follow() => why,
        };
        if let Some(why) = why {
            // The receiver may be full and slow: this waits for it, or for its end.
            let _ = queue.send(Err(why)).await;
        }
    }

    /// Goes from stream to stream, until there is nothing more to come.
    async fn follow(&mut self) -> Option<Error> {
        let pause = self.link.config().timing.backoff_max;
        loop {
            let connection = match self.link.connection(WHAT, self.link.deadline()).await {
                Ok(connection) => connection,
                Err(error @ Error::Closed { .. }) => return Some(error),
                Err(_) => {
                    sleep(pause).await;
                    continue;
                }
            };
            match self.stream(&connection).await {
                Broken::Ended(why) => return why,
                Broken::Lost(Failure::Refused(why)) => return Some(Error::Invalid { what: format!("{WHAT}: {why}") }),
                Broken::Lost(failure) => {
                    tracing::debug!(next = self.next, why = failure.why(), "a metadata watch is continued elsewhere");
                    self.link.give_up(&connection, failure.why());
                    sleep(self.link.config().timing.backoff).await;
                }
            }
        }
    }

    /// Hands over what one stream delivers.
    async fn stream(&mut self, connection: &Connection) -> Broken {
        let mut client = connection.client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
        let options =
            WatchOptions::new().with_prefix().with_start_revision(etcd_revision(self.next)).with_progress_notify();
        let key = self.prefix.clone();
        let opening = async move { client.watch(key, Some(options)).await };
        let mut stream: WatchStream = match self.link.once(connection, opening).await {
            Ok(stream) => stream,
            Err(failure) => return Broken::Lost(failure),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if let Err(broken) = self.take(&message).await {
                        return broken;
                    }
                }
                Ok(None) => return Broken::Lost(Failure::Unknown("the stream ended".to_owned())),
                Err(error) => return Broken::Lost(Failure::from(error)),
            }
        }
    }

    async fn take(&mut self, message: &WatchResponse) -> Result<(), Broken> {
        if message.compact_revision() > 0 {
            let oldest = revision(message.compact_revision());
            return Err(Broken::Ended(Some(Error::Compacted { requested: self.next, oldest })));
        }
        if message.canceled() {
            let why = message.cancel_reason().to_owned();
            let refused = why.contains("permission denied");
            return Err(Broken::Lost(if refused { Failure::Refused(why) } else { Failure::Unknown(why) }));
        }
        for batch in self.batches(message).map_err(|error| Broken::Ended(Some(error)))? {
            let next = batch.revision + 1;
            if self.queue.send(Ok(batch)).await.is_err() {
                return Err(Broken::Ended(None));
            }
            self.next = next;
        }
        // Without events it tells how far there were none.
        if message.events().is_empty()
            && !message.created()
            && let Some(header) = message.header()
        {
            self.next = self.next.max(revision(header.revision()) + 1);
        }
        Ok(())
    }

    /// A message's events by revision, each in key order.
    fn batches(&self, message: &WatchResponse) -> Result<Vec<WatchBatch>> {
        let mut by_revision: BTreeMap<Revision, BTreeMap<String, Event>> = BTreeMap::new();
        for event in message.events() {
            let Some(found) = event.kv() else { continue };
            let at = revision(found.mod_revision());
            let entry = self.space.entry(found)?;
            let key = entry.key.clone();
            let event = match event.event_type() {
                EventType::Put => Event::Put(entry),
                EventType::Delete => Event::Delete { key: entry.key, mod_revision: at },
            };
            by_revision.entry(at).or_default().insert(key, event);
        }
        let batch = |(revision, events): (Revision, BTreeMap<String, Event>)| WatchBatch {
            revision,
            events: events.into_values().collect(),
        };
        Ok(by_revision.into_iter().map(batch).collect())
    }
}
