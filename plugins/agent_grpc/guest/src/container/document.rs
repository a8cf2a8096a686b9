//! The runtime-spec documents of requests.
//!
//! The agent writes into members of them, and serde_json ends the program where such a member
//! belongs to something that is no object: the agent is the first process of its machine.

use serde_json::Value;

use crate::error::Error;

/// The members of a config.json that the agent writes into, each after the one that has it.
const OF_SPEC: [&str; 4] = ["/root", "/process", "/linux", "/linux/resources"];

/// Returns a config.json.
pub fn spec(bytes: &[u8]) -> Result<Value, Error> {
    checked(bytes, "config.json", &OF_SPEC)
}

/// Returns the `process` object of a config.json.
pub fn process(bytes: &[u8]) -> Result<Value, Error> {
    checked(bytes, "the process", &[])
}

fn checked(bytes: &[u8], what: &str, members: &[&str]) -> Result<Value, Error> {
    let found: Value = serde_json::from_slice(bytes)?;
    if !found.is_object() {
        return Err(Error::InvalidRequest(format!("{what} is no object")));
    }
    for pointer in members {
        if found.pointer(pointer).is_some_and(|member| !member.is_object() && !member.is_null()) {
            let name = pointer.trim_start_matches('/').replace('/', ".");
            return Err(Error::InvalidRequest(format!("{name} of {what} is no object")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_writes_into_is_an_object_or_absent() {
        for good in [r#"{}"#, r#"{"root": {}, "process": null, "linux": {"resources": {}}}"#] {
            spec(good.as_bytes()).unwrap();
        }
        for bad in [
            "1",
            "[]",
            "null",
            "x",
            r#"{"root": 1}"#,
            r#"{"process": []}"#,
            r#"{"linux": "x"}"#,
            r#"{"linux": {"resources": [1]}}"#,
        ] {
            assert!(spec(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(process(b"[]").is_err());
    }
}
