//! Tests of census, written below.
