//! Names of users and groups, looked up in the container's own passwd(5) and group(5).

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::Failure;

/// Turns an OCI process's `user.username` ("name", "uid", "name:group", ...) and `user.groups` (names or numbers of
/// more groups) into uid, gid and additional groups, and gives the process a HOME when it has none.
pub fn complete(process: &mut Value, rootfs: &Path) -> Result<(), Failure> {
    let Some(named) = process["user"]["username"].as_str().map(str::to_owned) else { return Ok(()) };
    let passwd = read_inside(rootfs, "etc/passwd")?;
    let groups = Groups { rootfs, text: OnceCell::new() };
    let (user, wanted_group) = named.split_once(':').map_or((named.as_str(), None), |(user, group)| (user, Some(group)));
    let entry = lines(&passwd).find(|fields| fields[0] == user || (fields.len() > 2 && fields[2] == user));
    let uid = match (user.parse::<u32>(), &entry) {
        (_, Some(fields)) if fields.len() > 3 => fields[2].parse()?,
        (Ok(number), _) => number,
        _ => return Err(format!("the container has no user {user:?}").into()),
    };
    let own_group = entry.as_ref().and_then(|fields| fields.get(3)?.parse::<u32>().ok()).unwrap_or(0);
    let gid = wanted_group.map_or(Ok(own_group), |name| groups.id(name))?;
    let name = entry.as_ref().map_or(user, |fields| fields[0]);
    let mut also: Vec<u32> = match wanted_group {
        Some(_) => Vec::new(),
        None => memberships(groups.text()?, name).filter(|other| *other != gid).collect(),
    };
    for more in process["user"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        also.push(groups.id(more)?);
    }
    let umask = process["user"]["umask"].take();
    process["user"] = json!({ "uid": uid, "gid": gid, "additionalGids": also });
    if !umask.is_null() {
        process["user"]["umask"] = umask;
    }
    let home = entry.as_ref().and_then(|fields| fields.get(5).copied()).unwrap_or("/");
    if let Some(env) = process["env"].as_array_mut()
        && !env.iter().any(|word| word.as_str().is_some_and(|word| word.starts_with("HOME=")))
    {
        env.push(json!(format!("HOME={home}")));
    }
    Ok(())
}

/// group(5), read only when a name asks for it: over a share, each file takes its time.
struct Groups<'a> {
    rootfs: &'a Path,
    text: OnceCell<String>,
}

impl Groups<'_> {
    fn text(&self) -> Result<&str, Failure> {
        if self.text.get().is_none() {
            drop(self.text.set(read_inside(self.rootfs, "etc/group")?));
        }
        Ok(self.text.get().map_or("", String::as_str))
    }

    fn id(&self, name: &str) -> Result<u32, Failure> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let named = lines(self.text()?).find(|fields| fields[0] == name);
        let number = named.and_then(|fields| fields.get(2)?.parse().ok());
        number.ok_or_else(|| format!("the container has no group {name:?}").into())
    }
}

fn memberships<'a>(groups: &'a str, name: &'a str) -> impl Iterator<Item = u32> + 'a {
    lines(groups)
        .filter(move |fields| fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name)))
        .filter_map(|fields| fields.get(2)?.parse().ok())
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// A file of the container, links followed as the container would: never out of its root. Absent reads as empty.
fn read_inside(rootfs: &Path, path: &str) -> Result<String, Failure> {
    let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let Ok(fd) = openat2(&root, path, how) else { return Ok(String::new()) };
    let mut text = String::new();
    File::from(fd).take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}
