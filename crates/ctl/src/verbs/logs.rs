//! `dispatchctl logs`: what a task's agent printed.

use std::fs::File as LocalFile;
use std::io::{self, ErrorKind as IoErrorKind, IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_ledger::TaskRow;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::files::FileError;
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::waiting::{self, Answered, Bytes, Line, LogText, Printed, Sight};
use dispatch_spool::{Area, Dir, ErrorKind, File, LIST_ENTRIES_MAX, PosixShare, Share as _};

use crate::context::{Context, share};
use crate::named::{Found, SentTask, find, ledger};
use crate::{here, sender};

/// How much is read at a time.
const PIECE_BYTES: u64 = 256 * 1024;

/// Print what a task's agent printed; it is a hint, only the result is verified
///
/// With -f it goes on until the task's result is there, and shows on a terminal where the task is meanwhile.
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
    let bytes = if args.raw && !io::stdout().is_terminal() { Bytes::AsTheyAre } else { Bytes::Visible };
    let mut text = LogText::new(bytes);
    if !args.follow {
        let mut log = Log::of(&config, &found)?;
        log.rest(&mut text)?;
        text.end()?;
        return if log.is_absent() { Err(no_log(found.id())) } else { Ok(Exit::Done) };
    }
    let line = Line::new(context.shown(), "");
    match &found {
        Found::Sent(sent) => follow_sent(&config, sent, line, text),
        Found::Received(row) => follow_here(&config, &found, row, line, text),
    }
}

fn no_log(id: TaskId) -> Report {
    Report::new(Exit::TryLater, "there is no log yet").about(id)
}

/// The mirror on the share, until the result is there.
fn follow_sent(config: &Config, sent: &SentTask, mut line: Line, mut text: LogText) -> Result<Exit, Report> {
    let desk = Arc::new(sender::desk(config, sent.outgoing.lane())?);
    let id = sent.record.id;
    let mut gone = None;
    let end = waiting::wait(&desk, sent.record.clone(), line.interest_beside_log(), |sight| match &sight {
        Sight::Log(piece) => {
            line.clear();
            if let Err(report) = text.show(piece) {
                gone.get_or_insert(report);
            }
        }
        Sight::At(_) | Sight::NoShare(_) | Sight::Disbelief(_) => line.show_beside(&text, &sight),
    });
    line.clear();
    if let Some(report) = gone {
        return Err(report);
    }
    let printed = text.end()?;
    match end.answer(&desk.lane, id) {
        Ok(Answered::Unsigned(_)) => ended(printed, id),
        Ok(Answered::Sealed(answer)) => {
            desk.outgoing.mark_answered(id, answer.payload().status, clock::now())?;
            ended(printed, id)
        }
        Err(without) => Err(without.report(id)),
    }
}

/// The attempts' own files, one after the other, until the task is final.
fn follow_here(
    config: &Config,
    found: &Found,
    row: &TaskRow,
    mut line: Line,
    mut text: LogText,
) -> Result<Exit, Report> {
    let mut log: Option<Log> = None;
    let end = here::wait(config, found, row, |sight| {
        let next = Log::of(config, found)?;
        if log.as_ref().is_none_or(|log| !log.is_same(&next)) {
            log = Some(next);
        }
        if let Some(log) = &mut log {
            log.rest_after(|| line.clear(), &mut text)?;
        }
        if let Some(sight) = sight {
            line.show_beside(&text, sight);
        }
        Ok(())
    });
    line.clear();
    let printed = text.end()?;
    match end? {
        here::End::Answer(_) => ended(printed, row.key.id),
        here::End::Without(without) => Err(without.report(row.key.id)),
    }
}

fn ended(printed: Printed, id: TaskId) -> Result<Exit, Report> {
    match printed {
        Printed::Something => Ok(Exit::Done),
        Printed::Nothing => Err(Report::new(Exit::TryLater, "the task printed nothing").about(id)),
    }
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

    /// True when both are read from the same place.
    fn is_same(&self, other: &Log) -> bool {
        match (&self.source, &other.source) {
            (Source::Local(mine), Source::Local(other)) => mine == other,
            (Source::Mirror(_, mine), Source::Mirror(_, other)) => mine == other,
            (Source::Local(_), Source::Mirror(..)) | (Source::Mirror(..), Source::Local(_)) => false,
        }
    }

    /// Prints everything there is after what was read.
    fn rest(&mut self, text: &mut LogText) -> Result<(), Report> {
        self.rest_after(|| {}, text)
    }

    /// The same, after something that is done only where there is more.
    fn rest_after(&mut self, mut before: impl FnMut(), text: &mut LogText) -> Result<(), Report> {
        while let Some(piece) = self.next()? {
            before();
            text.show(&piece)?;
        }
        Ok(())
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
