//! Rules about single files and about the top of the tree.

use crate::source::{Source, is_word, line_of, word_positions};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

/// What may stand at the top of the tree.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".dockerignore",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "broker",
    "clippy.toml",
    "compat-tests",
    "docker",
    "meta",
    "rustfmt.toml",
    "storage",
];

/// Folders of one machine, unfinished marks, and hosts of package registries, which mirrors replace. Written in halves,
/// because this file is held to them too.
const FORBIDDEN: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("HA", "CK"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("crates", ".io"),
    concat!("proxy.go", "lang.org"),
    concat!("sum.go", "lang.org"),
    concat!("repo1.mav", "en.org"),
    concat!("repo.mav", "en.apache.org"),
    concat!("py", "pi.org"),
    concat!("registry.np", "mjs.org"),
    concat!("docker", ".io"),
    concat!("deb.deb", "ian.org"),
    concat!("gh", "cr.io"),
    concat!("qu", "ay.io"),
    concat!("co-authored", "-by"),
    concat!("L", "LM"),
];

pub fn long_files(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|s| s.is_rust());
    rust.map(|s| (s, s.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(s, lines)| format!("{}: {lines} lines, at most {MAX_FILE_LINES}", s.path))
        .collect()
}

pub fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        for at in word_positions(&source.code, "fn") {
            let Some(length) = function_length(&source.code[at..]) else { continue };
            if length > MAX_FUNCTION_LINES {
                let line = line_of(&source.code, at);
                let name: String = source.code[at + 2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
                complaints
                    .push(format!("{}:{line}: {name} has {length} lines, at most {MAX_FUNCTION_LINES}", source.path));
            }
        }
    }
    complaints
}

/// The lines of the function whose `fn` opens `code`, from there to its closing brace; none for a signature alone.
fn function_length(code: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    // `fn(u32) -> u32` is a type, not a function.
    if !code[2..].starts_with(char::is_whitespace) {
        return None;
    }
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces <= 0 {
                    return (braces == 0).then(|| line_of(code, at));
                }
            }
            _ => {}
        }
    }
    None
}

pub fn missing_heads(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|s| s.is_rust());
    rust.filter(|s| !s.text.lines().next().is_some_and(|first| first.len() > 10 && first.starts_with("//! ")))
        .map(|s| format!("{}: does not open with a //! line that says what it is for", s.path))
        .collect()
}

pub fn ignored_tests(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        let code = source.code.replace([' ', '\t'], "");
        for (at, _) in code.match_indices("#[ignore").chain(code.match_indices(",ignore")) {
            complaints.push(format!("{}:{}: an ignored test proves nothing", source.path, line_of(&code, at)));
        }
    }
    complaints
}

/// A property that fails must not write a file into the tree.
pub fn written_regressions(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        for (at, _) in source.code.match_indices("proptest! {") {
            // The block's own first line, after comments.
            let mut lines = source.code[at..].lines().skip(1).map(str::trim_start);
            let first = lines.find(|line| !line.is_empty()).unwrap_or("");
            if !(first.starts_with("#![proptest_config(") && first.contains("failure_persistence: None")) {
                let line = line_of(&source.code, at);
                complaints.push(format!("{}:{line}: properties without failure_persistence: None", source.path));
            }
        }
    }
    complaints
}

pub fn forbidden_words(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|s| s.path != "Cargo.lock" && s.path != "LICENSE") {
        for word in FORBIDDEN {
            for at in word_positions(&source.text, word) {
                complaints.push(format!("{}:{}: {word}", source.path, line_of(&source.text, at)));
            }
        }
    }
    complaints
}

pub fn top_level(sources: &[Source]) -> Vec<String> {
    let mut unknown: Vec<&str> = sources.iter().filter_map(|s| s.path.split('/').next()).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown.retain(|entry| !TOP_LEVEL.contains(entry));
    unknown.iter().map(|entry| format!("{entry}: not among the entries that may stand at the top")).collect()
}
