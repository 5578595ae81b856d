//! The whole broker in simulation: several incarnations on one bucket, clients, faults, all on one current-thread
//! runtime with simulated time, network and randomness. One number, the seed, decides everything; the same seed gives
//! the same trace.
//!
//! Why not a host runtime for each broker, ticked in steps, as turmoil does it: with one paused runtime idle time costs
//! nothing (an hour's outage is free), and a crash is what it is in reality, a stop in the middle of anything: a killed
//! host's requests, timers and sockets are never answered again, wherever its tasks wait, and no destructor runs.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

pub mod dice;

pub mod trace;

pub mod net;

pub mod wire;

pub mod connection;

pub mod stores;

pub mod shared;

pub mod model;

pub mod group_model;

pub mod session;

pub mod offsets;

pub mod reader;

pub mod group_calls;

pub mod group_member;

pub mod producer;

pub mod probing;

pub mod admin;

pub mod shrinking;

pub mod cluster;

pub mod fake;

pub mod boot;

pub mod chaos;

pub mod run;
