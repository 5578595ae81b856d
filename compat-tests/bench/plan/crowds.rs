//! Groups and connections: what a broker costs when many clients want little of it.

use std::{io, time::Duration};

use super::{ConnectionPlan, GroupPlan, Run, progress, quiet_disk, turns};
use crate::{
    clock::{now, pause},
    connections::{self, Trickle},
    crowd::Crowd,
    groups::{Gathering, Shape},
    report::{Figure, Table},
    servers::Server,
    wire::Connection,
};

/// Consumers have 3 seconds, which would be all that is measured.
const LARGE_GROUP_HEARTBEAT: Duration = Duration::from_millis(50);
const SMALL_GROUP_HEARTBEAT: Duration = Duration::from_secs(3);
/// Between the first rebalance and somebody's leaving: heartbeats are spread out again, records written.
const GROUP_PAUSE: Duration = Duration::from_millis(500);
const TRICKLE_PARTITIONS: usize = 16;
const TRICKLE_RECORD_BYTES: usize = 100;
const TRICKLE_WARM_UP: Duration = Duration::from_secs(2);
/// After many connections were opened or were busy.
const CONNECTION_PAUSE: Duration = Duration::from_secs(2);

impl Run {
    fn figure(&mut self, table: Table, server: &Server, round: usize, name: String, value: f64) {
        progress(format_args!("round {}: {:10} {name}: {value:.2}", round + 1, server.who.name()));
        self.report.figures.0.push(Figure { table, name, who: server.who, round, value });
    }

    pub(super) fn groups(&mut self, servers: &[&Server]) -> io::Result<()> {
        let plan = self.plan.groups.clone();
        let topic = self.topic();
        for server in servers {
            Connection::open(server.address)?.create_topic(&topic, TRICKLE_PARTITIONS)?;
            // The topic of groups is created, its partitions are loaded, Kafka's code is compiled.
            progress(format_args!("warming up the groups of {}", server.who.name()));
            self.large_group(server, &plan, &topic)?;
            self.small_groups(server, &plan, &topic)?;
        }
        for round in 0..plan.rounds {
            for server in turns(servers, round) {
                let figures = self.large_group(server, &plan, &topic)?;
                let figures = figures.into_iter().chain(self.small_groups(server, &plan, &topic)?);
                for (name, value) in figures {
                    self.figure(Table::Groups, server, round, name, value);
                }
            }
        }
        Ok(())
    }

    fn shape(&mut self, topic: &str, groups: usize, members_each: usize, heartbeat: Duration) -> Shape {
        let name = self.topic();
        Shape { name, topic: topic.to_owned(), groups, members_each, heartbeat }
    }

    fn large_group(&mut self, server: &Server, plan: &GroupPlan, topic: &str) -> io::Result<Vec<(String, f64)>> {
        let members = plan.members;
        let shape = self.shape(topic, 1, members, LARGE_GROUP_HEARTBEAT);
        quiet_disk();
        let mut group = Gathering::open(server.address, &shape)?;
        let joined = group.join_all()?;
        group.idle(GROUP_PAUSE)?;
        let left = group.one_leaves()?;
        group.close()?;
        Ok(vec![
            (format!("{members} members, from the first join until all are stable, ms"), ms(joined.total)),
            ("of which after the last of them joined, ms".to_owned(), ms(joined.after_last_join)),
            (format!("one of {members} leaves, until the others are stable, ms"), ms(left.total)),
            ("of which after the last of the others joined again, ms".to_owned(), ms(left.after_last_join)),
        ])
    }

    fn small_groups(&mut self, server: &Server, plan: &GroupPlan, topic: &str) -> io::Result<Vec<(String, f64)>> {
        let groups = plan.groups;
        let shape = self.shape(topic, groups, 1, SMALL_GROUP_HEARTBEAT);
        let mut all = Gathering::open(server.address, &shape)?;
        quiet_disk();
        let cpu = server.cpu_s()?;
        let joined = all.join_all()?;
        let cpu = server.cpu_s()? - cpu;
        all.close()?;
        Ok(vec![
            (format!("{groups} groups of one member, until all are stable, ms"), ms(joined.total)),
            ("of which broker CPU time, ms".to_owned(), cpu * 1e3),
        ])
    }

    pub(super) fn connections(&mut self, servers: &[&Server]) -> io::Result<()> {
        let plan = self.plan.connections.clone();
        let topic = self.topic();
        for server in servers {
            Connection::open(server.address)?.create_topic(&topic, TRICKLE_PARTITIONS)?;
        }
        for round in 0..plan.rounds {
            for server in turns(servers, round) {
                for (name, value) in many_connections(server, &plan, &topic)? {
                    self.figure(Table::Connections, server, round, name, value);
                }
            }
        }
        Ok(())
    }
}

fn many_connections(server: &Server, plan: &ConnectionPlan, topic: &str) -> io::Result<Vec<(String, f64)>> {
    let (idle, active) = (plan.idle, plan.active);
    let mut figures = Vec::new();
    let mut note = |name: String, value: f64| figures.push((name, value));
    quiet_disk();
    note("resident set without connections, MiB".to_owned(), mib(server.memory_bytes()?));
    let (since, cpu) = (now(), server.cpu_s()?);
    let mut crowd = Crowd::new()?;
    crowd.open(server.address, idle, topic)?;
    note(format!("{idle} connections opened, ApiVersions and Metadata each, s"), (now() - since).as_secs_f64());
    pause(CONNECTION_PAUSE);
    note("broker CPU time of each, ms".to_owned(), (server.cpu_s()? - cpu) * 1e3 / idle as f64);

    let (since, cpu) = (now(), server.cpu_s()?);
    pause(plan.window);
    let per_minute = 60.0 / (now() - since).as_secs_f64();
    note(format!("{idle} idle: broker CPU-s per minute"), (server.cpu_s()? - cpu) * per_minute);
    note(format!("{idle} idle: resident set, MiB"), mib(server.memory_bytes()?));

    crowd.open(server.address, active, topic)?;
    let mut trickle = Trickle {
        topic: topic.to_owned(),
        partitions: TRICKLE_PARTITIONS,
        partitions_each: 1,
        record_bytes: TRICKLE_RECORD_BYTES,
        records_per_s: plan.records_per_s,
        duration: TRICKLE_WARM_UP,
    };
    connections::produce(&mut crowd, idle..idle + active, &trickle)?;
    trickle.duration = plan.window;
    let cpu = server.cpu_s()?;
    let outcome = connections::produce(&mut crowd, idle..idle + active, &trickle)?;
    let elapsed_s = outcome.elapsed.as_secs_f64();
    let cpu_s = server.cpu_s()? - cpu;
    note(
        format!("{active} more active: records of {TRICKLE_RECORD_BYTES} B per s"),
        outcome.records as f64 / elapsed_s,
    );
    note(format!("{active} more active: broker CPU-s per minute"), cpu_s * 60.0 / elapsed_s);
    note(format!("{active} more active: p50, ms"), outcome.latency_ms(50));
    note(format!("{active} more active: p99, ms"), outcome.latency_ms(99));
    note(format!("{active} more active: resident set, MiB"), mib(server.memory_bytes()?));
    drop(crowd);
    pause(CONNECTION_PAUSE);
    Ok(figures)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
