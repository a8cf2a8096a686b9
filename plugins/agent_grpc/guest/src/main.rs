//! vc-agent: the only program of a virtcontainers guest that is always there.
//!
//! As PID 1 it readies the machine, serves gRPC on every channel that appears, and runs containers
//! through crun. With `--sandbox` it does the same in namespaces of the host's kernel, with
//! `--socket PATH` as an ordinary process.

use std::os::unix::net::UnixListener;

use vc_agent::Failure;
use vc_agent::container::{files, pod, volumes};
use vc_agent::machine::{boot, online, sandbox};
use vc_agent::server::run;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] => {
            println!("vc-agent {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        // userspace was reached: that is all
        ["--prove"] if std::process::id() == 1 => match online::power_off()? {},
        [files::WORD, verb, root, path, name] => return files::serve(verb, root, path, name),
        [volumes::WORD, rootfs, path, volume] => return volumes::serve(rootfs, path, volume),
        [pod::PAUSE] => return pod::hold_namespace(),
        ["--socket", path] => return run(Some(UnixListener::bind(path)?)),
        ["--sandbox", socket, folder, shares @ ..] => {
            return run(Some(sandbox::enter(socket, folder, shares)?));
        }
        _ if std::process::id() != 1 => {
            return Err("vc-agent is PID 1 of a guest; elsewhere say --socket PATH".into());
        }
        [boot::SECOND_STAGE] => boot::ready_machine()?,
        _ => match boot::move_root()? {}, // runs this program again, in the new root
    }
    run(None)
}
