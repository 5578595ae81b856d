//! The whole key space: every key of the metadata store and every object key of the storage URL.
//!
//! Numbers are zero-padded, so that key order is number order. Topic names never become part of an object key.

/// Keys of the metadata store.
pub mod store {
    use uuid::Uuid;

    /// The cluster's id, written once by the first broker that ever started here.
    pub const CLUSTER: &str = "cluster";
    /// Which storage this is the metadata of, if the storage holds it not itself.
    pub const STORAGE: &str = "storage";
    /// The next producer id that was not yet handed out to a broker.
    pub const PRODUCER_IDS: &str = "producer_ids";
    /// The number of the newest log.
    pub const LOG_COUNTER: &str = "log_counter";
    pub const LOGS: &str = "logs/";
    /// What the manifest consists of, and up to where it reaches.
    pub const MANIFEST: &str = "manifest";
    pub const TOPICS: &str = "topics/";

    /// A log's record: who writes it, its segments and their ends.
    pub fn log(log: u64) -> String {
        format!("{LOGS}{log:010}")
    }

    /// A topic's record, by name: id, partition count, configuration, where partitions begin.
    pub fn topic(name: &str) -> String {
        format!("{TOPICS}{name}")
    }

    /// The name in a topic's key.
    pub fn topic_name(key: &str) -> Option<&str> {
        key.strip_prefix(TOPICS)
    }

    /// Configuration that was changed while brokers ran: of one broker, or of all of them.
    pub fn broker_configs(broker: Option<i32>) -> String {
        match broker {
            Some(id) => format!("configs/brokers/{id:010}"),
            None => "configs/brokers/all".to_owned(),
        }
    }

    /// Reserved for data that belongs to a topic id rather than a name.
    pub fn topic_id(id: Uuid) -> String {
        format!("topic_ids/{}", id.simple())
    }
}

/// Object keys, relative to the root of the storage URL.
pub mod object {
    use object_store::path::Path;

    /// Tiered objects count as fragments of a segment with this number.
    pub const TIERED_SEGMENT: u32 = u32::MAX;

    /// One fragment of a log, or the fence that ends a segment, or a tiered object that the log's writer wrote.
    pub fn fragment(log: u64, segment: u32, fragment: u64) -> Path {
        if segment == TIERED_SEGMENT {
            return Path::from(format!("logs/{log:010}/tiered/{fragment:012}.frag"));
        }
        Path::from(format!("logs/{log:010}/{segment:06}/{fragment:012}.frag"))
    }

    pub fn logs_prefix() -> Path {
        Path::from("logs")
    }

    /// What stands below `logs_prefix`, by its key.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum LogObject {
        /// Of a tiered object too: then the segment is `TIERED_SEGMENT`.
        Fragment {
            log: u64,
            segment: u32,
            fragment: u64,
        },
        SegmentFile {
            log: u64,
            segment: u32,
        },
    }

    /// The inverse of `fragment` and `segment_file`. None for what is neither.
    pub fn parse_log_object(key: &Path) -> Option<LogObject> {
        let mut parts = key.as_ref().strip_prefix("logs/")?.split('/');
        let log = parts.next()?.parse().ok()?;
        let found = match (parts.next()?, parts.next()) {
            (file, None) => LogObject::SegmentFile { log, segment: file.strip_suffix(".seg")?.parse().ok()? },
            (segment, Some(file)) => {
                let segment = if segment == "tiered" { TIERED_SEGMENT } else { segment.parse().ok()? };
                LogObject::Fragment { log, segment, fragment: file.strip_suffix(".frag")?.parse().ok()? }
            }
        };
        parts.next().is_none().then_some(found)
    }

    /// A part of the manifest: the number counts up within the log of whoever wrote it.
    pub fn manifest(log: u64, number: u64) -> Path {
        Path::from(format!("manifests/{log:010}/{number:012}.mf"))
    }

    pub fn manifests_prefix() -> Path {
        Path::from("manifests")
    }

    /// The inverse of `manifest`: log and number.
    pub fn parse_manifest(key: &Path) -> Option<(u64, u64)> {
        let (log, number) = key.as_ref().strip_prefix("manifests/")?.split_once('/')?;
        Some((log.parse().ok()?, number.strip_suffix(".mf")?.parse().ok()?))
    }

    /// The id that ties a storage to its metadata, if that is kept elsewhere.
    pub fn binding() -> Path {
        Path::from("meta/kept-elsewhere")
    }

    /// A segment in a folder: one file that holds all of its fragments.
    pub fn segment_file(log: u64, segment: u32) -> Path {
        Path::from(format!("logs/{log:010}/{segment:06}.seg"))
    }

    /// One transaction, or takeover, of the embedded metadata.
    pub fn journal(number: u64) -> Path {
        Path::from(format!("meta/journal/{number:020}"))
    }

    pub fn journal_prefix() -> Path {
        Path::from("meta/journal")
    }

    /// The embedded metadata as of a journal number.
    pub fn snapshot(number: u64) -> Path {
        Path::from(format!("meta/snapshot/{number:020}"))
    }

    pub fn snapshot_prefix() -> Path {
        Path::from("meta/snapshot")
    }

    /// Scratch objects of the start-up probe.
    pub fn probe(nonce: u128, round: u32) -> Path {
        Path::from(format!("meta/probe/{nonce:032x}/{round:03}"))
    }
}
