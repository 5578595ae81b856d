//! Consumer groups as pure state: who is a member, which generation runs, which offsets are committed, and how all of
//! that looks in `__consumer_offsets`.
//!
//! Nothing here does I/O, spawns or reads a clock: time is an argument (`Now`), what waits is a oneshot sender that the
//! group holds, and what has to be durable first is handed out as a `Write` and reported back with `Group::written`.

mod group;
mod member;
mod messages;
pub mod offsets;
mod rebalance;
pub mod records;

pub use self::group::{Group, Limits, Now, State, Step, Write, WriteId, WriteKind};
pub use self::messages::{
    DescribedMember, Description, Join, Joined, JoinedMember, Leaver, Protocol, SyncAssignment, Synced,
};
pub use self::records::{GroupMetadata, MemberMetadata};
