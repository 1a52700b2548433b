//! One file per verb.

pub(crate) mod config;
pub(crate) mod door;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod pages;
pub(crate) mod policy;
pub(crate) mod recover;
