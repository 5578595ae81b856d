//! The reference in the tree is the one that the tables generate.

use super::*;

#[test]
fn the_reference_is_what_the_tables_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIGURATION.md");
    let written = std::fs::read_to_string(path).unwrap();
    let hint = "run: cargo run -p broker --bin woodpecker -- --config-reference > broker/CONFIGURATION.md";
    for (written, generated) in written.lines().zip(markdown().lines()) {
        assert_eq!(written, generated, "{hint}");
    }
    assert_eq!(written, markdown(), "{hint}");
}
