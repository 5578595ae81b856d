//! A file of the tree, and its code without comments and literals.
//!
//! `code` has the same number of lines as `text`, so that a position in one is a line in the other.

/// One file, by its path from the workspace root.
pub struct Source {
    pub path: String,
    pub text: String,
    /// For Rust files: `text` with the contents of comments, strings and character literals blanked.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank_literals(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Does this file hold tests of the module beside it?
    pub fn is_unit_test(&self) -> bool {
        self.path.contains("/src/") && (self.path.ends_with("/tests.rs") || self.path.contains("/tests/"))
    }
}

/// The number of the line, from 1, that holds this byte.
pub fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes()[..byte].iter().filter(|b| **b == b'\n').count() + 1
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte positions at which `word` stands as a word of its own.
pub fn word_positions<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let starts_as_word = word.starts_with(is_word);
    let ends_as_word = word.ends_with(is_word);
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back().is_some_and(is_word);
        let after = text[at + word.len()..].chars().next().is_some_and(is_word);
        !(starts_as_word && before || ends_as_word && after)
    })
}

/// What the scanner stands in.
enum State {
    Code,
    LineComment,
    BlockComment(u32),
    Text,
    RawText(usize),
}

fn blank_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next, taken) = step(&state, &chars, at);
        let in_code = matches!(state, State::Code) && matches!(next, State::Code) && taken == 1;
        for &c in &chars[at..(at + taken).min(chars.len())] {
            out.push(if in_code || c == '\n' { c } else { ' ' });
        }
        state = next;
        at += taken;
    }
    out
}

/// The state after the next token, and how many characters that token has.
fn step(state: &State, chars: &[char], at: usize) -> (State, usize) {
    let c = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or(' ');
    match state {
        State::LineComment if c == '\n' => (State::Code, 1),
        State::LineComment => (State::LineComment, 1),
        State::BlockComment(depth) => match (c, next) {
            ('*', '/') if *depth == 1 => (State::Code, 2),
            ('*', '/') => (State::BlockComment(depth - 1), 2),
            ('/', '*') => (State::BlockComment(depth + 1), 2),
            _ => (State::BlockComment(*depth), 1),
        },
        State::Text if c == '\\' => (State::Text, 2),
        State::Text if c == '"' => (State::Code, 1),
        State::Text => (State::Text, 1),
        State::RawText(hashes) => {
            let closes = c == '"' && (1..=*hashes).all(|i| chars.get(at + i) == Some(&'#'));
            if closes { (State::Code, 1 + hashes) } else { (State::RawText(*hashes), 1) }
        }
        State::Code => match (c, next) {
            ('/', '/') => (State::LineComment, 2),
            ('/', '*') => (State::BlockComment(1), 2),
            ('"', _) => (State::Text, 1),
            ('r', _) if starts_raw_text(chars, at).is_some() => {
                let hashes = starts_raw_text(chars, at).unwrap_or(0);
                (State::RawText(hashes), 2 + hashes)
            }
            ('\'', _) => (State::Code, character_literal(chars, at)),
            _ => (State::Code, 1),
        },
    }
}

/// The number of hashes of a raw string that starts here.
fn starts_raw_text(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|i| chars[i]);
    if before.is_some_and(|c| is_word(c) && c != 'b') {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// The length of a character literal at this quote; 1 where the quote belongs to a lifetime.
fn character_literal(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let rest = chars[at + 3..].iter().position(|c| *c == '\'').unwrap_or(0);
            rest + 4
        }
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}
