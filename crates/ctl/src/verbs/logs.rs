//! `dispatchctl logs`: what a task's agent printed.

use std::fs::File as LocalFile;
use std::io::{ErrorKind as IoErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dispatch_core::protocol::names::Lane;
use dispatch_node::config::Config;
use dispatch_node::files::FileError;
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_spool::{Area, Dir, ErrorKind, File, LIST_ENTRIES_MAX, PosixShare, Share as _};

use crate::answer::{self, Answering, Printing};
use crate::context::{Context, share};
use crate::named::{Found, find, ledger};

/// How much is read at a time.
const PIECE_BYTES: u64 = 256 * 1024;
/// From one look for more to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Print what a task's agent printed; it is a hint, only the result is verified
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl logs dacaf1ff\n  dispatchctl logs -f dacaf1ff"))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
    /// Go on as more comes, until the task is done
    #[arg(short, long)]
    follow: bool,
    /// Print control characters as they are, where standard output is no terminal
    #[arg(long)]
    raw: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let found = find(&config, &args.id)?;
    let mut log = Log::of(&config, &found)?;
    let mut text = Text { carry: Vec::new(), printing: Printing::of(args.raw.into()) };
    loop {
        // Asked before the last reading, so that nothing is missed of a task that ends meanwhile.
        let done = !args.follow || matches!(answer::look(&config, &found)?, Answering::Verified(_));
        while let Some(piece) = log.next()? {
            text.print(&piece)?;
        }
        if done {
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    text.end()?;
    if log.is_absent() {
        return Err(Report::new(Exit::TryLater, "there is no log yet").about(found.id()));
    }
    Ok(Exit::Done)
}

/// Where the log is read, and how far it was.
struct Log {
    source: Source,
    from: u64,
    seen: bool,
}

enum Source {
    /// In the attempt's directory.
    Local(PathBuf),
    /// The mirror on the share.
    Mirror(PosixShare, File),
}

impl Log {
    /// The newest attempt's own file where this node runs the task, else the mirror in `done/`.
    fn of(config: &Config, found: &Found) -> Result<Log, Report> {
        let mirror = |lane: &Lane| Source::Mirror(share(config), File::log(lane, found.id()));
        let source = match found {
            Found::Sent(sent) => mirror(sent.outgoing.lane()),
            Found::Received(row) => {
                let newest = match ledger(config)? {
                    Some(ledger) => ledger.attempts(&row.key)?.into_iter().next_back(),
                    None => None,
                };
                let local = newest
                    .map(|attempt| config.state.job(&row.key.from, row.key.id, attempt.epoch).join("log"));
                match local.filter(|path| path.exists()) {
                    Some(path) => Source::Local(path),
                    None => mirror(&Lane::new(row.key.from.clone(), config.node.clone())),
                }
            }
        };
        Ok(Log { source, from: 0, seen: false })
    }

    const fn is_absent(&self) -> bool {
        !self.seen
    }

    /// What came after what was read, if anything did.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Report> {
        let piece = match &self.source {
            Source::Local(path) => local_part(path, self.from)?,
            Source::Mirror(share, file) => mirror_part(share, file, self.from)?,
        };
        let Some(bytes) = piece else { return Ok(None) };
        self.seen = true;
        self.from = self.from.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

fn local_part(path: &PathBuf, from: u64) -> Result<Option<Vec<u8>>, FileError> {
    let mut file = match LocalFile::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError { op: "open", path: path.clone(), source }),
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))
        .and_then(|_| file.take(PIECE_BYTES).read_to_end(&mut bytes))
        .map_err(FileError::of("read", path))?;
    Ok(Some(bytes))
}

fn mirror_part(share: &PosixShare, file: &File, from: u64) -> Result<Option<Vec<u8>>, Report> {
    let File::Lane(lane, _) = file else { return Ok(None) };
    // A listing first: a name that was absent once stays absent in the cache of a network mount.
    if from == 0 && !share.list(&Dir::lane(lane, Area::Done), LIST_ENTRIES_MAX)?.holds(file) {
        return Ok(None);
    }
    match share.read_part(file, from, PIECE_BYTES) {
        Ok(part) => Ok(Some(part.bytes)),
        Err(error) if error.kind == ErrorKind::Absent => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Pieces put together so that no character is cut in two.
struct Text {
    carry: Vec<u8>,
    printing: Printing,
}

impl Text {
    fn print(&mut self, piece: &[u8]) -> Result<(), Report> {
        self.carry.extend_from_slice(piece);
        let all = std::mem::take(&mut self.carry);
        let whole = match std::str::from_utf8(&all) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => all.len(),
        };
        let (whole, rest) = all.split_at_checked(whole).unwrap_or((&all, &[]));
        self.carry = rest.to_vec();
        self.say(whole)
    }

    fn end(&mut self) -> Result<(), Report> {
        let rest = std::mem::take(&mut self.carry);
        self.say(&rest)
    }

    fn say(&self, bytes: &[u8]) -> Result<(), Report> {
        match self.printing {
            Printing::AsItIs => dispatch_node::report::say_raw(bytes),
            Printing::Visible => self.printing.print(&String::from_utf8_lossy(bytes)),
        }
    }
}
