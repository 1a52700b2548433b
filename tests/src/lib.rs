//! Shims of the shipped commands, so that `CARGO_BIN_EXE_shim-…` names them in the tests (cargo names only the
//! binaries of the package under test). The prefix keeps their files apart from the shipped ones in one build.
#![forbid(unsafe_code)]
