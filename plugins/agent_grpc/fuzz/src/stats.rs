//! proc(5) of a process that chooses its own name.

use vc_agent::process::procfs::Stat;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(found) = Stat::parse(&text) {
        // What precedes the last parenthesis is the process's own, and changes nothing.
        let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
        assert_eq!(Stat::parse(&format!("1 (other){behind}")).unwrap(), found);
    }
}
