//! Plants every bug of `meta::planted::BUGS` in turn and requires that some test fails because of it.
//!
//! Builds all tests once, with the feature `planted-bugs` and in a target folder of its own. First every suite must pass
//! with no bug live: a suite that fails by itself would seem to catch everything. Then, per bug, the suites run in
//! order, those of the crates first, then the simulation and etcd, until one fails. A bug that no suite catches fails the
//! run. Arguments are names of bugs; without any, all of them are planted.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

/// One test executable, and the folder from which cargo would run it.
struct Suite {
    name: String,
    executable: PathBuf,
    folder: PathBuf,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = chosen.iter().find(|c| !meta::planted::BUGS.iter().any(|(name, _)| name == c)) {
        return Err(format!("there is no planted bug {unknown}").into());
    }
    let suites = build()?;
    for suite in &suites {
        if !passes(suite, None)? {
            return Err(format!("{} fails without any planted bug", suite.name).into());
        }
    }
    println!("{} suites pass with no bug live", suites.len());
    let mut missed = 0;
    for (bug, rule) in meta::planted::BUGS {
        if !chosen.is_empty() && !chosen.iter().any(|c| c == bug) {
            continue;
        }
        match first_to_fail(&suites, bug)? {
            Some(suite) => println!("caught  {bug}, by {}", suite.name),
            None => {
                println!("MISSED  {bug}: {rule}");
                missed += 1;
            }
        }
    }
    if missed > 0 {
        println!("{missed} planted bugs were not caught");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the unit tests of every crate, the simulation, and what needs a real etcd; real brokers are not needed to catch
/// these bugs.
fn build() -> Result<Vec<Suite>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the crate stands in the workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut suites = Vec::new();
    let in_simulation = &["-p", "compat-tests", "--test", "sim"];
    let on_servers = &["-p", "compat-tests", "--test", "etcd"];
    for selection in [&["-p", "meta", "-p", "storage", "-p", "broker"][..], in_simulation, on_servers] {
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics"])
            .args(["--features", "meta/planted-bugs,storage/planted-bugs,broker/planted-bugs"])
            .arg("--target-dir")
            .arg(target.join("planted-bugs"))
            .args(selection)
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output()?;
        if !built.status.success() {
            return Err("the tests do not build with the feature planted-bugs".into());
        }
        for line in String::from_utf8(built.stdout)?.lines() {
            suites.extend(suite(&serde_json::from_str(line)?));
        }
    }
    if suites.is_empty() {
        return Err("cargo built no test".into());
    }
    Ok(suites)
}

/// The test executable that one of cargo's messages reports, if it does.
fn suite(message: &Value) -> Option<Suite> {
    let is_test = message["profile"]["test"].as_bool() == Some(true);
    let executable = message["executable"].as_str().filter(|_| is_test)?;
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let krate = folder.file_name()?.to_string_lossy().into_owned();
    let name = format!("{krate} {}", message["target"]["name"].as_str()?);
    Some(Suite { name, executable: executable.into(), folder })
}

fn first_to_fail<'a>(suites: &'a [Suite], bug: &str) -> Result<Option<&'a Suite>, Box<dyn Error>> {
    for suite in suites {
        if !passes(suite, Some(bug))? {
            return Ok(Some(suite));
        }
    }
    Ok(None)
}

/// Runs a suite with this bug live. Whatever ends it but success counts as a failure: a planted bug may well abort it, or
/// let it wait for ever.
fn passes(suite: &Suite, bug: Option<&str>) -> Result<bool, Box<dyn Error>> {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", "900"])
        .arg(&suite.executable)
        .current_dir(&suite.folder)
        .stdin(Stdio::null())
        .env_remove("WOODPECKER_PLANTED_BUG");
    if let Some(bug) = bug {
        command.env("WOODPECKER_PLANTED_BUG", bug).stdout(Stdio::null()).stderr(Stdio::null());
    }
    Ok(command.status()?.success())
}
