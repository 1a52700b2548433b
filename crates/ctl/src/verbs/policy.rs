//! `dispatchctl policy eval`: the rules on JSON lines (policy section 7).

use std::io::{self, BufRead as _, Read, Write};

use clap::Subcommand;
use dispatch_core::policy::eval;
use dispatch_node::report::{Exit, Report, after_help};

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What is read, and written, in one piece.
const PIECE_BYTES: usize = 64 * 1024;

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
        Verb::Eval => eval_lines(io::stdin().lock(), io::stdout().lock()),
    }
}

fn eval_lines(input: impl Read, output: impl Write) -> Result<Exit, Report> {
    let mut input = io::BufReader::with_capacity(PIECE_BYTES, input);
    let mut output = io::BufWriter::with_capacity(PIECE_BYTES, output);
    let mut line = Vec::new();
    loop {
        // Whoever talks with the rules waits for each answer; lines that came in one piece are answered in one.
        if !input.buffer().contains(&b'\n') {
            written(output.flush())?;
        }
        line.clear();
        let read = Read::take(&mut input, LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(|error| Report::new(Exit::LocalIo, "cannot read standard input").because(&error))?;
        if read == 0 {
            break;
        }
        let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let mut answer = eval::answer_bytes(bytes);
        answer.push('\n');
        written(output.write_all(answer.as_bytes()))?;
    }
    written(output.flush())?;
    Ok(Exit::Done)
}

fn written(done: io::Result<()>) -> Result<(), Report> {
    match done {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Report::silent(Exit::LocalIo)),
        Err(error) => Err(Report::new(Exit::LocalIo, "cannot write to standard output").because(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    const LINE: &str = r#"{"rule": "lease.is_stale", "input": {"leased_at": 0, "now": 1, "ttl": 1}}"#;
    const ANSWER: &str = "{\"ok\":{\"stale\":true}}\n";

    /// Writes into a place that others see.
    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Shared {
        fn answers(&self) -> usize {
            self.0.borrow().iter().filter(|byte| **byte == b'\n').count()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Says the next piece when everything before it is answered.
    struct Talker {
        pieces: Vec<String>,
        said: usize,
        answers: Shared,
    }

    impl Read for Talker {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(self.answers.answers() >= self.said, "every line that was said is answered");
            let piece = self.pieces.pop().unwrap_or_default();
            self.said += piece.matches('\n').count();
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    #[test]
    fn every_line_is_answered_before_the_next_is_waited_for() {
        let (first, second) = LINE.split_at(20);
        let answers = Shared::default();
        let pieces = vec![
            LINE.to_owned(),
            format!("{second}\n"),
            format!("{LINE}\n{first}"),
            format!("{LINE}\n{LINE}\n"),
            format!("{LINE}\n"),
        ];
        let talker = Talker { pieces, said: 0, answers: answers.clone() };
        assert_eq!(eval_lines(talker, answers.clone()).unwrap(), Exit::Done);
        // The last one has no line end of its own, and an answer all the same.
        assert_eq!(String::from_utf8(answers.0.take()).unwrap(), ANSWER.repeat(6));
    }
}
