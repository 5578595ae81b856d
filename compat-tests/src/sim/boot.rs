//! The real broker as an incarnation of the simulation.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use broker::config::{BrokerConfig, GroupConfig, TierConfig};
use broker::listener::{Listener, Stream};
use broker::metrics::Metrics;
use broker::node::{Ended, Metadata, Node, NodeParts};
use meta::seams::Incarnation;
use storage::metered::MeteredStore;
use tokio::time::Duration;

use super::admin::AUTO_PARTITIONS;
use super::cluster::{Boot, Exit, Parts};
use super::net::SimListener;

/// Boots the broker as `main` does, but for what the simulation owns.
pub fn node() -> Boot {
    Boot { run: Arc::new(|parts| Box::pin(run(parts))), has_groups: true }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        Ok((Box::new(self.accept_stream().await), (Ipv4Addr::LOCALHOST, 1).into()))
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 9092).into())
    }
}

async fn run(parts: Parts) -> Exit {
    let drain = parts.drain;
    let (store, counters) = MeteredStore::new(parts.store);
    // Small limits, so that they are reached.
    let dice = parts.dice;
    let config = BrokerConfig {
        advertised_host: parts.address.0,
        advertised_port: parts.address.1,
        num_partitions: AUTO_PARTITIONS,
        message_max_bytes: 1 << 20,
        request_max_bytes: 2 << 20,
        memory_bytes: 8 << 20,
        tail_bytes: *dice.pick(&[0, 4_000, 1 << 20]),
        fetch_max_bytes: *dice.pick(&[2_000, 1 << 20]),
        flush_interval: Duration::from_millis(*dice.pick(&[0, 20, 100])),
        flush_bytes: *dice.pick(&[1_000, 1 << 20]),
        tier: TierConfig {
            bytes: *dice.pick(&[1, 2_000, 1 << 20]),
            interval: Duration::from_millis(*dice.pick(&[20, 1_000, 600_000])),
            object_bytes: *dice.pick(&[1, 3_000, 1 << 20]),
            merge_object_bytes: *dice.pick(&[0, 5_000, 1 << 20]),
            merge_part_bytes: *dice.pick(&[300, 2_000, 1 << 19]),
            retention_check_interval: Duration::from_secs(1),
            delete_delay: Duration::from_millis(*dice.pick(&[0, 500, 60_000])),
        },
        groups: GroupConfig {
            offsets_partitions: 3,
            initial_rebalance_delay: Duration::from_millis(*dice.pick(&[0, 300, 3_000])),
            min_session_timeout: Duration::from_secs(1),
            // Clocks jump by years, and what was committed is asked for in the end.
            offsets_retention: Duration::from_secs(10_000 * 365 * 24 * 3600),
            // A group without offsets and members would be forgotten, and its generations begin anew.
            offsets_retention_check_interval: Duration::from_secs(365 * 24 * 3600),
            ..GroupConfig::default()
        },
        ..BrokerConfig::default()
    };
    let parts = NodeParts {
        config,
        metadata: parts.metadata.map_or(Metadata::Embedded, Metadata::Shared),
        incarnation: Incarnation::generate(&parts.random),
        store: Arc::new(store),
        counters,
        folder: None,
        random: parts.random,
        clock: parts.clock,
        listener: Box::new(parts.listener),
        metrics: Arc::new(Metrics::new()),
    };
    match Node::start(parts).await {
        Ok(node) => exit(node.run(drain).await),
        Err(error) => exit(error.ended()),
    }
}

fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Drained => Exit::Drained,
        Ended::Fenced(why) => Exit::Fenced(why),
        Ended::Failed(why) => Exit::Failed(why),
    }
}
