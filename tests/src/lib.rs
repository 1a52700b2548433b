//! Shims of the shipped commands, so that `CARGO_BIN_EXE_shim-…` names them in the tests (cargo names only the
//! binaries of the package under test). The prefix keeps their files apart from the shipped ones in one build. Beside
//! them, what stands in for the outer world of an agent.
#![forbid(unsafe_code)]

pub mod api_stand_in;
