//! What is mounted before a container is made, and unmounted in reverse when it is gone.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::Failure;
use crate::machine::boot;
use crate::machine::sandbox;
use crate::machine::uevents::{Uevents, until};
use crate::proto::Storage;
use crate::share_fs::shares;
use crate::storage::devices;

/// Those of disks, each with its list of modules in the image.
const FILE_SYSTEMS: [&str; 2] = ["ext4", "erofs"];

/// How many containers use a mount point.
static USERS: LazyLock<Mutex<HashMap<PathBuf, usize>>> = LazyLock::new(Mutex::default);

/// Mount points of one container, in the order in which they were mounted, and the disks that it
/// uses.
#[derive(Default)]
pub struct Mounted {
    points: Vec<PathBuf>,
    disks: Vec<String>,
}

impl Mounted {
    pub async fn add(&mut self, storage: &Storage, events: &Uevents) -> Result<(), Failure> {
        self.hold(&storage.driver, &storage.source);
        let point = PathBuf::from(&storage.mount_point);
        let is_first = {
            let mut users = USERS.lock().map_err(|_| "mount table poisoned")?;
            let count = users.entry(point.clone()).or_default();
            *count += 1;
            *count == 1
        };
        if is_first && let Err(error) = mount_one(storage, events).await {
            leave(&point);
            return Err(error);
        }
        self.points.push(point);
        Ok(())
    }

    /// Notes a disk, whether it is mounted or a node in the container.
    pub fn hold(&mut self, driver: &str, address: &str) {
        if driver == "scsi" {
            devices::hold(address);
            self.disks.push(address.to_owned());
        }
    }

    /// Unmounts in reverse what nobody else uses, and lets disks go. Every one is tried; the first
    /// failure is told.
    pub fn remove(&mut self) -> Result<(), Failure> {
        let mut first = Ok(());
        while let Some(point) = self.points.pop() {
            if leave(&point)
                && let Err(error) = shares::hide(&point)
            {
                first = first
                    .and(Err(format!("{} cannot be unmounted: {error}", point.display()).into()));
            }
        }
        for address in self.disks.drain(..) {
            first = first.and(devices::let_go(&address));
        }
        first
    }
}

/// Whether that was the last user.
fn leave(point: &Path) -> bool {
    let mut users = USERS.lock().expect("no holder of this lock panics");
    let Some(count) = users.get_mut(point) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        users.remove(point);
    }
    is_last
}

async fn mount_one(storage: &Storage, events: &Uevents) -> Result<(), Failure> {
    let source = match storage.driver.as_str() {
        "9p" => storage.source.clone(),
        "scsi" => devices::scsi_disk(&storage.source, events).await?,
        "blk" => devices::virtio_disk(&storage.source, events).await?,
        "bind" | "tmpfs" | "overlay" => storage.driver.clone(),
        other => return Err(format!("this agent knows no storage driver {other:?}").into()),
    };
    if storage.driver == "overlay" {
        boot::load_modules("overlay")?;
        make_overlay_folders(&storage.options)?;
    }
    if FILE_SYSTEMS.contains(&storage.fstype.as_str()) {
        boot::load_modules(&storage.fstype)?;
    }
    if storage.driver == "9p" {
        boot::load_modules("9p")?;
    }
    if storage.fstype == shares::KIND {
        boot::load_modules("fuse")?;
    }
    fs::create_dir_all(&storage.mount_point)?;
    if storage.driver == "bind" {
        return sandbox::bind(
            &storage.source,
            &storage.mount_point,
            storage.options.iter().any(|option| option == "ro"),
        );
    }
    let (flags, data) = split(&storage.options);
    let (point, kind) = (storage.mount_point.as_str(), storage.fstype.as_str());
    // Whether a share is there, only the mount tells: its tag is in /sys a moment before. An event
    // follows.
    let can_come = storage.driver == "9p";
    let call = || match kind {
        shares::KIND => shares::show(&source, Path::new(point), flags, &data),
        _ => mount(Some(source.as_str()), point, Some(kind), flags, Some(data.as_str())),
    };
    let look = || match call() {
        Err(Errno::ENOENT) if can_come => None,
        outcome => Some(outcome),
    };
    let outcome =
        until(events, devices::LIMIT, &format!("the share {}", storage.source), look).await?;
    outcome.map_err(|error| {
        format!("{} cannot be mounted on {}: {error}", storage.source, storage.mount_point).into()
    })
}

fn make_overlay_folders(options: &[String]) -> Result<(), Failure> {
    for option in options {
        if let Some(("upperdir" | "workdir", path)) = option.split_once('=') {
            fs::create_dir_all(path)?;
        }
    }
    Ok(())
}

/// mount(8)'s words that are flags, and the rest, which the file system reads.
fn split(options: &[String]) -> (MsFlags, String) {
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
