//! The fragments of one segment that are an object each, as far as they go.

use futures::{StreamExt, stream};
use meta::seams::Incarnation;

use super::{About, Ending, Piece, Problem, Span};
use crate::entry::{FragmentId, FragmentIndex};
use crate::error::{Error, Result};
use crate::fragment::FragmentHeader;
use crate::object_log::gets::Gets;
use crate::object_log::indexes::{Stored, read_stored};

/// Fragments looked at at once, ahead of knowing that they exist.
const READS_AHEAD: usize = 16;

/// Which fragments are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub log: u64,
    pub segment: u32,
    pub from: u64,
    /// None: as far as there are any.
    pub end: Option<u64>,
    pub writer: Incarnation,
}

impl Wanted {
    pub fn id(&self, fragment: u64) -> FragmentId {
        FragmentId { log: self.log, segment: self.segment, fragment }
    }

    pub fn span(&self) -> Span {
        let Self { log, segment, from, .. } = *self;
        Span { log, segment, from, end: self.end.unwrap_or(from), ending: Ending::Recorded, fragments: Vec::new() }
    }

    pub fn problem(&self, fragment: u64, key: String, why: impl Into<String>) -> Problem {
        Problem { key, why: why.into(), about: About::Fragment(self.id(fragment)) }
    }
}

/// A fragment in a few numbers.
pub(super) fn piece(header: &FragmentHeader, index: &FragmentIndex, position: u64) -> Piece {
    Piece {
        number: header.id.fragment,
        position,
        bytes: header.total_length(),
        runs: index.runs.len(),
        entries: index.runs.iter().map(|run| run.entries.len()).sum(),
    }
}

/// Hands over the index of each, in order. What is wrong with single ones is told at the end.
pub(super) async fn read_span(
    gets: &Gets,
    wanted: Wanted,
    each: &mut (dyn FnMut(&FragmentIndex) + Send),
) -> Result<(Span, Vec<Problem>)> {
    let mut span = wanted.span();
    let mut problems = Vec::new();
    let numbers = stream::iter(wanted.from..wanted.end.unwrap_or(u64::MAX));
    let mut stored =
        numbers.map(|number| async move { (number, read_stored(gets, wanted.id(number)).await) }).buffered(READS_AHEAD);
    while let Some((number, stored)) = stored.next().await {
        let key = || wanted.id(number).key().to_string();
        match stored {
            Ok(Stored::Data(header, index)) => {
                if header.writer != wanted.writer {
                    problems.push(wanted.problem(number, key(), "it is not by the log's writer"));
                }
                each(&index);
                span.fragments.push(piece(&header, &index, 0));
            }
            Ok(Stored::Fence(fence)) if wanted.end.is_none() => {
                (span.end, span.ending) = (number, Ending::Fence(fence.writer));
                break;
            }
            Ok(Stored::Fence(_)) => {
                problems.push(wanted.problem(number, key(), "a fence lies below the segment's recorded end"));
            }
            Err(Error::Missing { .. }) if wanted.end.is_none() => {
                (span.end, span.ending) = (number, Ending::Open);
                break;
            }
            Err(Error::Missing { key }) => problems.push(wanted.problem(number, key, MISSING)),
            Err(Error::Corrupt { key, why }) => problems.push(wanted.problem(number, key, why)),
            Err(error) => return Err(error),
        }
    }
    Ok((span, problems))
}

pub(super) const MISSING: &str = "it is missing, below the end of its log and after the manifest's position";
