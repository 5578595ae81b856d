//! Inspection: what a view of the storage holds, as a document.

use futures::StreamExt;
use meta::keys::object;
use meta::records::LogState;
use storage::census::{Census, Role};
use storage::entry::{self, TopicPartition};
use storage::error::Error;
use storage::view::{Chain, Ending, Layout, Source, View};

use super::ToolError;
use super::access::{Access, Metadata};
use super::progress::Progress;
use super::report::{
    Damage, Fragment, Inspection, Log, Manifest, Object, Partition, Position, Run, Segment, Stored, Unchecked,
};
use super::verify::first_view;
use crate::cli::Inspect;

pub async fn inspect(access: &Access, what: &Inspect, progress: &Progress) -> Result<Inspection, ToolError> {
    progress.begin("reading metadata and manifest", 0, 0);
    let view = match first_view(access).await? {
        Ok(view) => view,
        Err((key, why)) => {
            let damage = vec![Damage { key, why: vec![why], partitions: Vec::new() }];
            return Ok(Inspection {
                damage,
                unchecked: vec![Unchecked::everything_else()],
                ..Inspection::nothing(access.subject.clone())
            });
        }
    };
    let mut inspection = summary(access, &view);
    if let Metadata::Embedded(embedded) = &access.metadata {
        match embedded.look().await {
            Ok(look) => {
                inspection.metadata = format!("embedded, journal to {}, snapshot {}", look.next - 1, look.snapshot);
            }
            Err(error) => inspection.missed("the journal", &error),
        }
    }
    match what {
        Inspect::Overview => {
            inspection.logs = Some(logs(&view));
            inspection.manifest = Some(manifest(&view));
        }
        Inspect::Logs => inspection.logs = Some(logs(&view)),
        Inspect::Manifest => inspection.manifest = Some(manifest(&view)),
        Inspect::Fragments => {
            inspection.fragments = Some(fragments(&access.source, &view));
            // Without knowing what is needed, all would look like orphans.
            if view.complete {
                match objects(access, &view, progress).await {
                    Ok(objects) => inspection.objects = Some(objects),
                    Err(error) => inspection.missed("objects", &error),
                }
            }
        }
        Inspect::Partitions => {
            inspection.partitions = Some(view.chains.iter().map(|(id, chain)| partition(&view, *id, chain)).collect());
        }
        Inspect::Partition { topic, partition: number } => {
            let named = view.records.topics.iter().find(|(_, found)| found.name == *topic);
            let id = named.map(|(id, _)| TopicPartition { topic: *id, partition: *number });
            let Some((id, chain)) = id.and_then(|id| view.chains.get_key_value(&id)) else {
                // It may be there all the same, if not everything could be read.
                return match view.complete {
                    true => Err(ToolError::NoPartition { topic: topic.clone(), partition: *number }),
                    false => Ok(inspection),
                };
            };
            let mut row = partition(&view, *id, chain);
            row.chain = Some(chain.index.runs().map(|found| run(&access.source, found)).collect());
            inspection.partitions = Some(vec![row]);
        }
    }
    Ok(inspection)
}

fn summary(access: &Access, view: &View) -> Inspection {
    let damage = view.problems.iter().map(|problem| Damage {
        key: problem.key.clone(),
        why: vec![problem.why.clone()],
        partitions: Vec::new(),
    });
    Inspection {
        revision: view.meta.revision(),
        cluster_id: view.records.cluster_id.clone(),
        newest_log: view.records.newest,
        owner: view.records.logs.get(&view.records.newest).map(|log| log.writer.to_string()),
        topics: view.records.topics.len() as u64,
        partition_count: view.chains.len() as u64,
        damage: damage.collect(),
        unchecked: if view.complete { Vec::new() } else { vec![Unchecked::everything_else()] },
        ..Inspection::nothing(access.subject.clone())
    }
}

impl Inspection {
    fn missed(&mut self, key: &str, error: &dyn std::error::Error) {
        self.unchecked.push(Unchecked { key: key.to_owned(), why: error.to_string() });
    }
}

fn logs(view: &View) -> Vec<Log> {
    let segment = |log: u64, segment: u32, recorded: Option<u64>| {
        let seen = view.spans.iter().find(|span| (span.log, span.segment) == (log, segment));
        let ended = match (recorded, seen.map(|span| span.ending)) {
            (Some(_), _) => "recorded".to_owned(),
            (None, Some(Ending::Fence(sealer))) => format!("fenced by {sealer}"),
            (None, _) => "open".to_owned(),
        };
        Segment { segment, end: recorded.or(seen.map(|span| span.end)), ended }
    };
    let all = view.records.logs.iter().map(|(number, record)| Log {
        log: *number,
        state: match record.state {
            LogState::Open => "open",
            LogState::Sealing => "sealing",
            LogState::Sealed => "sealed",
        },
        writer: record.writer.to_string(),
        recover_from: record.recover_from,
        segments: (0..)
            .zip(&record.segments)
            .map(|(number_of, found)| segment(*number, number_of, found.end))
            .collect(),
    });
    all.collect()
}

fn manifest(view: &View) -> Manifest {
    let position = view.position();
    let parts = view.records.manifest.iter().flat_map(|record| &record.objects);
    let runs = || view.manifest.partitions.values().flat_map(|checkpoint| checkpoint.index.runs());
    Manifest {
        position: Position { log: position.log, segment: position.segment, fragment: position.fragment },
        parts: parts
            .map(|part| Object { key: object::manifest(part.log, part.number).to_string(), bytes: part.bytes })
            .collect(),
        partitions: view.manifest.partitions.len() as u64,
        runs: runs().count() as u64,
        bytes: runs().map(|run| u64::from(run.length)).sum(),
    }
}

fn fragments(source: &Source, view: &View) -> Vec<Fragment> {
    let mut all = Vec::new();
    for span in &view.spans {
        for piece in &span.fragments {
            let id = entry::FragmentId { log: span.log, segment: span.segment, fragment: piece.number };
            all.push(Fragment {
                key: source.unit_key(source.unit(id)).to_string(),
                log: span.log,
                segment: span.segment,
                fragment: piece.number,
                file_position: piece.position,
                bytes: piece.bytes,
                runs: piece.runs as u64,
                batches: piece.entries as u64,
            });
        }
    }
    all
}

async fn objects(access: &Access, view: &View, progress: &Progress) -> Result<Vec<Stored>, Error> {
    let needed = view.needed(&access.source);
    let census = Census::new(view, &access.source, &needed);
    progress.begin("listing", 0, 0);
    let mut stored = Vec::new();
    let mut objects = access.source.store().list(None);
    while let Some(found) = objects.next().await {
        let unlisted = |source| Error::Unavailable { what: "listing objects".to_owned(), source };
        let found = found.map_err(|error| unlisted(Box::new(error)))?;
        let role = match census.role(&found.location, found.size) {
            Role::Data => "data".to_owned(),
            Role::Manifest => "manifest".to_owned(),
            Role::Metadata => "metadata".to_owned(),
            Role::Fence => "fence".to_owned(),
            Role::Lock => "lock".to_owned(),
            Role::Orphan(orphan) => format!("orphan: {}", orphan.reason()),
            Role::UnknownLog(log) => format!("of log {log}, which was registered since or never"),
            Role::Strange => "strange".to_owned(),
        };
        stored.push(Stored { key: found.location.to_string(), bytes: found.size, role });
        progress.add(1, 0);
    }
    stored.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(stored)
}

fn partition(view: &View, id: TopicPartition, chain: &Chain) -> Partition {
    let index = &chain.index;
    let tiered = index.runs().filter(|run| run.fragment.is_tiered());
    Partition {
        topic: view.records.topics.get(&id.topic).map(|topic| topic.name.clone()).unwrap_or_default(),
        topic_id: id.topic.to_string(),
        partition: id.partition,
        log_start: index.log_start(),
        manifest_end: chain.manifest_end,
        end: index.next_offset(),
        runs: index.len() as u64,
        bytes: index.stored_bytes(),
        tiered_bytes: tiered.map(|run| u64::from(run.length)).sum(),
        cleaned_to: chain.cleaned_to,
        leader_epoch: index.latest_epoch().unwrap_or(-1),
        chain: None,
    }
}

fn run(source: &Source, run: &entry::Run) -> Run {
    let id = run.fragment;
    // Positions count from the fragment, which in a file lies somewhere.
    let begin = if source.layout() == Layout::Files { run.file_position } else { 0 };
    Run {
        base_offset: run.base_offset,
        next_offset: run.next_offset,
        leader_epoch: run.leader_epoch,
        max_timestamp: run.max_timestamp,
        key: source.unit_key(source.unit(id)).to_string(),
        log: id.log,
        segment: (!id.is_tiered()).then_some(id.segment),
        fragment: id.fragment,
        tiered: id.is_tiered(),
        position: begin + run.position,
        length: run.length,
        index_position: begin + run.index_position,
        index_length: run.index_length,
    }
}
