//! The fragments of one segment that are one file, as far as they go.
//!
//! The file may be written to at the same time. What is whole stays. Invariants, those of a start (`file_log/scan.rs`):
//! - The end of an open segment is its first fragment that is not whole: header, footer and, where nothing later proves that
//!   it was durable, every entry's data. What a power cut has left half written is no damage.
//! - What a later fragment of the same writer says was durable is damaged if it is not whole, or has been completed since.

use std::collections::VecDeque;

use bytes::Bytes;
use meta::keys::object;
use meta::planted;
use meta::seams::Incarnation;
use object_store::path::Path;

use super::objects::{MISSING, Wanted, piece};
use super::{Ending, Problem, Span};
use crate::entry::{FragmentId, FragmentIndex};
use crate::error::{Error, Result};
use crate::fragment::{self, DecodeError, FragmentHeader, HEADER_BYTES, MAGIC, decode_footer, entry_checksum};
use crate::object_log::gets::Gets;

/// Read at a time when looking for later headers.
const WINDOW_BYTES: u64 = 1 << 20;

/// A fragment's number, and where it begins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    pub fragment: u64,
    pub position: u64,
}

impl Place {
    pub fn after(self, header: &FragmentHeader) -> Self {
        Self { fragment: self.fragment + 1, position: self.position.saturating_add(header.total_length()) }
    }
}

/// What is at a place.
pub(crate) enum Found {
    Whole(FragmentHeader, FragmentIndex),
    /// With its header, if at least that is intact.
    Broken(DecodeError, Option<FragmentHeader>),
}

/// One segment's file.
pub(crate) struct SegmentFile<'a> {
    gets: &'a Gets,
    pub key: Path,
    log: u64,
    segment: u32,
    /// As of the last look.
    pub length: u64,
}

impl<'a> SegmentFile<'a> {
    /// None if there is none.
    pub async fn open(gets: &'a Gets, log: u64, segment: u32) -> Result<Option<Self>> {
        let key = object::segment_file(log, segment);
        match gets.length(&key).await {
            Ok(length) => Ok(Some(Self { gets, key, log, segment, length })),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes that the file is known to have.
    pub async fn read(&self, position: u64, length: u64) -> Result<Bytes> {
        self.gets.exactly(&self.key, position, length, Ok).await
    }

    /// Decodes a part. The inner error says what is wrong with it.
    async fn part<T>(
        &self,
        position: u64,
        length: u64,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError> + Send + Sync,
    ) -> Result<Result<T, DecodeError>> {
        if position.checked_add(length).is_none_or(|end| end > self.length) {
            return Ok(Err(DecodeError::Damaged("the file ends within it")));
        }
        // Read again before it is believed to be damaged at rest.
        let read = self.gets.exactly(&self.key, position, length, |bytes| {
            Ok(match decode(&bytes) {
                Ok(decoded) => Ok(decoded),
                Err(error) => Err((error, bytes)),
            })
        });
        match read.await? {
            Ok(decoded) => Ok(Ok(decoded)),
            Err((first, bytes)) => {
                let again = self.read(position, length).await?;
                Ok(if again == bytes { Err(first) } else { decode(&again) })
            }
        }
    }

    pub async fn fragment(&self, at: Place) -> Result<Found> {
        let id = FragmentId { log: self.log, segment: self.segment, fragment: at.fragment };
        let header = self.part(at.position, HEADER_BYTES as u64, |bytes| {
            let header = FragmentHeader::decode(bytes)?;
            match header.id == id && !header.is_fence() {
                true => Ok(header),
                false => Err(DecodeError::Damaged("another fragment's header stands in its place")),
            }
        });
        let header = match header.await? {
            Ok(header) => header,
            Err(error) => return self.broken(at, error, None),
        };
        let Some(footer) = at.position.checked_add(header.footer_position()) else {
            return self.broken(at, DecodeError::Damaged("its length is absurd"), None);
        };
        let index = self.part(footer, u64::from(header.footer_length), |bytes| decode_footer(&header, bytes));
        match index.await? {
            Ok(mut index) => {
                fragment::place(&mut index, at.position);
                Ok(Found::Whole(header, index))
            }
            Err(error) => self.broken(at, error, Some(header)),
        }
    }

    fn broken(&self, at: Place, error: DecodeError, header: Option<FragmentHeader>) -> Result<Found> {
        match error {
            DecodeError::FutureVersion { .. } => {
                Err(error.at(format_args!("{}, fragment {} at position {}", self.key, at.fragment, at.position)))
            }
            DecodeError::Damaged(_) => Ok(Found::Broken(error, header)),
        }
    }

    /// Whether every entry is what its index says.
    async fn data_is_intact(&self, index: &FragmentIndex) -> Result<bool> {
        for indexed in &index.runs {
            for entry in &indexed.entries {
                let position = indexed.run.file_position + entry.position;
                let compare = |bytes: &[u8]| match entry_checksum(bytes) == Some(entry.checksum) {
                    true => Ok(()),
                    false => Err(DecodeError::Damaged("its data fails its checksum")),
                };
                if self.part(position, u64::from(entry.length), compare).await?.is_err() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether a fragment that the same writer wrote later knew that this one was durable.
    async fn was_durable(&mut self, at: Place, writer: Incarnation) -> Result<bool> {
        self.length = self.gets.length(&self.key).await?;
        let ours = (self.log, self.segment, writer);
        let mut begin = at.position;
        while begin < self.length {
            let window = self.read(begin, (self.length - begin).min(WINDOW_BYTES + HEADER_BYTES as u64)).await?;
            let places = (0..window.len()).filter(|place| window[*place..].starts_with(&MAGIC));
            let headers = places.filter_map(|place| FragmentHeader::decode(&window[place..]).ok());
            let mut ours = headers.filter(|header| (header.id.log, header.id.segment, header.writer) == ours);
            if ours.any(|header| header.durable_through.is_some_and(|through| through >= at.fragment)) {
                return Ok(true);
            }
            begin += WINDOW_BYTES;
        }
        Ok(false)
    }
}

/// Hands over the index of each fragment, in order. What is wrong with single ones is told at the end.
pub(super) async fn read_span(
    gets: &Gets,
    wanted: Wanted,
    each: &mut (dyn FnMut(&FragmentIndex) + Send),
) -> Result<(Span, Vec<Problem>)> {
    let mut span = wanted.span();
    let mut problems = Vec::new();
    if wanted.end.is_some_and(|end| end <= wanted.from) {
        return Ok((span, problems));
    }
    let Some(file) = SegmentFile::open(gets, wanted.log, wanted.segment).await? else {
        // Registered and never created, or gone.
        if wanted.end.is_some() || wanted.from > 0 {
            let key = object::segment_file(wanted.log, wanted.segment).to_string();
            problems.push(wanted.problem(wanted.from, key, MISSING));
        }
        if wanted.end.is_none() {
            span.ending = Ending::Open;
        }
        return Ok((span, problems));
    };
    // Below a recorded end, and in the manifest, everything was durable.
    let durable = wanted.end.unwrap_or(wanted.from);
    let mut walk = Walk { file, wanted, each, span, problems, durable, unproven: VecDeque::new() };
    walk.run().await?;
    Ok((walk.span, walk.problems))
}

/// On the way through a file.
struct Walk<'a, 'b> {
    file: SegmentFile<'a>,
    wanted: Wanted,
    each: &'b mut (dyn FnMut(&FragmentIndex) + Send),
    span: Span,
    problems: Vec<Problem>,
    /// Fragments below it are known to have been durable.
    durable: u64,
    /// Whole as far as header and footer tell, and nothing proves that they were durable: usually just the last.
    unproven: VecDeque<(Place, FragmentHeader, FragmentIndex)>,
}

impl Walk<'_, '_> {
    async fn run(&mut self) -> Result<()> {
        let mut at = Place::default();
        while self.wanted.end != Some(at.fragment) {
            let mut found = self.look(at).await?;
            if let Found::Broken(..) = found
                && at.fragment >= self.durable
            {
                if !self.is_proven(at).await? {
                    break;
                }
                // It may have been completed since.
                found = self.look(at).await?;
            }
            let header = match found {
                Found::Whole(header, index) => {
                    self.unproven.push_back((at, header, index));
                    self.proven(header.durable_through.map_or(0, |through| through + 1));
                    header
                }
                Found::Broken(why, header) => {
                    self.proven(at.fragment + 1);
                    let why = format!("fragment {} at position {}: {why}", at.fragment, at.position);
                    let fragment = at.fragment.max(self.wanted.from);
                    self.problems.push(self.wanted.problem(fragment, self.file.key.to_string(), why));
                    let Some(header) = header else { break };
                    header
                }
            };
            at = at.after(&header);
        }
        let end = self.check_unproven(at.fragment).await?;
        if self.wanted.end.is_none() {
            (self.span.end, self.span.ending) = (end, Ending::Open);
        }
        Ok(())
    }

    async fn look(&self, at: Place) -> Result<Found> {
        Ok(match self.file.fragment(at).await? {
            Found::Whole(header, _) if header.writer != self.wanted.writer => {
                Found::Broken(DecodeError::Damaged("it was written by another writer"), Some(header))
            }
            found => found,
        })
    }

    async fn is_proven(&mut self, at: Place) -> Result<bool> {
        self.file.was_durable(at, self.wanted.writer).await
    }

    /// Everything below this fragment was durable.
    fn proven(&mut self, durable: u64) {
        self.durable = self.durable.max(durable);
        let known = self.unproven.iter().take_while(|(at, ..)| at.fragment < self.durable).count();
        for (at, header, index) in self.unproven.drain(..known).collect::<Vec<_>>() {
            self.hand_over(at, &header, &index);
        }
    }

    /// The end: of what is whole, or where data is not, and does not have to be.
    async fn check_unproven(&mut self, end: u64) -> Result<u64> {
        while let Some((at, header, index)) = self.unproven.pop_front() {
            let is_whole = planted::bug("look-takes-a-torn-tail") || self.file.data_is_intact(&index).await?;
            // What has been proven since is content, whatever its data is worth: that is for a scrub to say.
            if !is_whole && !self.is_proven(at).await? {
                return Ok(at.fragment);
            }
            self.hand_over(at, &header, &index);
        }
        Ok(end)
    }

    fn hand_over(&mut self, at: Place, header: &FragmentHeader, index: &FragmentIndex) {
        if at.fragment >= self.wanted.from {
            (self.each)(index);
            self.span.fragments.push(piece(header, index, at.position));
        }
    }
}
