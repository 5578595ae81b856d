//! Rules about who may use whom: crates downwards, and within a crate modules downwards.
//!
//! A parent lists its modules bottom-up. A module may use those listed above it in that list (and its parent's own
//! items), never one listed below it; the same holds at every depth. `main.rs` and unit tests may use everything.

use std::collections::BTreeMap;

use crate::source::{Source, is_word, line_of, word_positions};

/// The crates, bottom-up, as folders of the workspace.
const CRATES: &[&str] = &["meta", "storage", "broker", "compat-tests"];

/// Crates that use one above them, in their manifest or in their sources.
pub fn crate_back_edges(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (level, name) in CRATES.iter().enumerate() {
        let above = &CRATES[level + 1..];
        for source in sources.iter().filter(|s| s.path.starts_with(&format!("{name}/"))) {
            for upper in above {
                let ident = upper.replace('-', "_");
                let manifest = source.path == format!("{name}/Cargo.toml");
                let depends = manifest && source.text.lines().any(|line| depends_on(line, upper));
                let uses =
                    word_positions(&source.code, &ident).find(|at| source.code[at + ident.len()..].starts_with("::"));
                // Inside a crate, a module of its own may bear another crate's name: `crate::broker::`.
                let uses = uses.filter(|at| !source.code[..*at].ends_with("::"));
                if depends || uses.is_some() {
                    let line = uses.map_or(1, |at| line_of(&source.code, at));
                    complaints.push(format!("{}:{line}: {name} uses {upper}, which stands above it", source.path));
                }
            }
        }
    }
    complaints
}

fn depends_on(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
}

/// Modules that use one listed below them.
pub fn module_back_edges(sources: &[Source]) -> Vec<String> {
    CRATES.iter().flat_map(|name| crate_module_back_edges(name, sources)).collect()
}

/// A module's place: the names from the crate's root down to it.
type Place = Vec<String>;

fn crate_module_back_edges(name: &str, sources: &[Source]) -> Vec<String> {
    let prefix = format!("{name}/src/");
    let inside = |s: &&Source| s.is_rust() && s.path.starts_with(&prefix) && s.path != format!("{prefix}main.rs");
    let files: Vec<(Place, &Source)> =
        sources.iter().filter(inside).map(|s| (place(&s.path[prefix.len()..]), s)).collect();
    let lists: BTreeMap<&Place, Vec<String>> = files.iter().map(|(at, s)| (at, listed_modules(&s.code))).collect();
    let mut complaints = Vec::new();
    for (from, source) in files.iter().filter(|(_, s)| !s.is_unit_test()) {
        for (at, to) in references(&source.code, from) {
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let (Some(own), Some(other)) = (from.get(shared), to.get(shared)) else { continue };
            let Some(list) = lists.get(&from[..shared].to_vec()) else { continue };
            let position = |module: &String| list.iter().position(|m| m == module);
            if let (Some(own_at), Some(other_at)) = (position(own), position(other))
                && own_at < other_at
            {
                let line = line_of(&source.code, at);
                complaints.push(format!("{}:{line}: {own} uses {other}, which is listed below it", source.path));
            }
        }
    }
    complaints
}

/// `api/fetch.rs` and `api/fetch/mod.rs` are the module api::fetch; `lib.rs` is the root.
fn place(path: &str) -> Place {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The modules that a file declares, in order.
fn listed_modules(code: &str) -> Vec<String> {
    let declared = word_positions(code, "mod").filter_map(|at| {
        let rest = code[at + 3..].trim_start();
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        rest[name.len()..].trim_start().starts_with(';').then_some(name)
    });
    declared.collect()
}

/// Every path that starts at `crate` or `super`, made absolute, with its position.
fn references(code: &str, from: &Place) -> Vec<(usize, Place)> {
    let mut found = Vec::new();
    for at in word_positions(code, "crate") {
        let follows_path = code[..at].ends_with("::") || code[..at].ends_with('$');
        if let Some(rest) = code[at + 5..].strip_prefix("::").filter(|_| !follows_path) {
            expand(rest, &Vec::new(), &mut |to| found.push((at, to)));
        }
    }
    for at in word_positions(code, "super").filter(|at| !code[..*at].ends_with("::")) {
        let (mut base, mut rest) = (from.clone(), &code[at..]);
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        expand(rest, &base, &mut |to| found.push((at, to)));
    }
    found
}

/// Reads `a::b`, `a::{b, c::d}` and so on, and reports each path that it names. Returns what follows.
fn expand<'a>(code: &'a str, base: &Place, report: &mut dyn FnMut(Place)) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let before = rest.len();
            rest = expand(rest, base, report).trim_start();
            if let Some(alias) = rest.strip_prefix("as ") {
                rest = alias.trim_start().trim_start_matches(is_word).trim_start();
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if rest.len() >= before {
                return rest;
            }
        }
    }
    let name: String = code.chars().take_while(|c| is_word(*c) || *c == '*').collect();
    let rest = &code[name.len()..];
    let mut path = base.clone();
    path.push(name);
    match rest.strip_prefix("::") {
        Some(deeper) => expand(deeper, &path, report),
        None => {
            report(path);
            rest
        }
    }
}
