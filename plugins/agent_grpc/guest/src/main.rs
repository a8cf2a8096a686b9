//! vc-agent: the only program of a virtcontainers guest that always runs.
//!
//! As PID 1 it prepares the machine, serves gRPC on every channel that appears, and runs containers
//! with crun. With `--sandbox` it does the same in namespaces of the host's kernel, with `--socket
//! PATH` as an ordinary process.

use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use vc_agent::container::{files, pod, volumes};
use vc_agent::error::Error;
use vc_agent::machine::kind::Kind;
use vc_agent::machine::modules::Modules;
use vc_agent::machine::{boot, power, sandbox};
use vc_agent::server;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vc-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Error> {
    let is_first = std::process::id() == 1;
    match words {
        ["--version"] => {
            println!("vc-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        // Reaching userspace is the whole proof.
        ["--prove"] if is_first => match power::power_off()? {},
        [files::WORD, verb, root, path, name] => files::serve(verb, root, path, name),
        [volumes::WORD, rootfs, path, volume] => volumes::serve(rootfs, path, volume),
        [pod::PAUSE] => pod::hold_namespace(),
        ["--socket", path] => {
            let listener = UnixListener::bind(path)?;
            server::run(Kind::Process, Modules::default(), Some(listener))
        }
        ["--sandbox", socket, folder, shares @ ..] => {
            let listener = sandbox::enter(socket, folder, shares)?;
            server::run(Kind::Sandbox, Modules::default(), Some(listener))
        }
        _ if !is_first => Err(Error::failed("it is PID 1 of a guest; elsewhere say --socket PATH")),
        [boot::SECOND_STAGE] => server::run(Kind::Vm, boot::ready_machine()?, None),
        // It executes this program again, in the new root.
        _ => match boot::move_root()? {},
    }
}
