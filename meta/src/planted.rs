//! Planted bugs: each breaks one safety rule on purpose, so that a test can be shown to catch it.
//!
//! Without the build feature `planted-bugs` this is a constant `false` and costs nothing. With it, the environment
//! variable `WOODPECKER_PLANTED_BUG` names the one bug that is live, so that one build serves for all of them.

/// Every planted bug: its name, and the rule it breaks.
pub const BUGS: &[(&str, &str)] = &[
    ("already-exists-is-mine", "an AlreadyExists answer is taken for one's own write without reading back"),
    ("not-found-means-never-landed", "a 404 on read-back is taken as proof that the write will never land"),
    ("stale-read-after-takeover", "a read of the metadata does not check that nobody has taken over"),
    ("conflict-without-ownership-check", "a conflict is answered from a state that may have been taken over"),
    ("unsettled-commit-forgotten", "a commit of unknown outcome is forgotten and its number used again"),
    ("takeover-record-trimmed", "a takeover record is deleted, so that a fenced owner can create its number again"),
    ("takeover-unverified", "a takeover does not check that its number had not been used and deleted before"),
    ("leases-survive-takeover", "a takeover keeps the leased keys of the owner before"),
    ("ack-before-durable", "a fragment is acknowledged when its PUT is sent"),
    ("ack-out-of-order", "a fragment is acknowledged before a lower one"),
    ("reack-after-fence", "a fragment above a fence is acknowledged"),
    ("bytes-change-on-retry", "a fragment of unknown outcome is sent again with other bytes"),
    ("fence-skips-read-back", "recovery takes any object at the first absent fragment for a fence"),
    ("recovery-trusts-list", "recovery takes the end of a log from LIST, fragments above the fence included"),
    ("seal-end-moves", "the recorded end of a sealed log is overwritten"),
    ("replay-skips-gap", "a gap between the runs of a partition is taken for the end of the first (rule 5)"),
    ("checksum-not-checked", "bytes read from storage are served without comparing their checksum"),
    ("damaged-chunk-kept", "a chunk whose bytes are damaged stays with the readers' shared chunks"),
    ("readers-hold-turns", "what all readers wait for is held by a reader's future, which need not be polled"),
    ("no-fdatasync-before-ack", "a fragment is acknowledged before its file was synced (rule 11)"),
    (
        "no-directory-sync",
        "a new file's folder is not synced before the file's first fragment is acknowledged (rule 11)",
    ),
    ("sync-failure-retried", "a failed fdatasync is tried again on the same file, and believed (rule 11)"),
    ("torn-tail-served", "a fragment is taken for content though its data was only half written (rule 11)"),
    ("produce-crc-unchecked", "a record batch is accepted although its checksum does not fit"),
    ("hw-before-durable", "the high watermark moves when an append is enqueued, not when it is durable"),
    ("fetch-above-hw", "a fetch may ask for offsets above the high watermark"),
    ("reply-from-producer-state-alone", "a retry of a pending batch is acknowledged before the batch is durable"),
    ("offsets-reused-after-failure", "offsets of appends of unknown outcome are given again"),
    ("dedup-not-rebuilt", "producer state is not rebuilt from the log at start"),
    ("sync-before-durable", "members get their assignment before the group's record is durable"),
    ("commit-goes-back", "a committed offset is replaced by that of an older record"),
    ("commit-before-durable", "a commit of offsets is answered and visible before its record is durable"),
    ("group-loaded-early", "groups are answered for before all their records were read"),
    ("topic-change-not-durable", "a change of a topic (configuration, partitions, log starts) is not written (rule 8)"),
    ("log-start-not-restored", "records that were deleted come back with a restart"),
    (
        "etcd-lost-answer-is-failure",
        "a transaction in etcd whose answer got lost is taken for one that failed (rule 12)",
    ),
    ("ownership-never-checked", "a fenced broker that never writes goes on serving reads (rule 6)"),
    ("commit-by-a-former-owner", "a metadata transaction does not compare that its broker still owns its log"),
    ("register-after-stale-listing", "a log is registered although another was since the logs were listed and fenced"),
    ("own-fence-proves-nothing-lost", "a writer that finds its own fence takes its log for unfenced (rule 6)"),
    (
        "unfenced-while-rolling",
        "a writer that is registering its next segment looks for fences in the last one (rule 6)",
    ),
    ("compaction-keeps-the-first", "compaction keeps the first record of a key instead of the last"),
    ("tombstone-dropped-at-once", "compaction drops a tombstone before readers had time to see it"),
    ("tombstone-horizon-too-early", "a tombstone gets its horizon before all that it deletes is covered by the pass"),
    ("produce-reply-before-durable", "a produce request is answered before its batches are durable"),
    ("recover-from-raised-while-sealing", "a writer raises where recovery begins while somebody recovers (rule 1)"),
    ("manifest-before-its-data", "the manifest's record names a part that is not written yet (rule 8)"),
    ("unit-deleted-while-referenced", "something is deleted although runs of the manifest lie in it (rule 9)"),
    ("upload-not-completed", "an upload in parts counts as an object before it was completed (rule 8)"),
    ("merge-ignores-what-changed", "runs are merged away although they were changed meanwhile"),
    ("merge-skips-a-run", "a run that lies between those that are merged is taken for one of them"),
    ("collector-ignores-references", "whatever an earlier start has tiered is taken for an orphan (rule 9)"),
    ("view-ends-where-it-was-deleted", "a look takes the first absent fragment for the end though it was deleted"),
    ("look-takes-a-torn-tail", "a look takes a fragment for content though its data was only half written (rule 11)"),
    ("missing-is-damage", "what is not there is reported as damage though nothing refers to it any more (rule 9)"),
    ("scrub-trusts-the-index", "a scrub does not compare checksums of record data"),
];

/// Is this planted bug live?
#[cfg(feature = "planted-bugs")]
pub fn bug(name: &str) -> bool {
    static LIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(BUGS.iter().any(|(known, _)| *known == name), "{name} is not in the table of planted bugs");
    LIVE.get_or_init(|| std::env::var("WOODPECKER_PLANTED_BUG").ok()).as_deref() == Some(name)
}

/// Is this planted bug live? Never, in a build without the feature `planted-bugs`.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn bug(_name: &str) -> bool {
    false
}
