//! One file per verb.

pub(crate) mod approvers;
pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod cancel;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod door;
pub(crate) mod explain;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod pages;
pub(crate) mod policy;
pub(crate) mod recover;
pub(crate) mod resend;
pub(crate) mod result;
pub(crate) mod retry;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod verify;
pub(crate) mod wait;
