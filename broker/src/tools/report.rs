//! The documents that `--json` prints. Their names are an interface: fields are added, never renamed or given another meaning.

use serde::Serialize;

use super::Found;
use super::access::Subject;

/// Of both documents.
pub const FORMAT: u32 = 1;

/// Something that is wrong, by the key of an object or of a record in the metadata, or the name of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub key: String,
    pub why: Vec<String>,
    /// Partitions with records in it, `TOPIC-PARTITION`; not more than a few.
    pub partitions: Vec<String>,
}

/// What could not be read, and so not be judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    pub key: String,
    pub why: String,
}

impl Unchecked {
    /// It ended before anything was looked at.
    pub fn everything(why: &dyn std::error::Error) -> Self {
        Self { key: "everything".to_owned(), why: why.to_string() }
    }

    /// Of metadata or manifest something is damaged.
    pub fn everything_else() -> Self {
        let why = "what there should be is not known, as metadata or manifest are damaged: nothing else was looked at";
        Self { key: "everything else".to_owned(), why: why.to_owned() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphans {
    pub reason: &'static str,
    pub objects: u64,
    pub bytes: u64,
    /// The first few.
    pub keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    pub key: String,
    pub bytes: u64,
}

/// How much was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub partitions: u64,
    /// Fragments, tiered objects and segments' files.
    pub objects: u64,
    pub fragments: u64,
    pub batches: u64,
    pub bytes: u64,
    pub manifest_parts: u64,
    pub metadata_records: u64,
    pub journal_records: u64,
    pub fences: u64,
    /// More than one if a running broker moved data meanwhile.
    pub passes: u64,
}

/// What `verify` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    pub format: u32,
    pub storage: String,
    pub metadata: String,
    /// Of the metadata.
    pub revision: u64,
    /// `intact`, `damaged`, or `incomplete` if something could not be read.
    pub result: &'static str,
    pub checked: Checked,
    pub damage: Vec<Damage>,
    pub unchecked: Vec<Unchecked>,
    /// Objects that nothing refers to, by the reason. No damage.
    pub orphans: Vec<Orphans>,
    /// Objects, and keys of the metadata, that are none of ours.
    pub strange: Vec<Object>,
}

impl Verification {
    /// Of a storage of which nothing is known.
    pub fn nothing(subject: Subject) -> Self {
        Self {
            format: FORMAT,
            storage: subject.storage,
            metadata: subject.metadata,
            revision: 0,
            result: "incomplete",
            checked: Checked::default(),
            damage: Vec::new(),
            unchecked: Vec::new(),
            orphans: Vec::new(),
            strange: Vec::new(),
        }
    }

    pub fn found(&self) -> Found {
        found(&self.damage, &self.unchecked)
    }
}

fn found(damage: &[Damage], unchecked: &[Unchecked]) -> Found {
    match (damage, unchecked) {
        ([], []) => Found::Nothing,
        ([], _) => Found::Unreadable,
        (_, _) => Found::Damage,
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Log {
    pub log: u64,
    /// `open`, `sealing` or `sealed`.
    pub state: &'static str,
    /// The incarnation that owns it.
    pub writer: String,
    pub recover_from: u64,
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Segment {
    pub segment: u32,
    /// The first fragment that is not part of it. Of an open one: as far as it was seen to go.
    pub end: Option<u64>,
    /// `recorded`, `fenced by INCARNATION` or `open`.
    pub ended: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    pub log: u64,
    pub segment: u32,
    pub fragment: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// The first fragment that it does not have.
    pub position: Position,
    /// A base, then changes to it.
    pub parts: Vec<Object>,
    pub partitions: u64,
    pub runs: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Fragment {
    pub key: String,
    pub log: u64,
    pub segment: u32,
    pub fragment: u64,
    /// In its file.
    pub file_position: u64,
    pub bytes: u64,
    pub runs: u64,
    pub batches: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    pub key: String,
    pub bytes: u64,
    /// `data`, `fence`, `orphan: REASON`, ...
    pub role: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Partition {
    pub topic: String,
    pub topic_id: String,
    pub partition: i32,
    pub log_start: i64,
    /// The manifest has what lies below.
    pub manifest_end: i64,
    /// The offset after the last one stored. The high watermark, once nothing is in flight.
    pub end: i64,
    pub runs: u64,
    pub bytes: u64,
    pub tiered_bytes: u64,
    /// Offsets below it are compacted.
    pub cleaned_to: i64,
    /// -1 if nothing is stored.
    pub leader_epoch: i32,
    /// Only of a single partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<Vec<Run>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub base_offset: i64,
    /// Exclusive.
    pub next_offset: i64,
    pub leader_epoch: i32,
    pub max_timestamp: i64,
    pub key: String,
    pub log: u64,
    pub segment: Option<u32>,
    /// Number of the fragment, or of the tiered object.
    pub fragment: u64,
    pub tiered: bool,
    /// In the object, or the file.
    pub position: u64,
    pub length: u32,
    pub index_position: u64,
    pub index_length: u32,
}

/// What `inspect` prints: of each part only what was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    pub format: u32,
    pub storage: String,
    pub metadata: String,
    pub revision: u64,
    pub cluster_id: Option<String>,
    /// The number of the newest log, and the incarnation that owns it.
    pub newest_log: u64,
    pub owner: Option<String>,
    pub topics: u64,
    pub partition_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<Vec<Log>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Fragments that the manifest does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragments: Option<Vec<Fragment>>,
    /// Everything that lies in the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<Stored>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<Partition>>,
    /// What was met that is wrong. `verify` looks for more.
    pub damage: Vec<Damage>,
    /// What could not be shown.
    pub unchecked: Vec<Unchecked>,
}

impl Inspection {
    /// Of a storage of which nothing is known.
    pub fn nothing(subject: Subject) -> Self {
        Self {
            format: FORMAT,
            storage: subject.storage,
            metadata: subject.metadata,
            revision: 0,
            cluster_id: None,
            newest_log: 0,
            owner: None,
            topics: 0,
            partition_count: 0,
            logs: None,
            manifest: None,
            fragments: None,
            objects: None,
            partitions: None,
            damage: Vec::new(),
            unchecked: Vec::new(),
        }
    }

    pub fn found(&self) -> Found {
        found(&self.damage, &self.unchecked)
    }
}
