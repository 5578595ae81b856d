//! The documents as text for people.

use std::fmt::Write;

use super::report::{Damage, Inspection, Unchecked, Verification};

/// Writing to a String cannot fail.
macro_rules! line {
    ($text:expr, $($arguments:tt)*) => {
        let _infallible = writeln!($text, $($arguments)*);
    };
}

pub fn verification(report: &Verification) -> String {
    let mut text = String::new();
    let checked = &report.checked;
    line!(text, "{}, metadata {} at revision {}", report.storage, report.metadata, report.revision);
    line!(
        text,
        "checked: {} partitions, {} batches in {} fragments and {} objects, {}; {} parts of the manifest, {} records of \
         metadata, {} passes",
        checked.partitions,
        checked.batches,
        checked.fragments,
        checked.objects,
        bytes(checked.bytes),
        checked.manifest_parts,
        checked.metadata_records,
        checked.passes,
    );
    for orphans in &report.orphans {
        line!(text, "orphans: {} objects, {}: {}", orphans.objects, bytes(orphans.bytes), orphans.reason);
        for key in &orphans.keys {
            line!(text, "  {key}");
        }
    }
    for object in &report.strange {
        line!(text, "strange: {} ({})", object.key, bytes(object.bytes));
    }
    unchecked(&mut text, &report.unchecked);
    damage(&mut text, &report.damage);
    line!(text, "{}", report.result);
    text
}

fn unchecked(text: &mut String, all: &[Unchecked]) {
    for unchecked in all {
        line!(text, "NOT CHECKED: {}: {}", unchecked.key, unchecked.why);
    }
}

fn damage(text: &mut String, all: &[Damage]) {
    for damage in all {
        line!(text, "DAMAGE: {}: {}", damage.key, damage.why.join("; "));
        if !damage.partitions.is_empty() {
            line!(text, "  with records of {}", damage.partitions.join(", "));
        }
    }
}

pub fn inspection(report: &Inspection) -> String {
    let mut text = String::new();
    line!(text, "storage    {}", report.storage);
    line!(text, "metadata   {}, revision {}", report.metadata, report.revision);
    line!(text, "cluster    {}", report.cluster_id.as_deref().unwrap_or("-"));
    line!(text, "owner      log {}, incarnation {}", report.newest_log, report.owner.as_deref().unwrap_or("-"));
    line!(text, "topics     {}, with {} partitions", report.topics, report.partition_count);
    logs(&mut text, report);
    if let Some(manifest) = &report.manifest {
        let at = manifest.position;
        line!(text, "\nmanifest   to log {}, segment {}, fragment {}", at.log, at.segment, at.fragment);
        line!(text, "           {} partitions, {} runs, {}", manifest.partitions, manifest.runs, bytes(manifest.bytes));
        for part in &manifest.parts {
            line!(text, "  {} ({})", part.key, bytes(part.bytes));
        }
    }
    fragments(&mut text, report);
    partitions(&mut text, report);
    unchecked(&mut text, &report.unchecked);
    damage(&mut text, &report.damage);
    text
}

fn logs(text: &mut String, report: &Inspection) {
    let Some(logs) = &report.logs else { return };
    let mut rows = vec![row(["log", "state", "segment", "end", "ended", "writer"])];
    for log in logs {
        for segment in &log.segments {
            let end = segment.end.map_or("-".to_owned(), |end| end.to_string());
            rows.push(vec![
                log.log.to_string(),
                log.state.to_owned(),
                segment.segment.to_string(),
                end,
                segment.ended.clone(),
                log.writer.clone(),
            ]);
        }
    }
    table(text, &rows);
}

fn fragments(text: &mut String, report: &Inspection) {
    if let Some(fragments) = &report.fragments {
        line!(text, "\nfragments that the manifest does not have:");
        let mut rows = vec![row(["key", "fragment", "position", "bytes", "runs", "batches"])];
        rows.extend(fragments.iter().map(|fragment| {
            let numbers = [fragment.fragment, fragment.file_position, fragment.bytes, fragment.runs, fragment.batches];
            std::iter::once(fragment.key.clone()).chain(numbers.map(|number| number.to_string())).collect()
        }));
        table(text, &rows);
    }
    if let Some(objects) = &report.objects {
        let mut rows = vec![row(["object", "bytes", "role"])];
        rows.extend(
            objects.iter().map(|object| vec![object.key.clone(), object.bytes.to_string(), object.role.clone()]),
        );
        table(text, &rows);
    }
}

fn partitions(text: &mut String, report: &Inspection) {
    let Some(partitions) = &report.partitions else { return };
    let head = ["topic", "partition", "start", "in manifest", "end", "runs", "bytes", "tiered", "compacted", "epoch"];
    let mut rows = vec![row(head)];
    for found in partitions {
        rows.push(vec![
            found.topic.clone(),
            found.partition.to_string(),
            found.log_start.to_string(),
            found.manifest_end.to_string(),
            found.end.to_string(),
            found.runs.to_string(),
            found.bytes.to_string(),
            found.tiered_bytes.to_string(),
            found.cleaned_to.to_string(),
            found.leader_epoch.to_string(),
        ]);
    }
    table(text, &rows);
    for chain in partitions.iter().filter_map(|found| found.chain.as_ref()) {
        let head =
            ["offsets", "epoch", "latest ms", "key", "fragment", "position", "length", "index at", "index length"];
        let mut rows = vec![row(head)];
        rows.extend(chain.iter().map(|run| {
            vec![
                format!("{}..{}", run.base_offset, run.next_offset),
                run.leader_epoch.to_string(),
                run.max_timestamp.to_string(),
                run.key.clone(),
                run.fragment.to_string(),
                run.position.to_string(),
                run.length.to_string(),
                run.index_position.to_string(),
                run.index_length.to_string(),
            ]
        }));
        table(text, &rows);
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Columns as wide as their widest cell. The first row is the head.
fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line!(text, "{}", cells.join("  ").trim_end());
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests;
