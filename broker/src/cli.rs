//! From the command line, the environment and the configuration file to settings.
//!
//! A flag wins over a variable, a variable over the file, the file over the default. Whatever is set must exist: an
//! unknown flag, variable or key is refused by its name, because a misspelt limit is a limit that nobody keeps.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::keys::{self, VARIABLE_PREFIX};
use crate::config::{ConfigError, Settings};

mod tool;

pub use self::tool::{Inspect, TOOL_KEYS, Task, Tool};

const CONFIG_VARIABLE: &str = "WOODPECKER_CONFIG";
/// Read by test builds only; see `meta::planted`.
const PLANTED_BUG_VARIABLE: &str = "WOODPECKER_PLANTED_BUG";

const REFERENCE_FLAG: &str = "config-reference";

const ABOUT: &str = "A Kafka broker without disks to manage: records live in object storage or in a folder.";

const MODES_AND_EXAMPLES: &str = "\
WAYS TO RUN
  woodpecker
      A broker on 127.0.0.1:9092 that keeps everything in ./data. A record is acknowledged once it is on disk.
  woodpecker --storage s3://bucket/prefix
      The same without a disk: records and metadata live in the bucket. Lose the machine, start another, lose
      nothing. A second broker on the same bucket takes over from the first.
  woodpecker --storage s3://bucket/prefix --metadata etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379/prefix
      The same with the metadata in etcd. Producers and consumers do not notice when etcd is away for a while.
  woodpecker --storage memory://
      For tests: everything is lost at exit.

  woodpecker inspect --storage s3://bucket/prefix
  woodpecker verify --storage s3://bucket/prefix
      Tools that show what is stored, and read and compare all of it, while a broker runs or after it has died.

EXAMPLES
  woodpecker --listen 0.0.0.0:9092 --advertise broker.example.com:9092 --storage /var/lib/woodpecker
  AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ALLOW_HTTP=true AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... \\
      woodpecker --storage s3://bucket

S3
  Credentials, region and endpoint come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
  AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP, ... The bucket has to honour conditional writes
  (If-None-Match, If-Match); this is tried at start, and a bucket that does not is refused.

ETCD
  metadata=etcd://[user:password@]host:port,.../prefix. The password is better kept in WOODPECKER_METADATA or in the
  file than on the command line, where everybody on the machine can read it. TLS: etcd_ca_file, and etcd_cert_file with
  etcd_key_file if etcd asks for certificates. A storage that was begun with etcd has to be started with it, and with the
  same prefix; one that was begun without, without.

EXIT CODES
  0  stopped by SIGTERM or SIGINT, after everything accepted was made durable
  1  failed
  2  refused its settings
  3  fenced: another broker has taken over the storage. Do not restart it, or the two fight for ever
     (systemd: RestartPreventExitStatus=3)
  4  damage was found (inspect, verify)
";

/// What a process was started with.
pub struct Invocation {
    pub arguments: Vec<OsString>,
    pub environment: BTreeMap<String, String>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Also how help and version are printed; see `clap::Error::exit_code`.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Invocation {
    /// Of this process. Variables that are not Unicode cannot be settings: only names and values that are count.
    pub fn of_this_process() -> Self {
        let text = |(name, value): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            name.starts_with(VARIABLE_PREFIX).then(|| (name, value.to_string_lossy().into_owned()))
        };
        Self { arguments: std::env::args_os().collect(), environment: std::env::vars_os().filter_map(text).collect() }
    }

    /// Is it only the configuration reference that is wanted? Wrong arguments are for `settings` to refuse.
    pub fn wants_reference(&self) -> bool {
        command().try_get_matches_from(&self.arguments).is_ok_and(|matches| matches.get_flag(REFERENCE_FLAG))
    }

    /// Everything put together and checked. Reads the configuration file, if one is named. With the tool that was asked
    /// for instead of a broker, if one was.
    pub fn settings(&self) -> Result<(Settings, Option<Tool>), CliError> {
        let matches = command().try_get_matches_from(&self.arguments)?;
        let (tool, matches) = match tool::chosen(&matches).transpose()? {
            Some((tool, matches)) => (Some(tool), matches),
            None => (None, &matches),
        };
        let mut settings = Settings::default();
        if tool.is_some() {
            // Its output is what it was started for.
            settings.log = "warn".to_owned();
        }
        let file = matches.get_one::<String>("config").or_else(|| self.environment.get(CONFIG_VARIABLE));
        if let Some(path) = file {
            apply_file(&mut settings, path)?;
        }
        self.apply_environment(&mut settings)?;
        apply_flags(&mut settings, matches)?;
        settings.check()?;
        Ok((settings, tool))
    }

    fn apply_environment(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        for (variable, value) in &self.environment {
            let Some(name) = variable.strip_prefix(VARIABLE_PREFIX) else { continue };
            if variable == CONFIG_VARIABLE || (cfg!(feature = "planted-bugs") && variable == PLANTED_BUG_VARIABLE) {
                continue;
            }
            let key = keys::all().find(|key| key.variable() == *variable).ok_or_else(|| ConfigError::UnknownKey {
                origin: format!("environment variable {variable}"),
                name: name.to_ascii_lowercase(),
            })?;
            key.set(settings, value, &format!("environment variable {variable}"))?;
        }
        Ok(())
    }
}

fn apply_flags(settings: &mut Settings, matches: &ArgMatches) -> Result<(), ConfigError> {
    for key in keys::all() {
        // A tool has some of them only.
        if let Some(flag) = &key.flag
            && let Ok(Some(value)) = matches.try_get_one::<String>(key.name)
        {
            key.set(settings, value, &format!("--{}", flag.name))?;
        }
    }
    Ok(())
}

fn apply_file(settings: &mut Settings, path: &str) -> Result<(), ConfigError> {
    let failed = |why: String| ConfigError::File { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| failed(error.to_string()))?;
    for (name, value) in &table {
        let key =
            keys::find(name).ok_or_else(|| ConfigError::UnknownKey { origin: path.to_owned(), name: name.clone() })?;
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => return Err(failed(format!("{name}: {} is not a value for a setting", other.type_str()))),
        };
        key.set(settings, &text, path)?;
    }
    Ok(())
}

/// The command line, built from the table of settings.
pub fn command() -> Command {
    let defaults = Settings::default();
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("A TOML file with any of the settings below. [variable: {CONFIG_VARIABLE}]"));
    let flag = |key: &keys::Key| {
        let flag = key.flag.as_ref()?;
        let default = key.value(&defaults);
        let help = format!("{} [default: {default}] [variable: {}]", key.help, key.variable());
        Some(Arg::new(key.name).long(flag.name).value_name(flag.value).help(help))
    };
    let of_tools = keys::all().filter(|key| TOOL_KEYS.contains(&key.name)).filter_map(flag);
    let of_tools: Vec<Arg> = std::iter::once(config.clone()).chain(of_tools).collect();
    let flags = keys::all().filter_map(flag);
    Command::new("woodpecker")
        .subcommands(tool::subcommands(&of_tools))
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .args(std::iter::once(config).chain(flags))
        .arg(
            Arg::new(REFERENCE_FLAG)
                .long(REFERENCE_FLAG)
                .action(ArgAction::SetTrue)
                .help("Prints the reference of all settings and topic configurations as Markdown, and exits"),
        )
        .after_help(format!("{}\n{MODES_AND_EXAMPLES}", settings_help(&defaults)))
}

/// The settings that have no flag.
fn settings_help(defaults: &Settings) -> String {
    let mut text = String::from(
        "SETTINGS\n  Every flag is also a key of the file (log-format as log_format) and a variable; these have no flag:\n",
    );
    for key in keys::all().filter(|key| key.flag.is_none()) {
        // Writing to a String cannot fail.
        let _infallible = write!(
            text,
            "\n  {} = {}\n      {} [variable: {}]",
            key.name,
            key.value(defaults),
            key.help,
            key.variable()
        );
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
