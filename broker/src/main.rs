//! The process around a broker: settings, logs, signals, exit codes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use broker::cli::{CliError, Invocation};
use broker::config::{LogFormat, MetadataSetting, Settings, keys};
use broker::cost::{Costs, show_store};
use broker::http::{self, Readiness};
use broker::listener::{Listener, TcpSockets};
use broker::metadata_store;
use broker::metrics::Metrics;
use broker::node::{Ended, Metadata, Node, NodeParts};
use broker::reference;
use broker::storage_url::{StorageError, StorageUrl};
use broker::tools::{self, Found};
use meta::seams::{Incarnation, Random, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

const FAILED: u8 = 1;
const BAD_SETTINGS: u8 = 2;
const FENCED: u8 = 3;
const DAMAGED: u8 = 4;

/// How long tasks that are still running at the end are waited for.
const LEFTOVERS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let invocation = Invocation::of_this_process();
    if invocation.wants_reference() {
        print!("{}", reference::markdown());
        return ExitCode::SUCCESS;
    }
    let (settings, tool) = match invocation.settings() {
        Ok(settings) => settings,
        Err(CliError::Usage(usage)) => usage.exit(),
        Err(CliError::Config(error)) => {
            eprintln!("woodpecker: {error}");
            return ExitCode::from(BAD_SETTINGS);
        }
    };
    start_logging(&settings);
    if fail::has_failpoints() {
        die_at_failpoints();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "could not start the runtime");
            return ExitCode::from(FAILED);
        }
    };
    if let Some(tool) = tool {
        let found = runtime.block_on(tools::run(&tool, &settings));
        runtime.shutdown_timeout(LEFTOVERS);
        return looked(found);
    }
    let ended = runtime.block_on(run(settings));
    runtime.shutdown_timeout(LEFTOVERS);
    match ended {
        Ok(Ended::Drained) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(Ended::Fenced(why)) => {
            tracing::error!(%why, "fenced by another broker");
            ExitCode::from(FENCED)
        }
        Ok(Ended::Failed(why)) => {
            tracing::error!(%why, "failed");
            ExitCode::from(FAILED)
        }
        Err(error) => {
            let refused = error.downcast_ref::<StorageError>();
            tracing::error!(error = format!("{error:#}"), "could not start");
            ExitCode::from(if matches!(refused, Some(StorageError::Refused { .. })) { BAD_SETTINGS } else { FAILED })
        }
    }
}

/// How a tool has ended.
fn looked(found: Result<Found, tools::ToolError>) -> ExitCode {
    match found {
        Ok(Found::Nothing) => ExitCode::SUCCESS,
        Ok(Found::Unreadable) => ExitCode::from(FAILED),
        Ok(Found::Damage) => ExitCode::from(DAMAGED),
        Err(error) => {
            eprintln!("woodpecker: {error}");
            ExitCode::from(if error.is_usage() { BAD_SETTINGS } else { FAILED })
        }
    }
}

/// In a build for tests: the points named in the variable FAILPOINTS panic, and a panic ends the process like kill -9.
fn die_at_failpoints() {
    std::mem::forget(fail::FailScenario::setup());
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
}

fn start_logging(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

async fn run(mut settings: Settings) -> anyhow::Result<Ended> {
    let stop = stop_on_signal()?;
    let random = Random::from_os();
    // The folder is locked before anything is bound: a second broker should be told about the first, not about a port.
    let clock = Arc::new(SystemClock);
    let incarnation = Incarnation::generate(&random);
    let storage = StorageUrl::parse(&settings.storage)?.open(incarnation, &random, &*clock).await?;

    let metrics = Arc::new(Metrics::new());
    let costs = storage
        .is_billed
        .then(|| Arc::new(Costs::new(storage.counters.clone(), settings.prices, Arc::clone(&metrics))));
    show_store(&metrics, &storage.counters, costs.as_ref());
    let readiness = Readiness::not_ready("recovering");
    let http_address = serve_http(&settings, &metrics, &readiness, costs.clone()).await?;

    let sockets = TcpSockets::bind(&settings.listen).await.with_context(|| format!("listen={}", settings.listen))?;
    let address = sockets.local_address()?;
    if settings.broker.advertised_port == 0 {
        settings.broker.advertised_port = address.port();
    }
    let advertised = format!("{}:{}", settings.broker.advertised_host, settings.broker.advertised_port);

    let description = storage.description.clone();
    let kept = keys::find("metadata").map(|key| key.value(&settings)).unwrap_or_default();
    let metadata = metadata(&settings, &random).await?;
    let parts = NodeParts {
        config: settings.broker,
        metadata,
        incarnation,
        store: storage.store,
        counters: storage.counters,
        folder: storage.folder,
        random,
        clock,
        listener: Box::new(sockets),
        metrics,
    };
    let node = match Node::start(parts).await {
        Ok(node) => node,
        Err(error) => return Ok(error.ended()),
    };
    if let Some(costs) = costs {
        let broker = Arc::downgrade(node.broker());
        costs.set_usage(move || broker.upgrade().map(|broker| broker.usage()).unwrap_or_default());
    }
    readiness.set_ready();
    tracing::info!(
        kafka = %address,
        %advertised,
        http = http_address.as_deref().unwrap_or("off"),
        storage = %description,
        metadata = %kept,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let ended = node.run(stop_and_say(stop, readiness.clone())).await;
    readiness.set_not_ready("stopped");
    Ok(ended)
}

/// Connects to the metadata store, if it is one of its own.
async fn metadata(settings: &Settings, random: &Random) -> anyhow::Result<Metadata> {
    let MetadataSetting::Etcd(target) = &settings.metadata else { return Ok(Metadata::Embedded) };
    Ok(Metadata::Shared(Arc::new(metadata_store::connect(settings, target, random).await?)))
}

/// Binds the HTTP listener and serves it until the process ends.
async fn serve_http(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    readiness: &Readiness,
    costs: Option<Arc<Costs>>,
) -> anyhow::Result<Option<String>> {
    let Some(address) = &settings.http else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| format!("http={address}"))?;
    let bound = listener.local_addr()?.to_string();
    let (metrics, readiness) = (Arc::clone(metrics), readiness.clone());
    tokio::spawn(async move {
        if let Err(error) = http::serve(listener, metrics, readiness, costs).await {
            tracing::error!(%error, "the http listener failed");
        }
    });
    Ok(Some(bound))
}

/// Becomes true at the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if attempt > 0 {
                tracing::warn!("asked twice to stop: stopping without draining");
                std::process::exit(i32::from(FAILED));
            }
            stop.send_replace(true);
        }
    });
    Ok(stopped)
}

/// Passes the wish to stop on, after `/readyz` has begun to say so.
fn stop_and_say(mut asked: watch::Receiver<bool>, readiness: Readiness) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        // An error means that the signal task has ended, which it does only together with the process.
        if asked.wait_for(|asked| *asked).await.is_ok() {
            readiness.set_not_ready("draining");
            stop.send_replace(true);
        }
    });
    stopped
}
