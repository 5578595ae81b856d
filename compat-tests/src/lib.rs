//! What the tests of the whole broker share: the checker of histories, and the means to run real processes.
//!
//! Modules are listed bottom-up; none imports one that stands below it in this list.

pub mod checker;

pub mod wait;

pub mod http;

pub mod process;

pub mod etcd;

pub mod tcp;

pub mod s3;

pub mod cloud;

pub mod proxy;

pub mod door;

pub mod clients;

pub mod looking;

pub mod tools;

pub mod workload;

pub mod sim;

pub mod raw;
