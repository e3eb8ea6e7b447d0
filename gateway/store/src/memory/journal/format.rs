//! The octets of the journal.
//!
//! A file starts with a header: the magic `ISTHMUSJ`, the format (two octets, big-endian like all numbers),
//! two zeros, a salt of eight octets and the CRC-32 of all that. Frames follow: the marker `IJF1`, the length
//! of the payload (4), the number of the frame from 0 (8), the CRC-32 of salt, length, number and payload (4),
//! and the payload, a sequence of CBOR arrays, one for each change.
//!
//! Each frame is synced before the next is written, so a crash can only damage the last one. The salt keeps
//! stored content from passing for a frame. Format 2 added the items of durable queues; all else is as in format 1.

use bytes::Bytes;
use isthmus_model::EpochMillis;
use minicbor::{Decoder, Encoder};

use crate::key::{Key, Kind, QueueName};
use crate::queue::ItemId;

const MAGIC: &[u8; 8] = b"ISTHMUSJ";
const MARKER: &[u8; 4] = b"IJF1";

/// The format that this release writes, and the newest that it reads.
pub(super) const FORMAT: u16 = 2;
/// The length of the file's header.
pub(super) const HEADER: usize = 24;
/// The length of a frame's header.
pub(super) const FRAME_HEADER: usize = 20;
/// The longest payload of a frame. Batches are limited to less than half of it.
pub(super) const MAX_FRAME: usize = 16 << 20;

/// A salt, different for each file.
pub(super) type Salt = [u8; 8];

/// Builds the header of a file.
pub(super) fn header(salt: Salt) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&salt);
    let crc = crc32(&[&out]);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// What the start of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    Ours(Salt),
    Newer(u16),
    Damaged,
}

/// Reads the header of a file.
pub(super) fn read_header(bytes: &[u8; HEADER]) -> HeaderRead {
    let (content, crc) = bytes.split_at(HEADER - 4);
    let format = u16::from_be_bytes([bytes[8], bytes[9]]);
    if !content.starts_with(MAGIC) || crc32(&[content]).to_be_bytes() != crc {
        return HeaderRead::Damaged;
    }
    if format > FORMAT {
        return HeaderRead::Newer(format);
    }
    let mut salt = [0; 8];
    salt.copy_from_slice(&bytes[12..20]);
    HeaderRead::Ours(salt)
}

/// Builds a frame. The payload is never empty and at most [`MAX_FRAME`] long.
pub(super) fn frame(salt: Salt, number: u64, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let number = number.to_be_bytes();
    let crc = crc32(&[&salt, &len, &number, payload]);
    let mut out = Vec::with_capacity(FRAME_HEADER + payload.len());
    out.extend_from_slice(MARKER);
    out.extend_from_slice(&len);
    out.extend_from_slice(&number);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    pub(super) len: usize,
    pub(super) number: u64,
    crc: u32,
}

impl FrameHeader {
    /// Reads a frame's header; `None` when there is none with a possible length.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (marker, rest) = bytes.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let header = Self { len, number: u64::from_be_bytes(*number), crc: u32::from_be_bytes(*crc) };
        (marker == MARKER && (1..=MAX_FRAME).contains(&len)).then_some(header)
    }

    /// Tells whether the payload is the one that was written.
    pub(super) fn fits(&self, salt: Salt, payload: &[u8]) -> bool {
        let len = u32::try_from(self.len).unwrap_or(u32::MAX).to_be_bytes();
        payload.len() == self.len && crc32(&[&salt, &len, &self.number.to_be_bytes(), payload]) == self.crc
    }
}

/// Tells whether a whole, valid frame starts anywhere in `bytes` but at its beginning.
pub(super) fn has_later_frame(salt: Salt, bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|at| {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(header) = rest.starts_with(MARKER).then(|| FrameHeader::read(rest)).flatten() else { return false };
        rest.get(FRAME_HEADER..FRAME_HEADER + header.len).is_some_and(|payload| header.fits(salt, payload))
    })
}

/// One change, borrowed for writing.
#[derive(Debug)]
pub(in crate::memory) enum Op<'a> {
    Put { key: &'a Key, version: u64, expires_at: Option<EpochMillis>, bytes: &'a [u8] },
    Delete { key: &'a Key },
    Touch { key: &'a Key, expires_at: Option<EpochMillis> },
    Enqueue { queue: &'a QueueName, id: ItemId, enqueued_at: EpochMillis, expires_at: EpochMillis, bytes: &'a [u8] },
    Done { queue: &'a QueueName, id: ItemId },
}

/// One change, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadOp {
    Put { key: Key, version: u64, expires_at: Option<EpochMillis>, bytes: Bytes },
    Delete { key: Key },
    Touch { key: Key, expires_at: Option<EpochMillis> },
    Enqueue { queue: QueueName, id: ItemId, enqueued_at: EpochMillis, expires_at: EpochMillis, bytes: Bytes },
    Done { queue: QueueName, id: ItemId },
}

impl Op<'_> {
    /// Adds the change to a payload.
    pub(in crate::memory) fn write(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail: the error type has no value but for custom encoders.
        let _ = self.encode(&mut Encoder::new(out));
    }

    fn encode(&self, e: &mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        match self {
            Op::Put { key, version, expires_at, bytes } => {
                record(e, 7, 1, key)?.u64(*version)?.encode(expires_at.map(|at| at.0))?.bytes(bytes)?;
            }
            Op::Delete { key } => {
                record(e, 4, 2, key)?;
            }
            Op::Touch { key, expires_at } => {
                record(e, 5, 3, key)?.encode(expires_at.map(|at| at.0))?;
            }
            Op::Enqueue { queue, id, enqueued_at, expires_at, bytes } => {
                item(e, 7, 4, queue, *id)?.u64(enqueued_at.0)?.u64(expires_at.0)?.bytes(bytes)?;
            }
            Op::Done { queue, id } => {
                item(e, 4, 5, queue, *id)?;
            }
        }
        Ok(())
    }
}

type Encoded<'e, 'a> = Result<&'e mut Encoder<&'a mut Vec<u8>>, minicbor::encode::Error<std::convert::Infallible>>;

/// Begins the change of a record.
fn record<'e, 'a>(e: &'e mut Encoder<&'a mut Vec<u8>>, parts: u64, code: u8, key: &Key) -> Encoded<'e, 'a> {
    e.array(parts)?.u8(code)?.u8(key.kind().code())?.str(key.slot().as_str())?.str(key.name())
}

/// Begins the change of an item.
fn item<'e, 'a>(
    e: &'e mut Encoder<&'a mut Vec<u8>>,
    parts: u64,
    code: u8,
    queue: &QueueName,
    id: ItemId,
) -> Encoded<'e, 'a> {
    e.array(parts)?.u8(code)?.str(queue.slot().as_str())?.str(&queue.name())?.u64(id.0)
}

/// Reads all changes of a payload; `None` when it is not one.
pub(super) fn read_ops(payload: &[u8]) -> Option<Vec<ReadOp>> {
    let mut d = Decoder::new(payload);
    let mut ops = Vec::new();
    while d.position() < payload.len() {
        ops.push(read_op(&mut d)?);
    }
    Some(ops)
}

fn read_op(d: &mut Decoder<'_>) -> Option<ReadOp> {
    let parts = d.array().ok()??;
    let code = d.u8().ok()?;
    if matches!(code, 4 | 5) {
        return read_item_op(d, code, parts);
    }
    let kind = Kind::from_code(d.u8().ok()?)?;
    let slot = d.str().ok()?;
    let key = Key::from_parts(kind, slot, d.str().ok()?)?;
    match (code, parts) {
        (1, 7) => {
            let version = d.u64().ok()?;
            let expires_at = d.decode::<Option<u64>>().ok()?.map(EpochMillis);
            Some(ReadOp::Put { key, version, expires_at, bytes: Bytes::copy_from_slice(d.bytes().ok()?) })
        }
        (2, 4) => Some(ReadOp::Delete { key }),
        (3, 5) => Some(ReadOp::Touch { key, expires_at: d.decode::<Option<u64>>().ok()?.map(EpochMillis) }),
        _ => None,
    }
}

fn read_item_op(d: &mut Decoder<'_>, code: u8, parts: u64) -> Option<ReadOp> {
    let slot = d.str().ok()?;
    let queue = QueueName::durable_from_parts(slot, d.str().ok()?)?;
    let id = ItemId(d.u64().ok()?);
    match (code, parts) {
        (4, 7) => {
            let (enqueued_at, expires_at) = (EpochMillis(d.u64().ok()?), EpochMillis(d.u64().ok()?));
            Some(ReadOp::Enqueue { queue, id, enqueued_at, expires_at, bytes: Bytes::copy_from_slice(d.bytes().ok()?) })
        }
        (5, 4) => Some(ReadOp::Done { queue, id }),
        _ => None,
    }
}

/// CRC-32 as of IEEE 802.3, over the parts one after the other.
fn crc32(parts: &[&[u8]]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0_u32; 256];
        let mut n = 0;
        let mut byte = 0_u32;
        while n < 256 {
            let mut crc = byte;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
            byte += 1;
        }
        table
    };
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        let [low, ..] = crc.to_le_bytes();
        crc = (crc >> 8) ^ TABLE[usize::from(low ^ byte)];
    }
    !crc
}

/// The checksum, for tests that forge files.
#[cfg(test)]
pub(super) fn checksum_for_tests(bytes: &[u8]) -> u32 {
    crc32(&[bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Slot;

    const SALT: Salt = *b"saltsalt";

    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn frozen_octets_of_header_and_frame_are_written_and_read() {
        let key = Key::from_parts(Kind::User, "lee@corp.example", "").unwrap();
        let mut payload = Vec::new();
        Op::Put { key: &key, version: 7, expires_at: Some(EpochMillis(1000)), bytes: b"list" }.write(&mut payload);
        Op::Touch { key: &key, expires_at: None }.write(&mut payload);
        Op::Delete { key: &key }.write(&mut payload);
        let frozen = b"\x87\x01\x03\x70lee@corp.example\x60\x07\x19\x03\xe8\x44list\
            \x85\x03\x03\x70lee@corp.example\x60\xf6\x84\x02\x03\x70lee@corp.example\x60";
        assert_eq!(payload, frozen);
        let ops = read_ops(frozen).unwrap();
        let put = ReadOp::Put {
            key: key.clone(),
            version: 7,
            expires_at: Some(EpochMillis(1000)),
            bytes: Bytes::from_static(b"list"),
        };
        assert_eq!(ops, [put, ReadOp::Touch { key: key.clone(), expires_at: None }, ReadOp::Delete { key }]);

        let written = header(SALT);
        assert_eq!(&written[..20], b"ISTHMUSJ\x00\x02\x00\x00saltsalt");
        assert_eq!(read_header(written.as_slice().try_into().unwrap()), HeaderRead::Ours(SALT));
        // What version 0.1.0 wrote stays readable.
        let mut former = b"ISTHMUSJ\x00\x01\x00\x00saltsalt".to_vec();
        former.extend_from_slice(&crc32(&[&former]).to_be_bytes());
        assert_eq!(read_header(former.as_slice().try_into().unwrap()), HeaderRead::Ours(SALT));
        let whole = frame(SALT, 3, frozen);
        assert_eq!(&whole[..16], b"IJF1\x00\x00\x00\x49\x00\x00\x00\x00\x00\x00\x00\x03");
        assert_eq!(whole[16..20], 0x25e9_48c5_u32.to_be_bytes());
    }

    #[test]
    fn frozen_octets_of_items_are_written_and_read() {
        let queue = QueueName::durable_from_parts("c,p", "").unwrap();
        let mut payload = Vec::new();
        let (enqueued_at, expires_at) = (EpochMillis(10), EpochMillis(1000));
        Op::Enqueue { queue: &queue, id: ItemId(7), enqueued_at, expires_at, bytes: b"item" }.write(&mut payload);
        Op::Done { queue: &queue, id: ItemId(7) }.write(&mut payload);
        let frozen = b"\x87\x04\x63c,p\x60\x07\x0a\x19\x03\xe8\x44item\x84\x05\x63c,p\x60\x07";
        assert_eq!(payload, frozen);
        let bytes = Bytes::from_static(b"item");
        let enqueue = ReadOp::Enqueue { queue: queue.clone(), id: ItemId(7), enqueued_at, expires_at, bytes };
        assert_eq!(read_ops(frozen).unwrap(), [enqueue, ReadOp::Done { queue, id: ItemId(7) }]);
        assert_eq!(read_ops(b"\x84\x05\x61{\x60\x07"), None);
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let whole = frame(SALT, 3, b"payload");
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let good = FrameHeader::read(&damaged).is_some_and(|h| h.fits(SALT, &damaged[FRAME_HEADER..]));
            assert!(!good, "bit {bit}");
        }
        let written = header(SALT);
        for bit in 0..HEADER * 8 {
            let mut damaged: [u8; HEADER] = written.as_slice().try_into().unwrap();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_header(&damaged), HeaderRead::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_later_frame_is_found_only_with_this_files_salt() {
        let mut bytes = b"damaged frame".to_vec();
        assert!(!has_later_frame(SALT, &bytes));
        bytes.extend(frame(*b"othersal", 4, b"content that looks like a frame"));
        assert!(!has_later_frame(SALT, &bytes));
        bytes.extend(frame(SALT, 4, b"payload"));
        assert!(has_later_frame(SALT, &bytes));
        bytes.pop();
        assert!(!has_later_frame(SALT, &bytes));
    }

    #[test]
    fn payloads_that_are_no_changes_are_refused() {
        let key = Key::other("c", Slot::named("s"), "n");
        let mut good = Vec::new();
        Op::Put { key: &key, version: 1, expires_at: None, bytes: b"content" }.write(&mut good);
        for end in 1..good.len() {
            assert_eq!(read_ops(&good[..end]), None, "{end}");
        }
        assert_eq!(read_ops(b"\x84\x09\x03\x61a\x60"), None);
        assert_eq!(read_ops(b"\x84\x02\x63\x61a\x60"), None);
        assert_eq!(read_ops(b"\x9f\x02\x03\x61a\x60\xff"), None);
    }
}
