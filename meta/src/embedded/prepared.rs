//! A journal record whose bytes are fixed: it is created at its number, or never, but nothing else takes its place.

use bytes::Bytes;
use object_store::{PutPayload, path::Path};

use crate::error::{Error, Result};
use crate::keys::object;
use crate::settled::{Identity, Patience, Settled, Settler};
use crate::store::{Op, Revision};

use super::codec::{self, HEADER_BYTES, Stamp};

/// Largest journal record.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub struct Prepared {
    pub path: Path,
    pub bytes: Bytes,
    pub nonce: u64,
    pub ops: Vec<Op>,
}

impl Prepared {
    pub fn new(stamp: Stamp, previous: u64, revision: Revision, ops: Vec<Op>) -> Result<Self> {
        let bytes = codec::encode_record(stamp, previous, revision, &ops)?;
        if bytes.len() > RECORD_BYTES_MAX {
            let what = format!("a transaction of {} bytes; {RECORD_BYTES_MAX} are possible", bytes.len());
            return Err(Error::Invalid { what });
        }
        Ok(Self { path: object::journal(stamp.number), bytes, nonce: stamp.nonce, ops })
    }

    pub async fn create(&self, settler: &Settler, patience: &Patience) -> Settled {
        create(settler, patience, &self.path, &self.bytes).await
    }
}

/// Creates an object that begins with a header; the header is its identity.
pub async fn create(settler: &Settler, patience: &Patience, path: &Path, bytes: &Bytes) -> Settled {
    let identity = Identity { range: 0..HEADER_BYTES as u64, bytes: bytes.slice(..HEADER_BYTES) };
    settler.create(path, PutPayload::from_bytes(bytes.clone()), &identity, patience).await
}
