//! The Kafka face of the log.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

/// What was asked for and by whom, and how it is answered: the types between a connection and an API.
pub mod request;

/// The one place where error kinds become Kafka error codes.
pub mod error;

pub mod config;

/// From the command line, the environment and the configuration file to settings.
pub mod cli;

/// From bytes that anybody may send to a request that can be decoded.
pub mod wire;

/// What can be seen from outside as numbers.
pub mod metrics;

/// What the object store costs.
pub mod cost;

/// One switch, many tasks that wait for it.
pub mod stop;

/// One connection: requests in, replies out, both in order.
pub mod connection;

/// Where connections come from, and the loop that accepts and serves them.
pub mod listener;

/// Metrics and health over HTTP.
pub mod http;

/// Where the data lives, by URL.
pub mod storage_url;

/// From settings to a metadata store of its own.
pub mod metadata_store;

/// The codecs of record batches.
pub mod compression;

/// Which topics exist.
pub mod topics;

/// The configuration reference.
pub mod reference;

pub mod producer_ids;

/// Whether this broker still owns its log.
pub mod ownership;

/// Record batches as producers send them: a bounded look at the records, and the checked header.
pub mod records;

pub mod batch;

/// Which records of a compacted topic survive.
pub mod compaction;

pub mod partition;

pub mod partitions;

/// What happens to data after it was acknowledged: tiering, retention, deletion.
pub mod upkeep;

/// Consumer groups as pure state, and their records.
pub mod groups;

/// Which groups this broker coordinates, their records and their timers.
pub mod coordinator;

/// What request handlers see.
pub mod broker;

/// One Kafka API per file, and the table of all of them.
pub mod api;

/// A broker's life, from taking over to its end.
pub mod node;

/// What looks at a storage without being a broker.
pub mod tools;
