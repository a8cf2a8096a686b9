//! The folder of the agent's files for a container.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::Error;

/// May be called twice.
pub fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
