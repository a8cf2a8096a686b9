//! The log of crun, which repeats what a container has in its files.

use vc_agent::container::crun_error::{error_of, last_message};
use vc_agent::error::Error;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let message = last_message(&text).unwrap_or_else(|| text.into_owned());
    match error_of(message.clone()) {
        Error::Program { message: kept, .. } | Error::Crun(kept) => assert_eq!(kept, message),
        other => panic!("{other:?}"),
    }
}
