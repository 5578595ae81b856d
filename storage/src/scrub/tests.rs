//! Tests of scrub, written below.
