//! Modules of the guest's kernel. For each purpose, the image lists the modules in load order.

use std::collections::HashSet;
use std::fs::{self, File};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use parking_lot::Mutex;

use crate::error::Error;

const FOLDER: &str = "/lib/modules";

/// The purposes whose modules were loaded.
#[derive(Default)]
pub struct Modules(Mutex<HashSet<String>>);

impl Modules {
    /// Loads the modules that the image lists under `purpose`, once. Without a list (not PID 1) the
    /// host has loaded its own.
    pub fn load(&self, purpose: &str) -> Result<(), Error> {
        let mut loaded = self.0.lock();
        if loaded.contains(purpose) {
            return Ok(());
        }
        let list = fs::read_to_string(format!("{FOLDER}/{purpose}.list")).unwrap_or_default();
        for name in list.lines() {
            let file = File::open(format!("{FOLDER}/{name}"))?;
            match finit_module(&file, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => {
                    return Err(Error::context(format!("the module {name} cannot be loaded"))(
                        error,
                    ));
                }
            }
        }
        loaded.insert(purpose.to_owned());
        Ok(())
    }
}
