//! Tests of the fragment format: what is written comes back, and nothing else does.

use std::ops::Range;

use meta::seams::Incarnation;
use proptest::prelude::*;

use super::*;
use crate::entry::{Entry, FragmentId};
use crate::samples::{bytes_of, entry, partition};

const WRITER: Incarnation = Incarnation(0xfeed_0000_0000_0000_0000_0000_0000_0001);

fn id(fragment: u64) -> FragmentId {
    FragmentId { log: 7, segment: 2, fragment }
}

fn build(entries: impl IntoIterator<Item = Entry>) -> EncodedFragment {
    entries.into_iter().collect::<FragmentBuilder>().finish(id(9), WRITER, Some(4))
}

fn sample() -> EncodedFragment {
    let (a, b, c) = (partition(1, 0), partition(1, 1), partition(2, 0));
    build([entry(b, 0, 2, 50), entry(a, 10, 1, 70), entry(c, 5, 5, 10), entry(a, 11, 3, 40), entry(b, 2, 1, 0)])
}

fn concat(fragment: &EncodedFragment) -> Vec<u8> {
    fragment.parts.concat()
}

fn decode(bytes: &[u8]) -> Result<(FragmentHeader, FragmentIndex), DecodeError> {
    let header = FragmentHeader::decode(bytes)?;
    let end = usize::try_from(header.total_length()).unwrap_or(usize::MAX);
    let footer = bytes
        .get(usize::try_from(header.footer_position()).unwrap_or(usize::MAX)..end)
        .ok_or(DecodeError::Damaged("truncated"))?;
    Ok((header, decode_footer(&header, footer)?))
}

#[test]
fn what_is_encoded_is_decoded() {
    let fragment = sample();
    let bytes = concat(&fragment);
    assert_eq!(bytes.len() as u64, fragment.total_length());
    let (header, index) = decode(&bytes).unwrap();
    assert_eq!(header, fragment.header);
    assert_eq!(header.id, id(9));
    assert_eq!(header.writer, WRITER);
    assert_eq!(header.durable_through, Some(4));
    assert_eq!(index, fragment.index);
    assert_eq!(fragment.identity.range, 0..HEADER_BYTES as u64);
    assert_eq!(fragment.identity.bytes, bytes[..HEADER_BYTES]);
}

#[test]
fn entries_of_a_partition_lie_together_in_the_order_in_which_they_came() {
    let fragment = sample();
    let order: Vec<_> = fragment.index.runs.iter().map(|run| (run.partition, run.entries.len())).collect();
    assert_eq!(order, [(partition(1, 0), 2), (partition(1, 1), 2), (partition(2, 0), 1)]);
    let bytes = concat(&fragment);
    let indexed = fragment.index.runs.iter().flat_map(|run| &run.entries);
    for (indexed, entry) in indexed.zip(&fragment.entries) {
        let range = indexed.position as usize..(indexed.position + u64::from(indexed.length)) as usize;
        assert_eq!(bytes[range.clone()], bytes_of(entry));
        assert_eq!(indexed.meta, entry.meta);
        assert_eq!(entry_checksum(&bytes[range]), Some(indexed.checksum));
    }
    assert_eq!(entry_checksum(&[0; 20]), None);
}

#[test]
fn bodies_are_not_copied() {
    let body = entry(partition(1, 0), 0, 1, 5_000);
    let fragment = build([body.clone()]);
    assert!(fragment.parts.iter().any(|part| part.as_ptr() == body.body.as_ptr() && part.len() == 5_000));
}

#[test]
fn a_run_is_contiguous_and_of_one_leader_epoch() {
    let a = partition(1, 0);
    let mut promoted = entry(a, 6, 1, 10);
    promoted.meta.leader_epoch = 4;
    let fragment = build([entry(a, 0, 2, 10), entry(a, 2, 1, 10), entry(a, 5, 1, 10), promoted, entry(a, 1, 1, 10)]);
    let runs: Vec<_> = fragment
        .index
        .runs
        .iter()
        .map(|indexed| (indexed.run.base_offset, indexed.run.next_offset, indexed.run.leader_epoch))
        .collect();
    assert_eq!(runs, [(0, 3, 3), (5, 6, 3), (6, 7, 4), (1, 2, 3)]);
    assert_eq!(decode(&concat(&fragment)).unwrap().1, fragment.index);
}

#[test]
fn a_runs_index_can_be_read_alone() {
    let fragment = sample();
    let bytes = concat(&fragment);
    let part = |run: &crate::entry::Run| -> Range<usize> {
        run.index_position as usize..(run.index_position + u64::from(run.index_length)) as usize
    };
    for indexed in &fragment.index.runs {
        assert_eq!(decode_run_index(&indexed.run, &bytes[part(&indexed.run)]).unwrap(), indexed.entries);
    }
    // Another run's part, though intact and of the right length, is not this run's.
    let (first, second) = (&fragment.index.runs[0], &fragment.index.runs[1]);
    assert!(decode_run_index(&first.run, &bytes[part(&second.run)]).is_err());
}

#[test]
fn fragments_in_a_file_follow_each_other_by_their_headers_alone() {
    let fragments: Vec<_> = (0..4)
        .map(|n| {
            FragmentBuilder::from_iter([entry(partition(1, 0), n, 1, 10 * n as usize)]).finish(
                id(n as u64),
                WRITER,
                None,
            )
        })
        .collect();
    let mut file: Vec<u8> = fragments.iter().flat_map(concat).collect();
    file.extend_from_slice(&FragmentHeader::fence(id(4), WRITER, Some(3)).encode());
    let mut rest = &file[..];
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let header = FragmentHeader::decode(rest).unwrap();
        seen.push((header.id.fragment, header.is_fence()));
        rest = &rest[header.total_length() as usize..];
    }
    assert_eq!(seen, [(0, false), (1, false), (2, false), (3, false), (4, true)]);
    let mut index = fragments[1].index.clone();
    place(&mut index, 99);
    assert_eq!(index.runs[0].run.file_position, 99);
}

#[test]
fn a_fence_is_a_header_and_no_data() {
    let fence = FragmentHeader::fence(id(3), WRITER, None);
    let bytes = fence.encode();
    assert_eq!(FragmentHeader::decode(&bytes).unwrap(), fence);
    assert_eq!(fence.total_length(), HEADER_BYTES as u64);
    assert!(decode_footer(&fence, &[]).is_err());
    assert_ne!(bytes, FragmentHeader::fence(id(3), Incarnation(5), None).encode());
}

#[test]
fn a_version_from_the_future_is_refused_by_name_and_a_flipped_bit_is_damage() {
    let mut bytes = sample().header.encode();
    bytes[9] = 2;
    assert!(matches!(FragmentHeader::decode(&bytes), Err(DecodeError::Damaged(_))));
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
    let error = FragmentHeader::decode(&bytes).unwrap_err();
    assert_eq!(error, DecodeError::FutureVersion { found: 2 });
    let error = error.at("logs/1");
    assert_eq!(error.kind(), meta::error::ErrorKind::Invalid);
    assert_eq!(error.to_string(), "logs/1 is written in format version 2; this binary reads up to version 1");
}

#[test]
fn two_attempts_with_different_content_never_share_an_identity() {
    let a = build([entry(partition(1, 0), 0, 1, 10)]);
    let mut other = entry(partition(1, 0), 0, 1, 10);
    other.head[20] ^= 1;
    let b = build([other]);
    assert_eq!(a.total_length(), b.total_length());
    assert_ne!(a.identity.bytes, b.identity.bytes);
}

#[test]
#[should_panic(expected = "a fragment has at least one entry")]
fn an_empty_fragment_is_never_written() {
    FragmentBuilder::new().finish(id(0), WRITER, None);
}

#[test]
fn a_footer_that_counts_more_runs_than_it_holds_is_refused_before_anything_is_allocated() {
    let fragment = sample();
    let bytes = concat(&fragment);
    let mut footer = bytes[fragment.header.footer_position() as usize..].to_vec();
    let body = footer.len() - HEADER_BYTES;
    footer[body - 4..body].copy_from_slice(&u32::MAX.to_be_bytes());
    let header = FragmentHeader { footer_crc: crc32c::crc32c(&footer[..body]), ..fragment.header };
    footer[body..].copy_from_slice(&header.encode());
    assert_eq!(
        decode_footer(&header, &footer),
        Err(DecodeError::Damaged("its footer counts more runs than it can hold"))
    );
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec((0u128..3, 0i32..3, 1i64..4, 0usize..80), 1..40).prop_map(|shapes| {
        let mut next = std::collections::BTreeMap::new();
        shapes
            .into_iter()
            .map(|(topic, number, records, body)| {
                let partition = partition(topic, number);
                let offset = next.entry(partition).or_insert(0);
                let entry = entry(partition, *offset, records, body);
                *offset += records;
                entry
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_entries_come_back(entries in any_entries()) {
        let fragment = build(entries.clone());
        let (_, index) = decode(&concat(&fragment)).unwrap();
        prop_assert_eq!(&index, &fragment.index);
        for indexed in &index.runs {
            let expected: Vec<_> =
                entries.iter().filter(|entry| entry.partition == indexed.partition).map(|entry| entry.meta).collect();
            prop_assert_eq!(indexed.entries.iter().map(|entry| entry.meta).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn any_change_to_header_or_footer_is_noticed(entries in any_entries(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let fragment = build(entries);
        let mut bytes = concat(&fragment);
        let data = HEADER_BYTES..fragment.header.footer_position() as usize;
        let at = at.index(bytes.len() - data.len());
        let at = if at < HEADER_BYTES { at } else { at + data.len() };
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn any_change_to_data_is_noticed_by_its_entry(entries in any_entries(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let fragment = build(entries);
        let mut bytes = concat(&fragment);
        let at = HEADER_BYTES + at.index(fragment.header.data_length as usize);
        bytes[at] ^= 1 << bit;
        let (_, index) = decode(&bytes).unwrap();
        let damaged = index.runs.iter().flat_map(|run| &run.entries).filter(|entry| {
            let begin = entry.position as usize;
            entry_checksum(&bytes[begin..begin + entry.length as usize]) != Some(entry.checksum)
        });
        prop_assert_eq!(damaged.count(), 1);
    }

    #[test]
    fn any_truncation_is_noticed(entries in any_entries(), keep in any::<prop::sample::Index>()) {
        let bytes = concat(&build(entries));
        prop_assert!(decode(&bytes[..keep.index(bytes.len())]).is_err());
    }

    /// With every checksum made right again, so that the checks behind them are reached.
    #[test]
    fn a_malicious_footer_never_panics(
        entries in any_entries(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let fragment = build(entries);
        let mut footer = concat(&fragment)[fragment.header.footer_position() as usize..].to_vec();
        let body = footer.len() - HEADER_BYTES;
        for (at, value) in changes {
            footer[at.index(body)] = value;
        }
        for indexed in &fragment.index.runs {
            let begin = (indexed.run.index_position - fragment.header.footer_position()) as usize;
            let crc_at = begin + indexed.run.index_length as usize - 4;
            let crc = crc32c::crc32c(&footer[begin..crc_at]);
            footer[crc_at..crc_at + 4].copy_from_slice(&crc.to_be_bytes());
        }
        let header = FragmentHeader { footer_crc: crc32c::crc32c(&footer[..body]), ..fragment.header };
        footer[body..].copy_from_slice(&header.encode());
        if let Ok(index) = decode_footer(&header, &footer) {
            let covered: u64 = index.runs.iter().map(|run| u64::from(run.run.length)).sum();
            prop_assert_eq!(covered, header.data_length);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
        let run = sample().index.runs[0].run;
        prop_assert!(decode_run_index(&run, &bytes).is_err());
    }
}
