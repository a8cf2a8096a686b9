//! The numbers that the FUSE file system gives to the files of a share, whose host may answer with
//! any: each three bytes are an operation, a folder and name, and a file.

use std::ffi::OsString;

use vc_agent::share_fs::nodes::{Nodes, ROOT};

const STEP: usize = 3;
const MOST_STEPS: usize = 200;

pub fn check(data: &[u8]) {
    let mut nodes = Nodes::default();
    let mut known = vec![ROOT];
    for step in data.chunks_exact(STEP).take(MOST_STEPS) {
        let parent = known[usize::from(step[1] >> 4) % known.len()];
        let (name, other) = (name(step[1]), name(step[2]));
        match step[0] % 6 {
            0 | 1 => {
                let ino = inode(step[2]);
                let number = nodes.seen(ino, parent, &name, step[0] % 6 == 1 && step[0] > 127);
                assert_eq!(nodes.ino(number), ino);
                assert_ne!(number, ROOT);
                assert_eq!(nodes.at(parent, &name), Some(number));
                known.push(number);
            }
            2 => {
                let number = known[usize::from(step[2]) % known.len()];
                if nodes.forget(number, u64::from(step[1])) {
                    assert!(nodes.places(number).is_empty());
                }
            }
            3 => {
                nodes.gone(parent, &name);
                assert_eq!(nodes.at(parent, &name), None);
            }
            4 => {
                let target = known[usize::from(step[2] >> 4) % known.len()];
                let moved = nodes.at(parent, &name);
                nodes.moved((parent, &name), (target, &other), step[0] > 127);
                assert_eq!(nodes.at(target, &other), moved);
            }
            _ => drop(nodes.elsewhere(inode(step[2]), parent, &name)),
        }
        for number in &known {
            for (folder, name) in nodes.places(*number) {
                assert_eq!(nodes.at(folder, &name), Some(*number));
            }
        }
    }
}

fn name(byte: u8) -> OsString {
    format!("n{}", byte & 7).into()
}

/// Few small numbers, and those at which arithmetic ends.
fn inode(byte: u8) -> u64 {
    match byte & 15 {
        15 => u64::MAX,
        14 => 1 << 48,
        13 => (1 << 48) + 1,
        small => u64::from(small),
    }
}
