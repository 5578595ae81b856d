//! How a request is laid out, and the check of a body against it.
//!
//! The decoder of `kafka-protocol` trusts every count in a request: it allocates for as many elements as the wire
//! claims, and a failed allocation aborts the process. So every body is walked here first. What passes the check
//!
//! - is laid out exactly as its shape says, to the last byte (but for `ignored_bytes`): the decoder sees nothing that
//!   this walk did not see;
//! - has no count whose elements could not fit into the bytes that remain;
//! - decodes into at most `DECODED_FLOOR_BYTES` plus `DECODED_FACTOR` times its size, and never into more than
//!   `DECODED_FLOOR_BYTES + DECODED_MAX_BYTES` (an element of two bytes on the wire may be a hundred in memory).
//!
//! The walk allocates nothing and does not recurse beyond the nesting of the table.

/// How many bytes a body may decode into whatever its size.
pub const DECODED_FLOOR_BYTES: usize = 256 << 10;
/// How many bytes in memory one byte on the wire may become, beyond the floor.
pub const DECODED_FACTOR: usize = 16;
/// How many bytes beyond the floor any body may decode into: some 200,000 topics or partitions.
pub const DECODED_MAX_BYTES: usize = 16 << 20;

/// What the decoder allocates for the first unknown tagged field of a struct (a leaf of its map), and for each further
/// one (leaves are half full when filled in order).
const FIRST_TAG_BYTES: usize = 448;
const NEXT_TAG_BYTES: usize = 96;
/// What the decoder keeps for a string in an array: a reference-counted slice.
const STRING_BYTES: usize = 32;
/// Kafka's limit for strings, in both encodings.
const STRING_MAX_BYTES: usize = i16::MAX as usize;

/// One request.
#[derive(Debug)]
pub struct RequestShape {
    pub api_key: i16,
    pub name: &'static str,
    /// From this version on: compact lengths, tagged fields, request header 2.
    pub flexible_from: i16,
    pub body: Struct,
}

/// Fields one after another, then (in flexible versions) the tagged ones.
#[derive(Debug)]
pub struct Struct {
    pub fields: &'static [Field],
    pub tagged: &'static [Tagged],
    /// Size of the decoded struct itself, without what it points to.
    pub decoded_bytes: usize,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// The versions that have this field, both ends included.
    pub since: i16,
    pub until: i16,
    pub kind: Kind,
}

/// A tagged field that the decoder knows; all others are skipped by their size.
#[derive(Debug)]
pub struct Tagged {
    pub tag: u32,
    pub since: i16,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Integers, booleans, UUIDs: so many bytes.
    Fixed(usize),
    String,
    NullableString,
    /// Opaque here: a member's metadata, an assignment.
    Bytes,
    /// Record batches, opaque here.
    NullableBytes,
    Struct(&'static Struct),
    /// A byte that says whether the struct follows (1) or not (the decoder takes anything else for no).
    NullableStruct(&'static Struct),
    Structs(&'static Struct),
    NullableStructs(&'static Struct),
    /// An array of values of so many bytes each.
    FixedArray(usize),
    Strings,
    NullableStrings,
}

/// A field that all versions have.
pub const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, since: 0, until: i16::MAX, kind }
}

impl Field {
    pub const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    pub const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    const fn exists_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

/// librdkafka asks for all topics, in flexible versions, by a null array of four bytes where one is right. Kafka reads
/// over what is left at the end, and so must we.
const METADATA_KEY: i16 = 3;
const NULL_ARRAY_EXCESS: usize = 3;

impl RequestShape {
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }

    /// So many bytes may follow the body.
    pub const fn ignored_bytes(&self) -> usize {
        if self.api_key == METADATA_KEY { NULL_ARRAY_EXCESS } else { 0 }
    }

    /// Is this body what a request of this version looks like, to the last byte, and harmless to decode?
    pub fn check(&'static self, version: i16, body: &[u8]) -> Result<(), Malformed> {
        let allowance = (body.len().saturating_mul(DECODED_FACTOR)).min(DECODED_MAX_BYTES) + DECODED_FLOOR_BYTES;
        let mut walk =
            Walk { bytes: Reader::new(body), version, flexible: self.is_flexible(version), allowance, field: "body" };
        walk.structure(&self.body)?;
        match walk.bytes.remaining() {
            0 => Ok(()),
            trailing if trailing <= self.ignored_bytes() => Ok(()),
            trailing => Err(walk.malformed(Problem::Trailing(trailing))),
        }
    }
}

/// Why a request cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}, byte {position}: {problem}")]
pub struct Malformed {
    pub field: &'static str,
    pub position: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the request ends too early")]
    Truncated,
    #[error("{0} bytes too many")]
    Trailing(usize),
    #[error("a variable-length integer of more than 32 bits")]
    Varint,
    #[error("a length of {0}")]
    Length(i64),
    #[error("null where a value is required")]
    Null,
    #[error("{0} elements do not fit into the rest of the request")]
    Count(u64),
    #[error("it would take too much memory to decode")]
    Memory,
    #[error("not valid UTF-8")]
    Utf8,
    #[error("tagged field {0} is out of order")]
    TagOrder(u32),
    #[error("tagged field {0} does not exist in this version")]
    TagVersion(u32),
    #[error("tagged field {0} is not as long as it says")]
    TagSize(u32),
}

/// Reads from a slice, never beyond it.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        if count > self.remaining() {
            return Err(Problem::Truncated);
        }
        let taken = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Problem> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn int32(&mut self) -> Result<i32, Problem> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// An unsigned varint of at most 32 bits. The decoder cuts longer ones short; here they are refused.
    pub(super) fn varint(&mut self) -> Result<u32, Problem> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                return Err(Problem::Varint);
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Problem::Varint)
    }

    /// A length or count whose encoding keeps a value for null.
    fn length(&mut self, flexible: bool, short: bool) -> Result<Option<usize>, Problem> {
        let length = match (flexible, short) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => i64::from(self.int16()?),
            (false, false) => i64::from(self.int32()?),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| Problem::Length(length)),
        }
    }

    pub(super) fn string(&mut self, flexible: bool) -> Result<Option<&'a str>, Problem> {
        let Some(length) = self.length(flexible, true)? else { return Ok(None) };
        if length > STRING_MAX_BYTES {
            return Err(Problem::Length(length as i64));
        }
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| Problem::Utf8)
    }
}

struct Walk<'a> {
    bytes: Reader<'a>,
    version: i16,
    flexible: bool,
    /// How many bytes the rest of the request may still decode into.
    allowance: usize,
    /// What is being read, for the error.
    field: &'static str,
}

impl Walk<'_> {
    fn malformed(&self, problem: Problem) -> Malformed {
        Malformed { field: self.field, position: self.bytes.position(), problem }
    }

    fn structure(&mut self, shape: &'static Struct) -> Result<(), Malformed> {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists_in(version)) {
            self.field = field.name;
            self.value(field.kind)?;
        }
        if self.flexible {
            self.field = "tagged fields";
            self.tagged_fields(shape.tagged)?;
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.bytes.take(bytes).map(drop).map_err(|problem| self.malformed(problem)),
            Kind::String | Kind::NullableString => self.string(matches!(kind, Kind::NullableString)),
            Kind::Bytes | Kind::NullableBytes => self.opaque(matches!(kind, Kind::NullableBytes)),
            Kind::Struct(of) => self.structure(of),
            Kind::NullableStruct(of) => match self.bytes.take(1).map_err(|problem| self.malformed(problem))? {
                [1] => self.structure(of),
                _ => Ok(()),
            },
            Kind::Structs(of) | Kind::NullableStructs(of) => {
                let nullable = matches!(kind, Kind::NullableStructs(_));
                let least = least_bytes(of, self.version, self.flexible);
                for _ in 0..self.count(nullable, least, of.decoded_bytes)? {
                    self.structure(of)?;
                }
                Ok(())
            }
            Kind::FixedArray(bytes) => {
                let count = self.count(false, bytes, bytes)?;
                self.bytes.take(count * bytes).map(drop).map_err(|problem| self.malformed(problem))
            }
            Kind::Strings | Kind::NullableStrings => {
                let nullable = matches!(kind, Kind::NullableStrings);
                for _ in 0..self.count(nullable, least_of(Kind::String, self.version, self.flexible), STRING_BYTES)? {
                    self.string(false)?;
                }
                Ok(())
            }
        }
    }

    fn string(&mut self, nullable: bool) -> Result<(), Malformed> {
        match self.bytes.string(self.flexible) {
            Ok(None) if !nullable => Err(self.malformed(Problem::Null)),
            Ok(_) => Ok(()),
            Err(problem) => Err(self.malformed(problem)),
        }
    }

    fn opaque(&mut self, nullable: bool) -> Result<(), Malformed> {
        match self.bytes.length(self.flexible, false) {
            Ok(None) if !nullable => Err(self.malformed(Problem::Null)),
            Ok(None) => Ok(()),
            Ok(Some(length)) => self.bytes.take(length).map(drop).map_err(|problem| self.malformed(problem)),
            Err(problem) => Err(self.malformed(problem)),
        }
    }

    /// The count of an array; zero for null where that is allowed.
    fn count(&mut self, nullable: bool, least_bytes: usize, decoded_bytes: usize) -> Result<usize, Malformed> {
        let count = match self.bytes.length(self.flexible, false) {
            Ok(Some(count)) => count,
            Ok(None) if nullable => 0,
            Ok(None) => return Err(self.malformed(Problem::Null)),
            Err(problem) => return Err(self.malformed(problem)),
        };
        if count.saturating_mul(least_bytes.max(1)) > self.bytes.remaining() {
            return Err(self.malformed(Problem::Count(count as u64)));
        }
        self.pay(count.saturating_mul(decoded_bytes))?;
        Ok(count)
    }

    fn pay(&mut self, decoded_bytes: usize) -> Result<(), Malformed> {
        match self.allowance.checked_sub(decoded_bytes) {
            Some(left) => {
                self.allowance = left;
                Ok(())
            }
            None => Err(self.malformed(Problem::Memory)),
        }
    }

    fn tagged_fields(&mut self, known: &'static [Tagged]) -> Result<(), Malformed> {
        let count = self.bytes.varint().map_err(|problem| self.malformed(problem))?;
        let mut previous = None;
        let mut price = FIRST_TAG_BYTES;
        for _ in 0..count {
            let (tag, size) = self.tag().map_err(|problem| self.malformed(problem))?;
            if previous.is_some_and(|previous| previous >= tag) {
                return Err(self.malformed(Problem::TagOrder(tag)));
            }
            previous = Some(tag);
            match known.iter().find(|known| known.tag == tag) {
                Some(known) => self.known_tag(known, size)?,
                None => {
                    self.pay(price)?;
                    price = NEXT_TAG_BYTES;
                    self.bytes.take(size).map_err(|problem| self.malformed(problem))?;
                }
            }
        }
        Ok(())
    }

    fn tag(&mut self) -> Result<(u32, usize), Problem> {
        Ok((self.bytes.varint()?, self.bytes.varint()? as usize))
    }

    /// The decoder ignores the size of a tagged field that it knows, so the size has to be right.
    fn known_tag(&mut self, known: &'static Tagged, size: usize) -> Result<(), Malformed> {
        if self.version < known.since {
            return Err(self.malformed(Problem::TagVersion(known.tag)));
        }
        let start = self.bytes.position();
        self.value(known.kind)?;
        if self.bytes.position() - start != size {
            return Err(self.malformed(Problem::TagSize(known.tag)));
        }
        Ok(())
    }
}

/// The fewest bytes that a struct takes on the wire.
fn least_bytes(shape: &Struct, version: i16, flexible: bool) -> usize {
    let fields = shape.fields.iter().filter(|field| field.exists_in(version));
    fields.map(|field| least_of(field.kind, version, flexible)).sum::<usize>() + usize::from(flexible)
}

fn least_of(kind: Kind, version: i16, flexible: bool) -> usize {
    match kind {
        Kind::Fixed(bytes) => bytes,
        Kind::Struct(of) => least_bytes(of, version, flexible),
        Kind::NullableStruct(_) => 1,
        _ if flexible => 1,
        Kind::String | Kind::NullableString => 2,
        Kind::Bytes | Kind::NullableBytes => 4,
        Kind::Structs(_) | Kind::NullableStructs(_) | Kind::FixedArray(_) => 4,
        Kind::Strings | Kind::NullableStrings => 4,
    }
}

#[cfg(test)]
mod tests;
