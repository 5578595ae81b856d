//! Tests of how flags, environment and file become settings.

use std::io::Write as _;

use super::*;
use crate::config::LogFormat;

fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
    let arguments = std::iter::once("woodpecker").chain(arguments.iter().copied()).map(OsString::from).collect();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Invocation { arguments, environment }.settings().map(|(settings, _)| settings).map_err(|error| error.to_string())
}

fn tool(arguments: &[&str]) -> Result<(Settings, Option<Tool>), String> {
    let arguments = std::iter::once("woodpecker").chain(arguments.iter().copied()).map(OsString::from).collect();
    Invocation { arguments, environment: BTreeMap::new() }.settings().map_err(|error| error.to_string())
}

#[test]
fn tools_are_subcommands_with_the_settings_that_concern_them() {
    let (settings, found) = tool(&["verify", "--storage", "s3://b/p", "--json"]).unwrap();
    assert_eq!(found, Some(Tool { task: Task::Verify, json: true, progress: false }));
    assert_eq!((settings.storage.as_str(), settings.log.as_str()), ("s3://b/p", "warn"));
    let inspected = |arguments: &[&str]| tool(arguments).unwrap().1.map(|tool| tool.task);
    assert_eq!(inspected(&["inspect"]), Some(Task::Inspect(Inspect::Overview)));
    assert_eq!(inspected(&["inspect", "logs", "--log", "info"]), Some(Task::Inspect(Inspect::Logs)));
    let partition = Inspect::Partition { topic: "orders".to_owned(), partition: 3 };
    assert_eq!(inspected(&["inspect", "partition", "orders", "3"]), Some(Task::Inspect(partition)));
    assert_eq!(tool(&[]).unwrap().1, None);
}

#[test]
fn what_a_tool_does_not_take_is_refused() {
    for (arguments, named) in [
        (&["verify", "--listen", "x:1"][..], "--listen"),
        (&["inspect", "everything"], "everything"),
        (&["inspect", "partition", "orders"], "<partition>"),
        (&["inspect", "logs", "orders"], "orders"),
        (&["--storage", "x", "verify"], "--storage"),
        (&["verify", "stray"], "stray"),
    ] {
        let refused = tool(arguments).unwrap_err();
        assert!(refused.contains(named), "{arguments:?}: {refused}");
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn nothing_given_means_the_defaults() {
    let settings = settings(&[], &[]).unwrap();
    assert_eq!((settings.listen.as_str(), settings.storage.as_str()), ("127.0.0.1:9092", "./data"));
    assert_eq!(settings.broker.advertised_port, 9092);
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = file("listen = \"127.0.0.1:1\"\nstorage = \"from-file\"\nlog_format = \"json\"\nnum_partitions = 7\n");
    let path = file.path().to_str().unwrap();
    let environment = [("WOODPECKER_LISTEN", "127.0.0.1:2"), ("WOODPECKER_STORAGE", "from-variable")];
    let all = settings(&["--config", path, "--listen", "127.0.0.1:3"], &environment).unwrap();
    assert_eq!((all.listen.as_str(), all.storage.as_str()), ("127.0.0.1:3", "from-variable"));
    assert_eq!((all.log_format, all.broker.num_partitions), (LogFormat::Json, 7));
    let named_by_variable = settings(&[], &[("WOODPECKER_CONFIG", path)]).unwrap();
    assert_eq!(named_by_variable.storage, "from-file");
}

#[test]
fn every_setting_can_come_from_a_variable_and_from_a_file() {
    let defaults = Settings::default();
    for key in keys::all() {
        let value = if key.name == "advertise" { "h:1".to_owned() } else { key.value(&defaults) };
        let by_variable = settings(&[], &[(&key.variable(), &value)]).unwrap();
        assert_eq!(key.value(&by_variable), value);
        let quoted = if value.parse::<u64>().is_ok() || value == "true" { value.clone() } else { format!("{value:?}") };
        let file = file(&format!("{} = {quoted}\n", key.name));
        let by_file = settings(&["--config", file.path().to_str().unwrap()], &[]).unwrap();
        assert_eq!(key.value(&by_file), value);
    }
}

#[test]
fn what_does_not_exist_is_refused_by_name() {
    let unknown_variable = settings(&[], &[("WOODPECKER_MEMORY_BYTE", "1")]).unwrap_err();
    assert_eq!(
        unknown_variable,
        "environment variable WOODPECKER_MEMORY_BYTE: there is no setting memory_byte; did you mean memory_bytes?"
    );
    let file = file("listn = \"127.0.0.1:1\"\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(settings(&["--config", path], &[]).unwrap_err(), format!("{path}: there is no setting listn"));
    assert!(settings(&["--listn", "x:1"], &[]).unwrap_err().contains("--listn"));
    assert!(settings(&["stray"], &[]).unwrap_err().contains("stray"));
}

#[test]
fn bad_values_name_where_they_come_from() {
    let from_flag = settings(&["--metadata", "etcd://me:hush@h:port/p"], &[]).unwrap_err();
    let shape = "must be etcd://[user:password@]host:port[,host:port...][/prefix]";
    assert_eq!(from_flag, format!("--metadata: metadata=etcd://...@h:port/p: {shape}"));
    let from_variable = settings(&[], &[("WOODPECKER_BROKER_ID", "-1")]).unwrap_err();
    assert!(from_variable.starts_with("environment variable WOODPECKER_BROKER_ID: broker_id=-1"), "{from_variable}");
    let file = file("memory_bytes = [1]\n");
    let path = file.path().to_str().unwrap();
    let from_file = settings(&["--config", path], &[]).unwrap_err();
    assert_eq!(from_file, format!("{path}: memory_bytes: array is not a value for a setting"));
    let together = settings(&[], &[("WOODPECKER_MEMORY_BYTES", "16777216")]).unwrap_err();
    assert!(together.contains("memory_bytes=16777216: must be at least twice request_max_bytes"), "{together}");
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    assert!(settings(&["--config", "/does/not/exist"], &[]).unwrap_err().starts_with("/does/not/exist: "));
    let file = file("listen = = 1\n");
    let path = file.path().to_str().unwrap();
    assert!(settings(&["--config", path], &[]).unwrap_err().starts_with(path));
}

#[test]
fn http_can_be_turned_off() {
    assert_eq!(settings(&["--http", "off"], &[]).unwrap().http, None);
}

#[test]
fn usage_errors_and_help_have_their_exit_codes() {
    let code = |arguments: &[&str]| {
        let arguments = std::iter::once("woodpecker").chain(arguments.iter().copied()).map(OsString::from).collect();
        match (Invocation { arguments, environment: BTreeMap::new() }).settings() {
            Err(CliError::Usage(error)) => error.exit_code(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((code(&["--help"]), code(&["--version"]), code(&["--nonsense"])), (0, 0, 2));
}

#[test]
fn help_names_every_setting_and_variable() {
    let help = command().render_long_help().to_string();
    for key in keys::all() {
        assert!(help.contains(&key.variable()), "{} is missing in\n{help}", key.variable());
    }
    for text in ["EXIT CODES", "AWS_ENDPOINT_URL", "s3://bucket/prefix", "--config", "WOODPECKER_CONFIG"] {
        assert!(help.contains(text), "{text} is missing in\n{help}");
    }
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn the_reference_is_asked_for_by_a_flag_alone() {
    let wanted = |arguments: &[&str]| {
        let arguments = std::iter::once("woodpecker").chain(arguments.iter().copied()).map(OsString::from).collect();
        Invocation { arguments, environment: BTreeMap::new() }.wants_reference()
    };
    assert!(wanted(&["--config-reference"]));
    assert!(!wanted(&[]) && !wanted(&["--config-reference", "--no-such-flag"]));
}
