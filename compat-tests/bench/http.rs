//! As much HTTP as it takes to ask a server of ours one thing: a GET per connection, and what `/metrics` says.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    clock::{now, pause},
    wire::failed,
};

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Short beside every start that is measured.
const POLL: Duration = Duration::from_millis(2);

/// The status of the answer, and its body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| failed(format!("{address}{path} does not answer in HTTP")))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// Waits until a path answers 200.
pub fn wait_for_ok(address: SocketAddr, path: &str, limit: Duration) -> io::Result<()> {
    let deadline = now() + limit;
    while !matches!(get(address, path), Ok((200, _))) {
        if now() > deadline {
            return Err(failed(format!("{address}{path} does not answer 200 after {limit:?}")));
        }
        pause(POLL);
    }
    Ok(())
}

/// What a broker of ours counted so far.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    pub fn read(address: SocketAddr) -> io::Result<Self> {
        match get(address, "/metrics")? {
            (200, text) => Ok(Self(text)),
            (status, text) => Err(failed(format!("/metrics answers {status}: {text}"))),
        }
    }

    /// The sum of a metric over those of its lines that carry all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']));
            rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests;
