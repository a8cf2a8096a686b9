//! Every input that is kept: what the fuzzers of ../fuzz began with and what they found.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[path = "../../fuzz/src/archives.rs"]
mod archives;
#[path = "../../fuzz/src/crun.rs"]
mod crun;
#[path = "../../fuzz/src/nodes.rs"]
mod nodes;
#[path = "../../fuzz/src/requests.rs"]
mod requests;
#[path = "../../fuzz/src/stats.rs"]
mod stats;
#[path = "../../fuzz/src/users.rs"]
mod users;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        println!("{}", file.display());
        check(&fs::read(file).unwrap());
    }
}

mod kept {
    use super::*;

    #[test]
    fn archives() {
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            run("archives", super::archives::check);
        } else {
            println!("not run: mounting and chroot need the rights of root");
        }
    }

    #[test]
    fn crun() {
        run("crun", super::crun::check);
    }

    #[test]
    fn nodes() {
        run("nodes", super::nodes::check);
    }

    #[test]
    fn requests() {
        run("requests", super::requests::check);
    }

    #[test]
    fn stats() {
        run("stats", super::stats::check);
    }

    #[test]
    fn users() {
        run("users", super::users::check);
    }
}
