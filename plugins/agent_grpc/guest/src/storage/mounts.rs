//! Mounts made before a container is created, and removed in reverse order after it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use parking_lot::Mutex;

use crate::error::Error;
use crate::machine::sandbox;
use crate::machine::state::Machine;
use crate::machine::uevents::until;
use crate::proto::Storage;
use crate::share_fs::shares::{KIND, Shares};
use crate::storage::devices::block::LIMIT;
use crate::storage::devices::scsi::{self, DiskUsers};
use crate::storage::devices::virtio_blk;

/// File systems of disks, each with its list of modules in the image.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "erofs"];

/// The mounts for containers, and their users.
#[derive(Default)]
pub struct Mounts {
    /// The number of containers that use a mount point.
    users: Mutex<HashMap<PathBuf, usize>>,
    disks: DiskUsers,
    pub shares: Shares,
}

impl Mounts {
    /// Adds a user; returns whether it is the first.
    fn join(&self, point: &Path) -> bool {
        let mut users = self.users.lock();
        let count = users.entry(point.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Removes a user; returns whether it was the last.
    fn leave(&self, point: &Path) -> bool {
        let mut users = self.users.lock();
        let Some(count) = users.get_mut(point) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            users.remove(point);
        }
        is_last
    }
}

/// Mount points of one container, in the order in which they were mounted, and the disks that it
/// uses.
#[derive(Default)]
pub struct ContainerMounts {
    points: Vec<PathBuf>,
    disks: Vec<String>,
}

impl ContainerMounts {
    pub async fn add(
        &mut self,
        mounts: &Mounts,
        storage: &Storage,
        machine: &Machine,
    ) -> Result<(), Error> {
        self.hold(mounts, &storage.driver, &storage.source);
        let point = PathBuf::from(&storage.mount_point);
        if mounts.join(&point)
            && let Err(error) = mount_one(storage, machine, &mounts.shares).await
        {
            mounts.leave(&point);
            return Err(error);
        }
        self.points.push(point);
        Ok(())
    }

    /// Keeps a namespace of a process as a file.
    pub fn bind_namespace(
        &mut self,
        mounts: &Mounts,
        namespace: &str,
        point: &Path,
    ) -> Result<(), Error> {
        fs::write(point, "")?;
        mount(Some(namespace), point, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        mounts.join(point);
        self.points.push(point.to_owned());
        Ok(())
    }

    /// Records a disk, whether it is mounted or a node in the container.
    pub fn hold(&mut self, mounts: &Mounts, driver: &str, address: &str) {
        if driver == "scsi" {
            mounts.disks.hold(address);
            self.disks.push(address.to_owned());
        }
    }

    /// Unmounts in reverse order what has no other user, and releases disks. Every step is tried;
    /// the first error is returned.
    pub fn remove(&mut self, mounts: &Mounts) -> Result<(), Error> {
        let mut first = Ok(());
        while let Some(point) = self.points.pop() {
            if mounts.leave(&point) {
                let what = format!("{} cannot be unmounted", point.display());
                first = first.and(mounts.shares.hide(&point).map_err(Error::context(what)));
            }
        }
        for address in self.disks.drain(..) {
            first = first.and(mounts.disks.let_go(&address));
        }
        first
    }
}

async fn mount_one(storage: &Storage, machine: &Machine, shares: &Shares) -> Result<(), Error> {
    let source = match storage.driver.as_str() {
        "9p" => storage.source.clone(),
        "scsi" => scsi::disk(&storage.source, machine).await?,
        "blk" => virtio_blk::disk(&storage.source, machine).await?,
        "bind" | "tmpfs" | "overlay" => storage.driver.clone(),
        other => {
            return Err(Error::Failed(format!("this agent knows no storage driver {other:?}")));
        }
    };
    if storage.driver == "overlay" {
        machine.modules.load("overlay")?;
        make_overlay_folders(&storage.options)?;
    }
    if FILE_SYSTEMS.contains(&storage.fstype.as_str()) {
        machine.modules.load(&storage.fstype)?;
    }
    if storage.driver == "9p" {
        machine.modules.load("9p")?;
    }
    if storage.fstype == KIND {
        machine.modules.load("fuse")?;
    }
    fs::create_dir_all(&storage.mount_point)?;
    if storage.driver == "bind" {
        return sandbox::bind(
            &storage.source,
            &storage.mount_point,
            storage.options.iter().any(|option| option == "ro"),
        );
    }
    let (flags, data) = flags_and_data(&storage.options);
    let (point, kind) = (storage.mount_point.as_str(), storage.fstype.as_str());
    // Only the mount itself shows whether a share exists: its tag is in /sys shortly before. An
    // event follows.
    let can_come = storage.driver == "9p";
    let call = || match kind {
        KIND => shares.show(&source, Path::new(point), flags, &data),
        _ => mount(Some(source.as_str()), point, Some(kind), flags, Some(data.as_str())),
    };
    let look = || match call() {
        Err(Errno::ENOENT) if can_come => None,
        outcome => Some(outcome),
    };
    let outcome =
        until(&machine.events, LIMIT, &format!("the share {}", storage.source), look).await?;
    let what = format!("{} cannot be mounted on {}", storage.source, storage.mount_point);
    outcome.map_err(Error::context(what))
}

fn make_overlay_folders(options: &[String]) -> Result<(), Error> {
    for option in options {
        if let Some(("upperdir" | "workdir", path)) = option.split_once('=') {
            fs::create_dir_all(path)?;
        }
    }
    Ok(())
}

/// Splits options into the flags of mount(2) and the data for the file system.
fn flags_and_data(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_flags_and_the_rest_is_for_the_file_system() {
        let options = ["ro", "size=64m", "nosuid", "x=a,b", ""].map(str::to_owned);
        let (flags, data) = flags_and_data(&options);
        assert_eq!(flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        assert_eq!(data, "size=64m,x=a,b,");
        assert_eq!(flags_and_data(&[]), (MsFlags::empty(), String::new()));
    }

    #[test]
    fn the_last_user_of_a_mount_point_unmounts_it() {
        let (mounts, point) = (Mounts::default(), Path::new("/run/vc/x"));
        assert!(mounts.join(point));
        assert!(!mounts.join(point));
        assert!(!mounts.leave(point));
        assert!(mounts.leave(point));
        assert!(!mounts.leave(point), "nobody uses it any more");
        assert!(mounts.join(point));
    }
}
