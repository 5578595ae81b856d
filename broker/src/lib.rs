//! The Kafka face of the log.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

/// What was asked for and by whom, and how it is answered: the types between a connection and an API.
pub mod request;

/// The one place where error kinds become Kafka error codes.
pub mod error;

pub mod config;
