//! The bottom of the tree: what must be agreed on, and the one way to agree on it.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

pub mod error;
pub mod seams;

pub mod planted;

#[cfg(feature = "testing")]
pub mod faults;

pub mod keys;
pub mod records;

pub mod read_only;

pub mod settled;

pub mod probe;

pub mod store;

pub mod frozen;

mod kv;
mod leases;
mod watchers;

pub mod memory;

pub mod embedded;

pub mod etcd;

pub mod owned;

#[cfg(feature = "testing")]
pub mod conformance;
