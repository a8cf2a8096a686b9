//! Names of users and groups, looked up in the container's own passwd(5) and group(5).

use std::cell::OnceCell;

use serde_json::{Value, json};

use crate::container::rootfs::Opened;
use crate::error::Error;

/// The largest id that container engines accept.
const LARGEST_ID: u32 = i32::MAX as u32;

/// Resolves an OCI process's `user.username` ("name", "uid", "name:group", ...) and
/// `user.groups` (names or numbers of more groups) to uid, gid and additional groups, and sets
/// HOME when it is missing.
///
/// A number is always an id, even if a user has it as a name. The first line of passwd(5) with this
/// id provides the user's other values.
pub fn complete(process: &mut Value, root: &Opened) -> Result<(), Error> {
    let Some(named) = process["user"]["username"].as_str().map(str::to_owned) else {
        return Ok(());
    };
    let passwd = root.read("etc/passwd")?;
    let groups = Groups { root, text: OnceCell::new() };
    let (user, wanted_group) =
        named.split_once(':').map_or((named.as_str(), None), |(user, group)| (user, Some(group)));
    let number = id(if user.is_empty() { "0" } else { user })?;
    let mut users = lines(&passwd).filter_map(|fields| User::read(&fields));
    let found = match number {
        Some(uid) => users.find(|one| one.uid == uid),
        None => Some(
            users
                .find(|one| one.name == user)
                .ok_or_else(|| Error::Failed(format!("the container has no user {user:?}")))?,
        ),
    };
    let uid = number.or(found.as_ref().map(|one| one.uid)).unwrap_or_default();
    let own_group = found.as_ref().map_or(0, |one| one.gid);
    let gid = wanted_group
        .filter(|name| !name.is_empty())
        .map_or(Ok(own_group), |name| groups.id(name))?;
    let mut also: Vec<u32> = match (wanted_group, &found) {
        (None, Some(one)) => {
            memberships(groups.text()?, one.name).filter(|other| *other != gid).collect()
        }
        _ => Vec::new(),
    };
    for more in process["user"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str)
    {
        also.push(groups.id(more)?);
    }
    let umask = process["user"]["umask"].take();
    process["user"] = json!({ "uid": uid, "gid": gid, "additionalGids": also });
    if !umask.is_null() {
        process["user"]["umask"] = umask;
    }
    let home = found.as_ref().map_or("/", |one| one.home);
    if let Some(env) = process["env"].as_array_mut()
        && !env.iter().any(|word| word.as_str().is_some_and(|word| word.starts_with("HOME=")))
    {
        env.push(json!(format!("HOME={home}")));
    }
    Ok(())
}

/// Returns the id for a number; None for a name.
fn id(text: &str) -> Result<Option<u32>, Error> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= LARGEST_ID);
    number.map(Some).ok_or_else(|| {
        Error::Failed(format!(
            "{text} is no id of a user or group: they are from 0 to {LARGEST_ID}"
        ))
    })
}

/// A line of passwd(5).
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    /// Returns None for an invalid line.
    fn read(fields: &[&'a str]) -> Option<Self> {
        let home = fields.get(5).copied().filter(|home| !home.is_empty()).unwrap_or("/");
        let number = |place: usize| id(fields.get(place)?).ok().flatten();
        Some(Self { name: fields.first().copied()?, uid: number(2)?, gid: number(3)?, home })
    }
}

/// group(5), read only when a name requires it: reading a file of a share is slow.
struct Groups<'a> {
    root: &'a Opened,
    text: OnceCell<String>,
}

impl Groups<'_> {
    fn text(&self) -> Result<&str, Error> {
        if self.text.get().is_none() {
            drop(self.text.set(self.root.read("etc/group")?));
        }
        Ok(self.text.get().map_or("", String::as_str))
    }

    fn id(&self, name: &str) -> Result<u32, Error> {
        if let Some(number) = id(name)? {
            return Ok(number);
        }
        let mut named = lines(self.text()?).filter(|fields| fields[0] == name);
        let number = named.find_map(|fields| id(fields.get(2)?).ok().flatten());
        number.ok_or_else(|| Error::Failed(format!("the container has no group {name:?}")))
    }
}

fn memberships<'a>(groups: &'a str, name: &'a str) -> impl Iterator<Item = u32> + 'a {
    lines(groups)
        .filter(move |fields| {
            fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name))
        })
        .filter_map(|fields| id(fields.get(2)?).ok().flatten())
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/false\n\
        1000:x:7:8::/odd:\nnohome:x:5:5::\nbroken:x:no:5::/x:\nlarge:x:4294967295:1::/x:\n\
        \n:::\nweb:x:1:1::/second:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:40:web,root\nbad:x:no:web\nshort\n\
        all:x:41:web\n";

    fn completed(user: &Value) -> Result<Value, Error> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join("etc/passwd"), PASSWD).unwrap();
        fs::write(folder.path().join("etc/group"), GROUP).unwrap();
        let mut process = json!({ "user": user, "env": ["A=b"] });
        complete(&mut process, &Opened::folder(folder.path()).unwrap())?;
        Ok(process)
    }

    fn ids(username: &str) -> (u64, u64, Value) {
        let process = completed(&json!({ "username": username })).unwrap();
        let user = &process["user"];
        (
            user["uid"].as_u64().unwrap(),
            user["gid"].as_u64().unwrap(),
            user["additionalGids"].clone(),
        )
    }

    #[test]
    fn names_and_numbers_become_ids() {
        assert_eq!(ids(""), (0, 0, json!([40])));
        assert_eq!(ids("web"), (33, 34, json!([40, 41])));
        assert_eq!(ids("33"), (33, 34, json!([40, 41])));
        assert_eq!(ids("web:log"), (33, 40, json!([])));
        assert_eq!(ids("web:"), (33, 34, json!([])));
        assert_eq!(ids(":log"), (0, 40, json!([])));
        assert_eq!(ids("1000"), (1000, 0, json!([])), "a number is no name");
        assert_eq!(ids("12:13"), (12, 13, json!([])));
    }

    #[test]
    fn what_is_unknown_or_no_id_is_an_error() {
        for username in ["nobody", "broken", "large", "web:nogroup", "web:bad", "web:short"] {
            assert!(completed(&json!({ "username": username })).is_err(), "{username}");
        }
        for username in ["2147483648", "99999999999999999999", "0:2147483648", "-1", "+1", " 1"] {
            assert!(completed(&json!({ "username": username })).is_err(), "{username}");
        }
    }

    #[test]
    fn more_groups_are_added_by_name_and_number() {
        let process = completed(&json!({ "username": "nohome", "groups": ["log", "77"] })).unwrap();
        assert_eq!(process["user"]["additionalGids"], json!([40, 77]));
        assert_eq!(process["env"], json!(["A=b", "HOME=/"]));
        assert!(completed(&json!({ "username": "0", "groups": ["nogroup"] })).is_err());
    }

    #[test]
    fn a_umask_stays_and_a_user_who_is_not_named_is_left_alone() {
        let process = completed(&json!({ "username": "web", "umask": 18 })).unwrap();
        assert_eq!(process["user"]["umask"], json!(18));
        let process = completed(&json!({ "uid": 5 })).unwrap();
        assert_eq!(process, json!({ "user": { "uid": 5 }, "env": ["A=b"] }));
    }
}
