//! The one table of settings, in one file for each subject, in the order of the reference.

use super::{ConfigError, Settings};

/// An integer setting that is kept in a field of `Settings`.
macro_rules! integer {
    ($min:expr, $max:expr, $($field:ident).+ : $type:ty) => {
        Kind::Integer {
            min: $min,
            max: $max,
            get: |settings| settings.$($field).+ as u64,
            set: |settings, value| settings.$($field).+ = value as $type,
        }
    };
}

/// A duration in milliseconds.
macro_rules! millis {
    ($min:expr, $max:expr, $($field:ident).+) => {
        Kind::Integer {
            min: $min,
            max: $max,
            get: |settings| settings.$($field).+.as_millis() as u64,
            set: |settings, value| settings.$($field).+ = std::time::Duration::from_millis(value),
        }
    };
}

pub(super) mod addresses;

mod places;

mod logging;

mod serving;

mod writing;

mod tiering;

mod groups;

const SUBJECTS: [&[Key]; 7] =
    [addresses::KEYS, places::KEYS, logging::KEYS, serving::KEYS, writing::KEYS, tiering::KEYS, groups::KEYS];

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 24 * 3_600_000;

/// How variables of the environment begin.
pub const VARIABLE_PREFIX: &str = "WOODPECKER_";

/// One setting.
pub struct Key {
    /// In the configuration file.
    pub name: &'static str,
    /// On the command line, for some.
    pub flag: Option<Flag>,
    /// In sentences.
    pub help: &'static str,
    kind: Kind,
}

/// A flag: `--name <VALUE>`.
pub struct Flag {
    pub name: &'static str,
    /// What stands for the value in the help text.
    pub value: &'static str,
}

/// A setting that has no flag.
const fn plain(name: &'static str, help: &'static str, kind: Kind) -> Key {
    Key { name, flag: None, help, kind }
}

enum Kind {
    Integer {
        min: u64,
        max: u64,
        get: fn(&Settings) -> u64,
        set: fn(&mut Settings, u64),
    },
    Bool {
        get: fn(&Settings) -> bool,
        set: fn(&mut Settings, bool),
    },
    /// `set` says what is allowed when it refuses.
    Text {
        get: fn(&Settings) -> String,
        set: fn(&mut Settings, &str) -> Result<(), String>,
    },
}

impl Key {
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// The value as it would be written in the environment.
    pub fn value(&self, settings: &Settings) -> String {
        match &self.kind {
            Kind::Integer { get, .. } => get(settings).to_string(),
            Kind::Bool { get, .. } => get(settings).to_string(),
            Kind::Text { get, .. } => get(settings),
        }
    }

    /// Sets it from text. `origin` says where the text is from.
    pub fn set(&self, settings: &mut Settings, text: &str, origin: &str) -> Result<(), ConfigError> {
        let refused = |allowed: String| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: self.name,
            value: without_credentials(text),
            allowed,
        };
        match &self.kind {
            Kind::Integer { min, max, set, .. } => match text.parse::<u64>() {
                Ok(value) if (min..=max).contains(&&value) => set(settings, value),
                _ => return Err(refused(format!("must be a whole number from {min} to {max}"))),
            },
            Kind::Bool { set, .. } => match text {
                "true" => set(settings, true),
                "false" => set(settings, false),
                _ => return Err(refused("must be true or false".to_owned())),
            },
            Kind::Text { set, .. } => set(settings, text).map_err(refused)?,
        }
        Ok(())
    }
}

/// Every setting.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SUBJECTS.into_iter().flatten()
}

pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// A value as it may be shown: a URL loses what stands between its scheme and its last @.
pub(crate) fn without_credentials(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://...{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}
