//! A container's log: a disk of its own, written as a ring of blocks, which the host reads as
//! a file.
//!
//! No process of the host is necessary to write it, the guest is unable to make it larger, and it
//! remains when machine and agent are gone. vc_core/spec/log_format.py reads it and describes the
//! format; both sides must agree.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::error::Error;
use crate::machine::clock;

const BLOCK: usize = 4096;
const MAGIC: &[u8; 4] = b"VCL1";
const HEAD: usize = 20;
const RECORD_HEAD: usize = 11;
/// No log reaches this number: a larger one was not written by the agent.
const LAST_SEQUENCE: u64 = 1 << 62;

/// The kind of a record.
#[derive(Clone, Copy)]
pub enum Kind {
    Stdout = 1,
    Stderr = 2,
    /// A process has ended, with its exit code, and is restarted.
    Ended = 3,
    /// A process has ended, and none follows.
    Last = 4,
    /// A process begins.
    Begun = 5,
}

/// Shared by all writers, and exclusive while the machine is saved: the disk's contents then match
/// the memory.
#[derive(Default)]
pub struct Gate {
    lock: Arc<RwLock<()>>,
    closed: Mutex<Option<OwnedRwLockWriteGuard<()>>>,
}

impl Gate {
    /// Blocks all writers until `open`.
    pub async fn close(&self) {
        let guard = self.lock.clone().write_owned().await;
        *self.closed.lock() = Some(guard);
    }

    /// May be called twice.
    pub fn open(&self) {
        drop(self.closed.lock().take());
    }
}

#[derive(Clone)]
pub struct Log {
    ring: Arc<Mutex<Ring>>,
    gate: Arc<RwLock<()>>,
}

impl Log {
    /// Continues behind the existing records.
    pub fn open(node: &str, gate: &Gate) -> Result<Self, Error> {
        Ok(Self { ring: Arc::new(Mutex::new(Ring::open(node)?)), gate: gate.lock.clone() })
    }

    /// Returns when the data is on the disk.
    pub async fn append(&self, kind: Kind, data: Vec<u8>) -> Result<(), Error> {
        let _open = self.gate.clone().read_owned().await;
        let ring = self.ring.clone();
        tokio::task::spawn_blocking(move || {
            let now_ns = u64::try_from(clock::now_ns().unwrap_or_default()).unwrap_or_default();
            ring.lock().append(kind, now_ns, &data)
        })
        .await??;
        Ok(())
    }
}

/// Aligned for O_DIRECT: without it, a write would stay in the guest's page cache for an
/// unknown time.
#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; BLOCK]);

struct Ring {
    disk: File,
    count: u64,
    /// Sequence number of the first of `blocks`.
    sequence: u64,
    /// Blocks that are not written yet, and the last one, which is being filled.
    blocks: Vec<Block>,
    used: usize,
}

impl Ring {
    fn open(node: &str) -> io::Result<Self> {
        Self::on(OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(node)?)
    }

    /// Continues behind the contents of a disk, which may be anything.
    fn on(mut disk: File) -> io::Result<Self> {
        let count = disk.seek(SeekFrom::End(0))? / BLOCK as u64;
        if count == 0 {
            return Err(io::Error::other("the disk of the log has no room"));
        }
        let sequence = last_sequence(&disk, count)? + 1;
        Ok(Self { disk, count, sequence, blocks: vec![Block([0; BLOCK])], used: 0 })
    }

    fn append(&mut self, kind: Kind, time_ns: u64, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        loop {
            let room = BLOCK - HEAD - self.used;
            if room <= RECORD_HEAD {
                self.seal();
                self.blocks.push(Block([0; BLOCK]));
                self.used = 0;
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(room - RECORD_HEAD));
            let length = u16::try_from(now.len()).map_err(io::Error::other)?;
            let record =
                [&[kind as u8][..], &length.to_le_bytes(), &time_ns.to_le_bytes(), now].concat();
            let at = HEAD + self.used;
            if let Some(block) = self.blocks.last_mut() {
                block.0[at..at + record.len()].copy_from_slice(&record);
            }
            self.used += record.len();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        self.seal();
        self.write()
    }

    /// Completes the header of the last block.
    fn seal(&mut self) {
        let sequence = self.sequence + self.blocks.len() as u64 - 1;
        let used = self.used as u16; // less than a block
        if let Some(Block(block)) = self.blocks.last_mut() {
            block[..4].copy_from_slice(MAGIC);
            block[8..16].copy_from_slice(&sequence.to_le_bytes());
            block[16..18].copy_from_slice(&used.to_le_bytes());
            let sum = crc32fast::hash(&block[8..]);
            block[4..8].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// Writes all blocks, in at most two writes: to the ring's end, and from its beginning. Keeps
    /// the last.
    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.blocks.len() {
            let place = (self.sequence + written as u64 - 1) % self.count;
            let fitting = usize::try_from(self.count - place).unwrap_or(usize::MAX);
            let run = &self.blocks[written..self.blocks.len().min(written.saturating_add(fitting))];
            // SAFETY: a Block is 4096 plain bytes without padding, and the slice lives as long as
            // this call.
            let bytes =
                unsafe { std::slice::from_raw_parts(run.as_ptr().cast::<u8>(), size_of_val(run)) };
            self.disk.write_all_at(bytes, place * BLOCK as u64)?;
            written += run.len();
        }
        self.sequence += written as u64 - 1;
        self.blocks.drain(..written - 1);
        Ok(())
    }
}

/// Returns the sequence number of the last written block, 0 for an empty log. The numbers grow from
/// place to place up to that block.
fn last_sequence(disk: &File, count: u64) -> io::Result<u64> {
    let first = sequence_at(disk, 0)?;
    if first == 0 {
        return Ok(0);
    }
    // `low` belongs to the same round as the first block, `high` does not.
    let (mut low, mut high) = (0, count);
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        if sequence_at(disk, middle)? == first + middle { low = middle } else { high = middle }
    }
    Ok(first + low)
}

/// Returns 0 for a block that was never written, or only partly.
fn sequence_at(disk: &File, place: u64) -> io::Result<u64> {
    let mut block = Block([0; BLOCK]);
    disk.read_exact_at(&mut block.0, place * BLOCK as u64)?;
    let Block(bytes) = &block;
    let sum = crc32fast::hash(&bytes[8..]).to_le_bytes();
    if &bytes[..4] != MAGIC || bytes[4..8] != sum {
        return Ok(0);
    }
    let sequence = u64::from_le_bytes(bytes[8..16].try_into().map_err(io::Error::other)?);
    Ok(if sequence > LAST_SEQUENCE { 0 } else { sequence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn empty(blocks: usize) -> File {
        disk(&vec![0; blocks * BLOCK])
    }

    #[test]
    fn a_ring_goes_on_where_it_ended_whatever_its_size() {
        for blocks in 1..9 {
            let file = empty(blocks);
            for round in 1..40 {
                let mut ring = Ring::on(file.try_clone().unwrap()).unwrap();
                assert_eq!(ring.sequence, round, "{blocks} blocks");
                ring.append(Kind::Stdout, 1, &[b'x'; 100]).unwrap();
                assert_eq!(last_sequence(&file, blocks as u64).unwrap(), round);
            }
        }
    }

    #[test]
    fn a_record_larger_than_the_ring_leaves_its_end() {
        let file = empty(3);
        let mut ring = Ring::on(file.try_clone().unwrap()).unwrap();
        let data: Vec<u8> = (0..10 * BLOCK).map(|number| (number % 251) as u8).collect();
        ring.append(Kind::Stdout, 1, &data).unwrap();
        let mut block = [0; BLOCK];
        let last = last_sequence(&file, 3).unwrap();
        file.read_exact_at(&mut block, (last - 1) % 3 * BLOCK as u64).unwrap();
        let used = usize::from(u16::from_le_bytes([block[16], block[17]]));
        assert!(data.ends_with(&block[HEAD + RECORD_HEAD..HEAD + used]));
    }

    #[test]
    fn blocks_that_were_not_written_to_their_end_count_as_empty() {
        let file = empty(4);
        let mut ring = Ring::on(file.try_clone().unwrap()).unwrap();
        for _ in 0..2 {
            ring.append(Kind::Stdout, 1, &[b'x'; BLOCK]).unwrap();
        }
        let before = last_sequence(&file, 4).unwrap();
        file.write_all_at(b"garbage", (before - 1) * BLOCK as u64 + 100).unwrap();
        assert_eq!(last_sequence(&file, 4).unwrap(), before - 1);
    }

    #[test]
    fn any_content_of_a_disk_is_gone_on_from_or_refused() {
        assert!(Ring::on(disk(&[0; BLOCK - 1])).is_err(), "no room for a block");
        let mut noise = 1_u32;
        for _ in 0..50 {
            let content: Vec<u8> = (0..5 * BLOCK)
                .map(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 24) as u8
                })
                .collect();
            let file = disk(&content);
            let mut ring = Ring::on(file.try_clone().unwrap()).unwrap();
            ring.append(Kind::Stderr, 1, b"text").unwrap();
            assert_eq!(last_sequence(&file, 5).unwrap(), ring.sequence);
        }
    }

    #[test]
    fn a_block_that_claims_the_largest_sequence_breaks_nothing() {
        let mut block = [0; BLOCK];
        block[..4].copy_from_slice(MAGIC);
        block[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let sum = crc32fast::hash(&block[8..]);
        block[4..8].copy_from_slice(&sum.to_le_bytes());
        let file = disk(&[block, [0; BLOCK]].concat());
        let mut ring = Ring::on(file.try_clone().unwrap()).unwrap();
        ring.append(Kind::Stdout, 1, b"text").unwrap();
        assert_eq!(last_sequence(&file, 2).unwrap(), 1);
    }
}
