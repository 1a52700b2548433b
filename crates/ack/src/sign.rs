//! Signing through `ssh-keygen`, so that keys in an agent, behind a passphrase or on a token work, and none is read here.

use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use dispatch_core::protocol::sshsig::{NAMESPACE, SshSignature};

use crate::error::SignError;

const SSH_KEYGEN: &str = "ssh-keygen";

/// A signature over the message in our namespace.
///
/// # Errors
/// `ssh-keygen` is missing, refuses, or answers something else.
pub(crate) fn sign(key: &Path, message: &[u8]) -> Result<SshSignature, SignError> {
    let mut command = ssh_keygen();
    command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key);
    let answer = answer(command, message, key)?;
    SshSignature::from_armor(&answer).map_err(SignError::Answer)
}

/// The public half of a private key that has none beside it.
///
/// # Errors
/// As [`sign`].
pub(crate) fn public_key(key: &Path) -> Result<String, SignError> {
    let mut command = ssh_keygen();
    command.args(["-y", "-f"]).arg(key);
    answer(command, b"", key)
}

fn ssh_keygen() -> Command {
    let mut command = Command::new(SSH_KEYGEN);
    if std::io::stdin().is_terminal() {
        // Its standard input is ours to write, which it would take for "no terminal" and open a window instead.
        command.env("SSH_ASKPASS_REQUIRE", "never");
    }
    command
}

/// What it prints when it is given this input; passphrases it asks for on the terminal itself.
fn answer(mut command: Command, input: &[u8], key: &Path) -> Result<String, SignError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(SignError::Start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends before it has read all says why by its status.
        drop(stdin.write_all(input));
    }
    let output = child.wait_with_output().map_err(SignError::Start)?;
    if !output.status.success() {
        return Err(SignError::Refused { path: key.to_owned() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
