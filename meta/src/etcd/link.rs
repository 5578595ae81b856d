//! The connection to etcd, and who looks after it.
//!
//! One endpoint is used at a time. A connection on which anything goes wrong, or an answer takes too long, is thrown away
//! and another one made, to the next endpoint first; in rounds, with growing pauses, for as long as it takes and whether
//! or not anybody calls. A connection counts once it has answered a linearizable read: its member has a leader.
//!
//! Callers wait for a connection only so long: once there was none for `outage_after` they are refused at once, until
//! there is one. So an outage makes nobody queue up behind anybody's deadline.

use std::sync::{Arc, Weak};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::{Error, Result};

use super::failure::{Failure, unavailable};
use super::target::EtcdConfig;

/// A connection that worked when it was made.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    number: u64,
    endpoint: usize,
}

#[derive(Clone)]
enum State {
    Up(Box<Connection>),
    Down { since: Instant, why: String },
    Closed,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    config: EtcdConfig,
    state: watch::Sender<State>,
}

/// Why a call that may be repeated did not succeed.
#[derive(Debug)]
pub struct Ended {
    pub error: Error,
    /// What etcd refused it with, if that is how it ended.
    pub refusal: Option<String>,
    /// The revision that it asked for is no longer kept.
    pub compacted: bool,
    /// An attempt before the last may have succeeded.
    pub doubted: bool,
}

impl Ended {
    fn unanswered(error: Error, doubted: bool) -> Self {
        Self { error, refusal: None, compacted: false, doubted }
    }

    pub fn refused_as(&self, what: &str) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.contains(what))
    }
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        ended.error
    }
}

impl Link {
    /// Connects to whichever endpoint answers first. `Invalid` if one refuses us.
    pub async fn open(config: EtcdConfig) -> Result<Self> {
        let since = Instant::now();
        let state = watch::Sender::new(State::Down { since, why: "not connected yet".to_owned() });
        let shared = Arc::new(Shared { config, state });
        let deadline = since + shared.config.timing.deadline;
        let mut backoff = shared.config.timing.backoff;
        loop {
            let mut last = Failure::NotDone("there is no endpoint".to_owned());
            for endpoint in 0..shared.config.target.endpoints.len() {
                match shared.connect(endpoint, 1).await {
                    Ok(connection) => {
                        shared.is_up(connection);
                        return Ok(Self(shared));
                    }
                    Err(failure @ Failure::Refused(_)) => return Err(failure.into_error(&shared.what())),
                    Err(failure) => last = failure,
                }
            }
            if Instant::now() + backoff >= deadline {
                return Err(last.into_error(&shared.what()));
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(shared.config.timing.backoff_max);
        }
    }

    pub fn config(&self) -> &EtcdConfig {
        &self.0.config
    }

    /// When a call that begins now has to be answered.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.0.config.timing.deadline
    }

    /// A connection, waiting for one if there is hope.
    pub async fn connection(&self, what: &str, deadline: Instant) -> Result<Connection> {
        let mut state = self.0.state.subscribe();
        loop {
            let limit = match &*state.borrow_and_update() {
                State::Up(connection) => return Ok(Connection::clone(connection)),
                State::Closed => return Err(closed()),
                State::Down { since, why } => {
                    let limit = deadline.min(*since + self.0.config.timing.outage_after);
                    if limit <= Instant::now() {
                        return Err(unavailable(what, &format!("no connection to {}: {why}", self.0.config.target)));
                    }
                    limit
                }
            };
            // Out of time is found out above; the sender lives as long as `self`.
            let _ = timeout_at(limit, state.changed()).await;
        }
    }

    /// One attempt on one connection, which is given up if it does not serve.
    pub async fn once<T>(
        &self,
        connection: &Connection,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Failure> {
        let answer = timeout(self.0.config.timing.call_timeout, call).await;
        let failure = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::timed_out(),
        };
        if failure.is_of_the_connection() {
            self.give_up(connection, failure.why());
        }
        Err(failure)
    }

    /// Makes a call that may be made any number of times, until it is answered or out of time.
    pub async fn repeat<T, F, Answer>(&self, what: &str, call: F) -> Result<T, Ended>
    where
        F: Fn(Client) -> Answer,
        Answer: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = self.deadline();
        let mut doubted = false;
        let mut why = None;
        loop {
            let connection = match self.connection(what, deadline).await {
                Ok(connection) if Instant::now() < deadline => connection,
                Ok(_) => {
                    let error = unavailable(what, why.as_deref().unwrap_or("out of time"));
                    return Err(Ended::unanswered(error, doubted));
                }
                Err(error) => return Err(Ended::unanswered(error, doubted)),
            };
            match self.once(&connection, call(connection.client.clone())).await {
                Ok(value) => return Ok(value),
                Err(failure) if failure.is_of_the_connection() => {
                    doubted |= matches!(failure, Failure::Unknown(_));
                    tracing::debug!(what, why = failure.why(), "trying again");
                    why = Some(failure.why().to_owned());
                    sleep(self.0.config.timing.backoff).await;
                }
                Err(failure) => {
                    let refusal = matches!(failure, Failure::Refused(_)).then(|| failure.why().to_owned());
                    let compacted = failure == Failure::Compacted;
                    return Err(Ended { error: failure.into_error(what), refusal, compacted, doubted });
                }
            }
        }
    }

    /// This connection did not serve: whoever comes next gets another one. Returns at once.
    pub fn give_up(&self, connection: &Connection, why: &str) {
        let current = |state: &State| matches!(state, State::Up(current) if current.number == connection.number);
        let given_up = self.0.state.send_if_modified(|state| {
            let current = current(state);
            if current {
                *state = State::Down { since: Instant::now(), why: why.to_owned() };
            }
            current
        });
        if given_up {
            let endpoint = &self.0.config.target.endpoints[connection.endpoint];
            tracing::warn!(endpoint, why, "lost the connection to etcd");
            tokio::spawn(reconnect(Arc::downgrade(&self.0), connection.endpoint + 1, connection.number + 1));
        }
    }

    /// No call succeeds any more; `closed` resolves.
    pub fn close(&self) {
        self.0.state.send_replace(State::Closed);
    }

    pub fn open_or_closed(&self) -> Result<()> {
        if matches!(*self.0.state.borrow(), State::Closed) { Err(closed()) } else { Ok(()) }
    }

    pub async fn closed(&self) {
        let mut state = self.0.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
    }
}

pub fn closed() -> Error {
    Error::Closed { what: "the metadata store" }
}

impl Shared {
    fn what(&self) -> String {
        self.config.target.to_string()
    }

    fn is_up(&self, connection: Connection) {
        let endpoint = &self.config.target.endpoints[connection.endpoint];
        tracing::info!(
            endpoint,
            prefix = self.config.target.prefix,
            tls = self.config.tls.is_some(),
            "connected to etcd"
        );
        self.state.send_if_modified(|state| {
            let open = !matches!(state, State::Closed);
            if open {
                *state = State::Up(Box::new(connection));
            }
            open
        });
    }

    async fn connect(&self, endpoint: usize, number: u64) -> Result<Connection, Failure> {
        let url = &self.config.target.endpoints[endpoint];
        let attempt = async {
            let client = Client::connect([self.url(url)], Some(self.options())).await?;
            // Proves that there is a leader, and that we may read here at all.
            client.kv_client().get(format!("{}/", self.config.target.prefix), None).await?;
            Ok::<_, etcd_client::Error>(Connection { client, number, endpoint })
        };
        match timeout(self.config.timing.connect_timeout, attempt).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Failure::from(error)),
            Err(_) => Err(Failure::NotDone("no answer in time".to_owned())),
        }
    }

    fn url(&self, endpoint: &str) -> String {
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{endpoint}")
    }

    fn options(&self) -> ConnectOptions {
        let timing = &self.config.timing;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(timing.connect_timeout)
            .with_keep_alive(timing.keep_alive_interval, timing.keep_alive_timeout)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.config.target.user {
            options = options.with_user(user, password);
        }
        if let Some(tls) = &self.config.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(with);
        }
        options
    }
}

/// Tries all endpoints in turn, beginning with `first`, until one answers or nobody is interested any more.
async fn reconnect(shared: Weak<Shared>, first: usize, number: u64) {
    let mut attempt = 0;
    loop {
        let pause = {
            let Some(shared) = shared.upgrade() else { return };
            let endpoints = shared.config.target.endpoints.len();
            let timing = &shared.config.timing;
            match shared.connect((first + attempt) % endpoints, number).await {
                Ok(connection) => return shared.is_up(connection),
                Err(failure) => {
                    tracing::debug!(why = failure.why(), "could not connect to etcd");
                    let known = shared.state.send_if_modified(|state| match state {
                        State::Down { why, .. } => {
                            failure.why().clone_into(why);
                            true
                        }
                        State::Up(_) | State::Closed => false,
                    });
                    if !known {
                        return;
                    }
                }
            }
            attempt += 1;
            let rounds = u32::try_from(attempt / endpoints).unwrap_or(u32::MAX);
            // The first round goes from one endpoint to the next without a pause.
            let pause = timing.backoff * rounds.min(1) * 2_u32.saturating_pow(rounds.saturating_sub(1).min(8));
            pause.min(timing.backoff_max)
        };
        sleep(pause).await;
    }
}
