//! Drawing ids and secrets from the kernel's randomness.

use std::io;

use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::time::Timestamp;
use uuid::{Builder, Uuid};

/// "Input/output error", for a failure that has no number.
const EIO: i32 = 5;

/// The kernel gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw random bytes from the kernel")]
pub struct NoRandomness {
    source: io::Error,
}

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let number = error.raw_os_error().unwrap_or(EIO);
        NoRandomness { source: io::Error::from_raw_os_error(number) }
    })?;
    Ok(bytes)
}

/// A random uuid (version 4): instances, streams, clusters, requests.
///
/// # Errors
/// The kernel gives no randomness.
pub fn uuid_v4() -> Result<Uuid, NoRandomness> {
    Ok(Builder::from_random_bytes(random()?).into_uuid())
}

/// A uuid of version 7 for this instant.
///
/// # Errors
/// The kernel gives no randomness.
pub fn uuid_v7(now: Timestamp) -> Result<Uuid, NoRandomness> {
    let ms = u64::try_from(now.unix_ms()).unwrap_or(0);
    Ok(Builder::from_unix_timestamp_millis(ms, &random()?).into_uuid())
}

/// The id of a new task.
///
/// # Errors
/// The kernel gives no randomness.
pub fn task_id(now: Timestamp) -> Result<TaskId, NoRandomness> {
    uuid_v7(now).map(TaskId::from_uuid)
}

/// 256 random bits as 64 lower-case hexadecimal digits: pair keys and marks of attempts.
///
/// # Errors
/// The kernel gives no randomness.
pub fn hex_256() -> Result<String, NoRandomness> {
    use std::fmt::Write as _;
    let bytes: [u8; 32] = random()?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            text.clear();
        }
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_task_id_is_one_the_protocol_takes() {
        let now = Timestamp::parse("2026-11-20T12:00:00.123Z").unwrap();
        let id = task_id(now).unwrap();
        assert_eq!(TaskId::parse(&id.to_string()), Ok(id));
        assert!(id.to_string().starts_with(&format!("{:012x}", now.unix_ms())[..8]));
        assert_ne!(id, task_id(now).unwrap());
    }

    #[test]
    fn a_new_secret_is_64_hexadecimal_digits() {
        let secret = hex_256().unwrap();
        assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(secret, hex_256().unwrap());
    }
}
