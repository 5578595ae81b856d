//! Consumer groups as pure state: who is a member, which generation runs, which offsets are committed, and how all of
//! that looks in `__consumer_offsets`.
//!
//! Nothing here does I/O, spawns or reads a clock: time is an argument (`Now`), who waits is a oneshot sender that the
//! group holds, and what has to be durable first is handed out as a `Write` and reported back with `Group::written`.

pub mod offsets;
pub mod records;

mod messages;

mod roster;

mod group;

pub use self::group::{Group, member_id_for};
pub use self::messages::{
    DescribedMember, Description, Join, Joined, JoinedMember, Leaver, Limits, Now, Protocol, State, Step,
    SyncAssignment, Synced, Write, WriteId, WriteKind,
};
pub use self::offsets::{Committed, Expiry, Offsets};
pub use self::records::{GroupMetadata, MemberMetadata};
