//! The shipped command, built here so that the tests can name it.
fn main() -> std::process::ExitCode {
    dispatch_send::main()
}
