//! `dispatchctl policy eval`: the rules on JSON lines (policy section 7).

use std::io::{self, BufRead as _};

use clap::Subcommand;
use dispatch_core::policy::eval;
use dispatch_node::report::{Exit, Report, after_help};

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

const EXAMPLES: &str = r#"  echo '{"rule": "routing.vram_fits", "input": {"available": "24", "required": "12"}}' | dispatchctl policy eval"#;

/// Ask the rules about money, safeguards, routing and leases
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answer each JSON line on standard input with one on standard output
    #[command(after_help = after_help(EXAMPLES))]
    Eval,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Report> {
    match args.verb {
        Verb::Eval => eval_lines(),
    }
}

fn eval_lines() -> Result<Exit, Report> {
    let mut input = io::stdin().lock();
    let mut output = io::BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut input, LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|error| Report::new(Exit::LocalIo, "cannot read standard input").because(&error))?;
        if read == 0 {
            break;
        }
        let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        write(&mut output, &eval::answer_bytes(bytes))?;
    }
    Ok(Exit::Done)
}

/// A line at a time: whoever talks with the rules waits for each answer.
fn write(output: &mut impl io::Write, answer: &str) -> Result<(), Report> {
    match writeln!(output, "{answer}").and_then(|()| output.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Report::silent(Exit::LocalIo)),
        Err(error) => Err(Report::new(Exit::LocalIo, "cannot write to standard output").because(&error)),
    }
}
