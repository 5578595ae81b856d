//! Self-tests: every rule is broken on purpose and must complain; what looks alike but is right must pass.

use crate::source::Source;
use crate::{modules, rules};

fn rust(path: &str, text: &str) -> Vec<Source> {
    vec![Source::new(path, text)]
}

fn complains(complaints: &[String], about: &str) {
    assert!(complaints.iter().any(|c| c.contains(about)), "no complaint about {about} in {complaints:?}");
}

fn silent(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn a_long_file_is_found() {
    complains(&rules::long_files(&rust("meta/src/a.rs", &"//\n".repeat(501))), "501 lines");
    silent(rules::long_files(&rust("meta/src/a.rs", &"//\n".repeat(500))));
    silent(rules::long_files(&rust("README.md", &"x\n".repeat(900))));
}

#[test]
fn a_long_function_is_found() {
    let body =
        |lines: usize| format!("fn f<'a>(x: [u8; 2]) -> &'a str\n{{\n{}}}\n", "    let _ = '{';\n".repeat(lines));
    complains(&rules::long_functions(&rust("meta/src/a.rs", &body(68))), "f has 71 lines");
    silent(rules::long_functions(&rust("meta/src/a.rs", &body(67))));
}

#[test]
fn braces_in_literals_and_comments_do_not_end_a_function() {
    let tricky = r####"let s = "}}"; let r = r##"}" }"##; /* } /* } */ } */ let c = '}'; let e = '\''; // }"####;
    let text = format!("pub async fn g() {{\n{tricky}\n{}}}\n", "    a();\n".repeat(80));
    complains(&rules::long_functions(&rust("meta/src/a.rs", &text)), "g has 83 lines");
}

#[test]
fn signatures_and_function_types_are_not_functions() {
    let text = format!("trait T {{\n    fn a(&self) -> u32;\n    f: fn(u32) -> u32,\n{}}}\n", "    //\n".repeat(90));
    silent(rules::long_functions(&rust("meta/src/a.rs", &text)));
}

#[test]
fn a_missing_head_is_found() {
    complains(&rules::missing_heads(&rust("meta/src/a.rs", "use x;\n")), "does not open");
    complains(&rules::missing_heads(&rust("meta/src/a.rs", "//!\n")), "does not open");
    silent(rules::missing_heads(&rust("meta/src/a.rs", "//! Says what it is for.\n")));
}

#[test]
fn an_ignored_test_is_found() {
    let attribute = ["#[", "ignore = \"slow\"]\n"].concat();
    complains(&rules::ignored_tests(&rust("a.rs", &attribute)), "proves nothing");
    silent(rules::ignored_tests(&rust("a.rs", "// to ignore a test is\n")));
}

#[test]
fn properties_that_write_files_are_found() {
    let block = |first: &str| format!("proptest! {{\n    {first}\n    fn f() {{}}\n}}\n");
    let quiet = block("// Why.\n    #![proptest_config(ProptestConfig { failure_persistence: None, ..X })]");
    complains(&rules::written_regressions(&rust("meta/src/a.rs", &block("#[test]"))), "a.rs:1: ");
    complains(&rules::written_regressions(&rust("meta/src/a.rs", &(quiet.clone() + &block("#[test]")))), "a.rs:6: ");
    silent(rules::written_regressions(&rust("meta/src/a.rs", &quiet)));
}

#[test]
fn forbidden_words_are_found() {
    for word in [["/ro", "ot/x"], ["// TO", "DO: x"], ["https://crates", ".io/x"], ["X", "XX"], ["to", "do!()"]] {
        complains(&rules::forbidden_words(&rust("a.md", &word.concat())), "a.md:1: ");
    }
    silent(rules::forbidden_words(&rust("a.md", "chroot/ network/ TODOS XXXL")));
}

#[test]
fn an_unknown_entry_at_the_top_is_found() {
    complains(&rules::top_level(&rust("notes/x.md", "")), "notes");
    silent(rules::top_level(&rust("meta/src/lib.rs", "")));
}

#[test]
fn a_crate_that_uses_one_above_it_is_found() {
    complains(&modules::crate_back_edges(&rust("meta/src/a.rs", "use storage::log;\n")), "meta uses storage");
    complains(&modules::crate_back_edges(&rust("storage/src/a.rs", "fn f() { broker::x() }\n")), "storage uses broker");
    complains(
        &modules::crate_back_edges(&rust("meta/Cargo.toml", "[dependencies]\nbroker.workspace = true\n")),
        "broker",
    );
    silent(modules::crate_back_edges(&rust("broker/src/a.rs", "use storage::log; // compat_tests::x\n")));
    silent(modules::crate_back_edges(&rust("meta/src/a.rs", "use crate::storage::x;\n")));
}

/// A crate with the modules low, middle (with the children one, two) and high, and this text in one file.
fn planted(path: &str, text: &str) -> Vec<String> {
    let mut sources = vec![Source::new("meta/src/lib.rs", "pub mod low;\nmod middle;\npub(crate) mod high;\n")];
    let parent = "mod one;\nmod two;\n".to_owned() + if path == "meta/src/middle.rs" { text } else { "" };
    sources.push(Source::new("meta/src/middle.rs", &parent));
    if path != "meta/src/middle.rs" {
        sources.push(Source::new(path, text));
    }
    modules::module_back_edges(&sources)
}

#[test]
fn a_module_that_uses_one_listed_below_it_is_found() {
    complains(&planted("meta/src/low.rs", "use crate::high::X;\n"), "low uses high");
    complains(&planted("meta/src/low.rs", "\nuse crate::{low::A, high::{B, C as D}};\n"), ":2: low uses high");
    complains(&planted("meta/src/low.rs", "use super::middle;\n"), "low uses middle");
    complains(&planted("meta/src/middle.rs", "fn f() { crate::high::x() }\n"), "middle uses high");
    complains(&planted("meta/src/middle/one.rs", "use crate::high;\n"), "middle uses high");
    complains(&planted("meta/src/middle/one.rs", "use super::super::high::x;\n"), "middle uses high");
}

#[test]
fn a_child_that_uses_a_sibling_listed_below_it_is_found() {
    complains(&planted("meta/src/middle/one.rs", "use super::two::X;\n"), "one uses two");
    complains(&planted("meta/src/middle/one.rs", "use crate::middle::two;\n"), "one uses two");
}

#[test]
fn uses_downwards_pass() {
    silent(planted("meta/src/high.rs", "use crate::{low, middle::Thing};\nuse super::low::x;\n"));
    silent(planted("meta/src/middle/two.rs", "use super::{Thing, one::X};\nuse crate::low;\n"));
    silent(planted("meta/src/low.rs", "// use crate::high;\nuse crate::low::X;\nuse other::high;\n"));
    silent(planted("meta/src/low/tests.rs", "use crate::high;\n"));
    silent(planted("meta/src/main.rs", "use crate::high;\n"));
}
