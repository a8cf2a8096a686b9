//! Archives for the files of a container: unpacked in a thread whose root is a small file system
//! in memory, as in a container. The first byte chooses the place.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use vc_agent::container::files::unpack::write;

/// Where the file system is mounted, in the mount namespace of each thread.
static PLACE: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
const PLACES: [(&str, &str); 5] =
    [("/into", "."), ("/into/", "a"), ("/into/new", "a"), ("/into/file", "a"), ("/into/new/", ".")];
const BLOCK: usize = 512;
/// Where a header says what an entry is.
const TYPE: usize = 156;

/// Needs the rights of root, for mounts and chroot.
pub fn check(data: &[u8]) {
    let Some((kind, archive)) = data.split_first() else { return };
    let (path, name) = PLACES[usize::from(*kind) % PLACES.len()];
    let place = PLACE.path();
    std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| unpack(place, archive, path, name));
        unpacking.join().expect("unpacking panics");
    });
}

fn unpack(place: &Path, archive: &[u8], path: &str, name: &str) {
    enter(place);
    fs::create_dir("/into").unwrap();
    fs::write("/into/file", "text").unwrap();
    let outcome = write(archive, path, name);
    if let Err(error) = &outcome {
        assert!(!error.line().contains('\n'), "one line for the client");
    }
    let has_links = archive.chunks(BLOCK).any(|block| block.get(TYPE) == Some(&b'2'));
    let there: Vec<_> =
        fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(has_links || there == ["into"], "{there:?}");
}

/// Makes a file system without devices the root of this thread alone.
fn enter(place: &Path) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace; run it as root");
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).unwrap();
    let options = Some("size=8m,nr_inodes=2k,mode=755");
    mount(Some("fuzz"), place, Some("tmpfs"), MsFlags::MS_NODEV, options).unwrap();
    std::os::unix::fs::chroot(place).unwrap();
    std::env::set_current_dir("/").unwrap();
}
