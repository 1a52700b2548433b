//! See the library of the same name.
fn main() -> std::process::ExitCode {
    dispatch_ctl::main()
}
