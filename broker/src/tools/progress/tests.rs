//! What is said about how far it has come.

use super::*;

#[test]
fn a_line_says_what_is_done_of_how_much() {
    assert_eq!(line("reading the manifest", (0, 0), (0, 0)), "reading the manifest");
    assert_eq!(line("listing", (7, 99), (0, 0)), "listing: 7 objects");
    assert_eq!(line("verifying", (1, 1 << 20), (4, 6 << 20)), "verifying: 1 of 4 objects, 1.0 of 6.0 MiB");
}
