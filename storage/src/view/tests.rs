//! Tests of view, written below.
