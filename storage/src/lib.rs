//! The shared log: record data as fragments in object storage or in a folder.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

pub mod error;

pub mod budget;

pub mod entry;

#[cfg(feature = "testing")]
pub mod samples;

pub mod log;

pub mod metered;

pub mod fragment;

pub mod partition_index;

pub mod tail;

pub mod index_cache;

pub mod reader;
