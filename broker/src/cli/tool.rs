//! The subcommands that look at a storage without being a broker.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// Their settings: where things are, and what is logged.
pub const TOOL_KEYS: &[&str] = &["storage", "metadata", "log", "log_format"];

const EXIT_CODES: &str = "\
Nothing is written, locked, taken over or fenced: it works beside a running broker, and after it has died.

EXIT CODES
  0  done, and nothing is wrong
  1  failed, or something could not be read
  2  refused its settings
  4  damage was found: what is stored, or what refers to it, is not as it should be. Not so a last fragment in a folder
     that a power cut has left half written, or of which nothing proves that it was ever durable: the next start drops it";

/// What to do instead of serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    pub task: Task,
    /// One JSON document on standard output, instead of text.
    pub json: bool,
    /// Progress on standard error, even if that is no terminal.
    pub progress: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Inspect(Inspect),
    Verify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspect {
    Overview,
    Logs,
    Fragments,
    Manifest,
    Partitions,
    Partition { topic: String, partition: i32 },
}

/// The subcommands; `settings` are the arguments that they share with the broker.
pub fn subcommands(settings: &[Arg]) -> [Command; 2] {
    let flags = [
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("One JSON document on standard output, also of what has failed"),
        Arg::new("progress")
            .long("progress")
            .action(ArgAction::SetTrue)
            .help("Progress on standard error, even if that is no terminal"),
    ];
    let inspect = Command::new("inspect")
        .about("Shows what is stored: logs, fragments, the manifest, and what a partition consists of")
        .arg(
            Arg::new("what")
                .value_parser(["overview", "logs", "fragments", "manifest", "partitions", "partition"])
                .default_value("overview")
                .help("What to show; `partition TOPIC PARTITION` is one from its log start to its end"),
        )
        .arg(Arg::new("topic").required_if_eq("what", "partition"))
        .arg(Arg::new("partition").required_if_eq("what", "partition").value_parser(clap::value_parser!(i32)));
    let verify = Command::new("verify")
        .about("Reads everything that is stored, and compares checksums, references and the order of offsets");
    [inspect, verify].map(|command| command.args(settings).args(&flags).after_help(EXIT_CODES))
}

/// The one that was asked for, with its arguments; an error says what is too much.
pub fn chosen(matches: &ArgMatches) -> Option<Result<(Tool, &ArgMatches), clap::Error>> {
    let (name, matches) = matches.subcommand()?;
    let task = if name == "verify" { Ok(Task::Verify) } else { inspect(matches).map(Task::Inspect) };
    let (json, progress) = (matches.get_flag("json"), matches.get_flag("progress"));
    Some(task.map(|task| (Tool { task, json, progress }, matches)))
}

fn inspect(matches: &ArgMatches) -> Result<Inspect, clap::Error> {
    let topic = matches.get_one::<String>("topic");
    let what = matches.get_one::<String>("what").map_or("overview", String::as_str);
    Ok(match (what, topic, matches.get_one::<i32>("partition")) {
        ("partition", Some(topic), Some(partition)) => {
            Inspect::Partition { topic: topic.clone(), partition: *partition }
        }
        (_, Some(stray), _) => {
            let kind = clap::error::ErrorKind::UnknownArgument;
            return Err(clap::Error::raw(kind, format!("{what} takes no argument {stray}\n")));
        }
        ("logs", ..) => Inspect::Logs,
        ("fragments", ..) => Inspect::Fragments,
        ("manifest", ..) => Inspect::Manifest,
        ("partitions", ..) => Inspect::Partitions,
        _ => Inspect::Overview,
    })
}
