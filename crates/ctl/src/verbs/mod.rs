//! One file per verb.

pub(crate) mod init;
pub(crate) mod recover;
