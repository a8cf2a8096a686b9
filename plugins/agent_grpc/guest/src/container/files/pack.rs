//! Packs a file or folder as a GNU tar archive. Files may grow, shrink and vanish meanwhile, and
//! may have no size at all (proc(5)): the archive is well-formed in any case.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};
use tar::{Builder, EntryType, GnuExtSparseHeader, Header};

use crate::container::files::error::FilesError;

/// Bytes that are read before the size is written, so that small files have their actual size, not
/// the reported one.
const READ_AHEAD: u64 = 1 << 20;
/// The same for files with a reported size of 0.
const MOST_WITHOUT_SIZE: u64 = 16 << 20;
/// The reader on the host accepts 200000.
const MOST_SEGMENTS: usize = 100_000;
const BLOCK: u64 = 512;
const SPARSE_IN_HEADER: usize = 4;
const SPARSE_IN_EXTENSION: usize = 21;

type Output = Builder<BufWriter<io::Stdout>>;
type Links = HashMap<(u64, u64), PathBuf>;

/// Packs a file or folder under a name; under its own when `name` is empty.
pub fn read(path: &Path, name: &str) -> Result<(), FilesError> {
    let meta = fs::symlink_metadata(path)?;
    if meta.file_type().is_socket() {
        return Err(FilesError::unfit("it is a socket, which cannot be copied"));
    }
    if name == "." && !meta.is_dir() {
        return Err(FilesError::unfit("it is no folder"));
    }
    let own = path.file_name().unwrap_or(OsStr::new("."));
    let name = if name.is_empty() { PathBuf::from(own) } else { PathBuf::from(name) };
    let mut archive = Builder::new(BufWriter::with_capacity(64 << 10, io::stdout()));
    pack(&mut archive, path, &name, &meta, &mut Links::new())?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn pack(
    archive: &mut Output,
    path: &Path,
    name: &Path,
    meta: &Metadata,
    links: &mut Links,
) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_socket() {
        return Ok(()); // meaningless outside of the container
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_owned());
        if first != name {
            return archive.append_link(&mut header_of(meta, EntryType::Link), name, first);
        }
    }
    if kind.is_file() {
        return pack_file(archive, path, name);
    }
    if kind.is_symlink() {
        let Some(target) = unless_gone(fs::read_link(path))? else { return Ok(()) };
        return archive.append_link(&mut header_of(meta, EntryType::Symlink), name, target);
    }
    if !kind.is_dir() {
        let entry_type = match () {
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_char_device() => EntryType::Char,
            () => EntryType::Block,
        };
        let mut header = header_of(meta, entry_type);
        header.set_device_major(u32::try_from(major(meta.rdev())).unwrap_or_default())?;
        header.set_device_minor(u32::try_from(minor(meta.rdev())).unwrap_or_default())?;
        return archive.append_data(&mut header, name, io::empty());
    }
    let Some(entries) = unless_gone(fs::read_dir(path))? else { return Ok(()) };
    archive.append_data(&mut header_of(meta, EntryType::Directory), name, io::empty())?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if let Some(meta) = unless_gone(entry.metadata())? {
            pack(archive, &entry.path(), &name.join(entry.file_name()), &meta, links)?;
        }
    }
    Ok(())
}

/// Returns None for what was removed while a folder is read.
fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn header_of(meta: &Metadata, entry_type: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(meta);
    header.set_entry_type(entry_type);
    header.set_size(0);
    if meta.mtime() < 0 {
        // Before 1970: GNU tar writes all twelve bytes as one negative number.
        let field = &mut header.as_old_mut().mtime;
        field.fill(0xff);
        field[4..].copy_from_slice(&meta.mtime().to_be_bytes());
    }
    header
}

fn pack_file(archive: &mut Output, path: &Path, name: &Path) -> io::Result<()> {
    // The file may have been replaced meanwhile: no link is followed, and no FIFO waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Some(mut file) = unless_gone(OpenOptions::new().read(true).custom_flags(flags).open(path))?
    else {
        return Ok(());
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(());
    }
    if meta.blocks() * BLOCK < meta.len()
        && let Some(segments) = segments(&file, meta.len())?
    {
        return pack_sparse(archive, &mut file, name, &meta, &segments);
    }
    let mut header = header_of(&meta, EntryType::Regular);
    let mut begin = read_most(&mut file, READ_AHEAD)?;
    if begin.len() as u64 == READ_AHEAD && meta.len() <= READ_AHEAD {
        begin.extend(read_most(&mut file, MOST_WITHOUT_SIZE - READ_AHEAD)?);
        if begin.len() as u64 == MOST_WITHOUT_SIZE && meta.len() == 0 {
            let text = format!(
                "{} claims to be empty and has more than {MOST_WITHOUT_SIZE} bytes",
                path.display()
            );
            return Err(io::Error::other(text));
        }
    }
    let begun = begin.len() as u64;
    let size = if begun == READ_AHEAD { meta.len().max(begun) } else { begun };
    header.set_size(size);
    archive.append_data(&mut header, name, begin.chain(file.exactly(size - begun)))
}

/// Returns the bytes from here to the end, at most `most`.
fn read_most(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    match file.take(most).read_to_end(&mut data) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(data), // a file that would block has no more data
    }
}

trait Exactly: Read + Sized {
    /// Returns exactly `size` bytes: a file that became shorter is filled with zeros, as by tar(1);
    /// what was added to it is left out.
    fn exactly(self, size: u64) -> impl Read {
        self.chain(io::repeat(0)).take(size)
    }
}

impl<R: Read> Exactly for R {}

/// Returns offset and length of the data in a sparse file; `None` when it has no holes, or too many
/// of them.
fn segments(file: &File, size: u64) -> io::Result<Option<Vec<(u64, u64)>>> {
    let mut segments = Vec::new();
    let mut at: i64 = 0;
    let size = i64::try_from(size).map_err(io::Error::other)?;
    while at < size {
        let begin = match lseek(file.as_fd(), at, Whence::SeekData) {
            Ok(begin) => begin.min(size),
            Err(nix::Error::ENXIO) => break, // only a hole follows
            Err(_) => return Ok(None),       // a file system that knows no holes
        };
        let Ok(end) = lseek(file.as_fd(), begin, Whence::SeekHole) else { return Ok(None) };
        let end = end.min(size);
        if begin < end {
            segments.push((begin.unsigned_abs(), (end - begin).unsigned_abs()));
        }
        at = end.max(at + 1);
        if segments.len() > MOST_SEGMENTS {
            return rewound(file, None);
        }
    }
    let is_whole = segments.first() == Some(&(0, size.unsigned_abs()));
    rewound(file, (!is_whole).then_some(segments))
}

fn rewound<T>(mut file: &File, answer: T) -> io::Result<T> {
    file.seek(SeekFrom::Start(0))?;
    Ok(answer)
}

/// GNU tar manual, "Old GNU Format": four segments in the header, twenty-one in each block that
/// follows it.
fn pack_sparse(
    archive: &mut Output,
    file: &mut File,
    name: &Path,
    meta: &Metadata,
    segments: &[(u64, u64)],
) -> io::Result<()> {
    let size = segments.iter().map(|(_, length)| length).sum();
    // The last one is empty and marks the end of the file.
    let all: Vec<_> = segments.iter().copied().chain([(meta.len(), 0)]).collect();
    let mut header = header_of(meta, EntryType::GNUSparse);
    header.set_size(size);
    let (first, rest) = all.split_at(all.len().min(SPARSE_IN_HEADER));
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.set_real_size(meta.len());
        gnu.set_is_extended(!rest.is_empty());
        for (place, (offset, length)) in gnu.sparse.iter_mut().zip(first) {
            place.set_offset(*offset);
            place.set_length(*length);
        }
    }
    let mut extensions = Vec::new();
    let mut groups = rest.chunks(SPARSE_IN_EXTENSION).peekable();
    while let Some(group) = groups.next() {
        let mut extension = GnuExtSparseHeader::new();
        for (place, (offset, length)) in extension.sparse.iter_mut().zip(group) {
            place.set_offset(*offset);
            place.set_length(*length);
        }
        extension.set_is_extended(groups.peek().is_some());
        extensions.extend_from_slice(extension.as_bytes());
    }
    // The blocks are between header and content. They are complete, so the content is padded as
    // without them.
    archive.append_data(&mut header, name, &extensions[..])?;
    let output = archive.get_mut();
    for (offset, length) in segments {
        file.seek(SeekFrom::Start(*offset))?;
        io::copy(&mut file.exactly(*length), output)?;
    }
    let padding = size.next_multiple_of(BLOCK) - size;
    io::copy(&mut io::repeat(0).take(padding), output)?;
    Ok(())
}
