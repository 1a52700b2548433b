//! Placeholder prologue.
#![forbid(unsafe_code)]
