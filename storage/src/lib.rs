//! The shared log: record data as fragments in object storage or in a folder.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

pub mod error;

pub mod budget;

pub mod apart;

pub mod entry;

pub mod log;

#[cfg(feature = "testing")]
pub mod samples;

pub mod metered;

pub mod fragment;

/// Fragments that unit tests make up.
#[cfg(test)]
mod stand_in;

pub mod registry;

pub mod object_log;

pub mod partition_index;

pub mod tiered;

pub mod manifest;

pub mod tail;

pub mod index_cache;

pub mod chunks;

pub mod reader;

pub mod folder;

pub mod files;

pub mod read_pool;

pub mod file_log;

/// What is stored, looked at by one who owns nothing of it.
pub mod view;

/// Whether what is stored is what was written.
pub mod scrub;

/// What of all that lies in a storage is needed, and by whom.
pub mod census;

#[cfg(feature = "testing")]
pub mod conformance;
