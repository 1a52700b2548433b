//! The file: made whole or not at all, opened only when nothing speaks against it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use crate::error::{Damage, LedgerError};
use crate::reader::Reader;
use crate::schema;
use crate::tx::{Fence, Tx};

/// Readers and the writer's owner only: the file holds what people asked for.
const MODE: u32 = 0o600;
/// How long one connection waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(5);
/// Prepared statements kept per connection: more than this crate has.
const STATEMENTS: usize = 160;

/// Whether a ledger is complete: one made in place of a lost one is not, until its last transaction (protocol section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// A watcher may use it.
    Yes,
    /// Only the command that makes or mends it may.
    No,
}

/// What a new ledger is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Its own uuid, freshly drawn.
    pub ledger: Uuid,
    /// The cluster it belongs to.
    pub cluster: Uuid,
    /// The node whose truth it holds.
    pub node: NodeName,
    /// Its audit chain, freshly drawn.
    pub chain: Uuid,
    /// Whether it is complete from the start.
    pub whole: Whole,
    /// Tasks `created` before this are `before_ledger`; `None` = no floor (protocol section 7).
    pub accept_after: Option<Timestamp>,
}

/// The ledger, open for writing. `watch.lock` keeps it the only one.
#[derive(Debug)]
pub struct Ledger {
    reader: Reader,
    path: PathBuf,
}

/// The ledger, open for reading only, while its writer goes on.
#[derive(Debug)]
pub struct ReadLedger {
    reader: Reader,
}

impl Deref for Ledger {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Deref for ReadLedger {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Ledger {
    /// Makes a ledger with its first audit entry and opens it. A crash leaves either nothing at `path` or all of it.
    ///
    /// Whatever a lost ledger left beside `path` (`-wal`, `-shm`, `-journal`) is renamed to `….lost`: SQLite would
    /// play it into the new file.
    ///
    /// # Errors
    /// A file at `path` already, or one that cannot be made.
    pub fn create(path: &Path, birth: &Birth, now: Timestamp) -> Result<Ledger, LedgerError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(LedgerError::Present { path: path.to_owned() });
        }
        let unfinished = beside(path, ".new");
        for leftover in [unfinished.clone(), beside(path, ".new-journal")] {
            absent_is_fine(fs::remove_file(&leftover)).map_err(file_error("remove", &leftover))?;
        }
        for suffix in ["-wal", "-shm", "-journal"] {
            let (old, lost) = (beside(path, suffix), beside(path, &format!("{suffix}.lost")));
            absent_is_fine(fs::rename(&old, lost)).map_err(file_error("set aside", &old))?;
        }
        make(&unfinished, birth, now)?;
        // A link refuses to replace what somebody else put there meanwhile; a rename would not.
        match fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LedgerError::Present { path: path.to_owned() });
            }
            linked => linked.map_err(file_error("create", path))?,
        }
        fs::remove_file(&unfinished).map_err(file_error("remove", &unfinished))?;
        sync_directory(path)?;
        Ledger::open_to_recover(path)
    }

    /// Opens a ledger for writing, migrates it, and checks it: SQLite's own check of the file, references, and every
    /// balance against its postings.
    ///
    /// # Errors
    /// An absent, foreign, newer or damaged file, and one that is not [`Whole`].
    pub fn open(path: &Path) -> Result<Ledger, LedgerError> {
        let ledger = Ledger::open_to_recover(path)?;
        match ledger.meta()?.whole {
            Whole::Yes => Ok(ledger),
            Whole::No => Err(LedgerError::NotWhole { path: path.to_owned() }),
        }
    }

    /// As [`Ledger::open`], for the commands that complete a ledger: one that is not [`Whole`] is opened too.
    ///
    /// # Errors
    /// An absent, foreign, newer or damaged file.
    pub fn open_to_recover(path: &Path) -> Result<Ledger, LedgerError> {
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(file_error("restrict", path))?;
        tune(&connection, "wal")?;
        schema::migrate(&mut connection)?;
        let ledger = Ledger { reader: Reader { connection }, path: path.to_owned() };
        ledger.verify_file()?;
        ledger.verify_money()?;
        ledger.meta()?;
        Ok(ledger)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs one transaction: all of it is durable when this returns, or nothing of it ever happened.
    ///
    /// # Errors
    /// What the closure answers; [`LedgerError::Fenced`] when the boot of `fence` does not hold the ledger; a commit
    /// that fails. Each of them leaves the ledger as it was.
    pub fn write<T>(
        &mut self,
        fence: Fence,
        now: Timestamp,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut tx = Tx::begin(&self.reader, fence, now)?;
        let answer = change(&mut tx)?;
        tx.commit()?;
        Ok(answer)
    }
}

impl ReadLedger {
    /// Opens a ledger for reading. Its writer is neither needed nor disturbed.
    ///
    /// # Errors
    /// An absent or foreign file, and one of another schema: only a writer migrates.
    pub fn open(path: &Path) -> Result<ReadLedger, LedgerError> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        limit(&connection)?;
        let found = schema::version(&connection)?;
        if found < schema::SCHEMA {
            return Err(LedgerError::Older { found, known: schema::SCHEMA });
        }
        if found > schema::SCHEMA {
            return Err(LedgerError::Newer { found, known: schema::SCHEMA });
        }
        Ok(ReadLedger { reader: Reader { connection } })
    }
}

/// Writes a complete ledger at a place nobody looks at. No WAL yet: when it is closed, the one file is all there is.
fn make(path: &Path, birth: &Birth, now: Timestamp) -> Result<(), LedgerError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(file_error("create", path))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|source| LedgerError::sql("create", source))?;
    tune(&connection, "delete")?;
    connection
        .pragma_update(None, "application_id", schema::APPLICATION_ID)
        .map_err(|source| LedgerError::sql("mark the file", source))?;
    schema::migrate(&mut connection)?;
    let mut ledger = Ledger { reader: Reader { connection }, path: path.to_owned() };
    ledger.write(Fence::NONE, now, |tx| tx.birth(birth))?;
    ledger.reader.connection.close().map_err(|(_, source)| LedgerError::sql("close", source))?;
    File::open(path).and_then(|file| file.sync_all()).map_err(file_error("sync", path))
}

/// Opens an existing file after making sure that it is a ledger.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, LedgerError> {
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LedgerError::Absent { path: path.to_owned() });
        }
        Err(source) => return Err(file_error("look at", path)(source)),
    }
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|source| LedgerError::sql("open", source))?;
    connection.busy_timeout(BUSY).map_err(|source| LedgerError::sql("open", source))?;
    let mark: i32 = connection
        .query_row("PRAGMA application_id", (), |row| row.get(0))
        .map_err(|source| not_a_ledger(path, source))?;
    if mark != schema::APPLICATION_ID {
        return Err(LedgerError::NotALedger { path: path.to_owned() });
    }
    Ok(connection)
}

fn not_a_ledger(path: &Path, source: rusqlite::Error) -> LedgerError {
    if source.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) {
        LedgerError::NotALedger { path: path.to_owned() }
    } else {
        LedgerError::sql("open", source)
    }
}

/// Sets what makes a commit durable and a reference true.
fn tune(connection: &Connection, journal: &str) -> Result<(), LedgerError> {
    limit(connection)?;
    let set = || -> rusqlite::Result<String> {
        // Answers the mode that holds from now on, which is another one where the file system has no shared memory.
        let mode = connection.query_row(&format!("PRAGMA journal_mode = {journal}"), (), |row| row.get(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        Ok(mode)
    };
    let mode = set().map_err(|source| LedgerError::sql("set the journal", source))?;
    if mode == journal {
        Ok(())
    } else {
        Err(LedgerError::corrupt(Damage::File { report: format!("journal mode {mode}") }))
    }
}

fn limit(connection: &Connection) -> Result<(), LedgerError> {
    let set = || -> rusqlite::Result<()> {
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")
    };
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    set().map_err(|source| LedgerError::sql("set up the connection", source))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_directory(path: &Path) -> Result<(), LedgerError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory).and_then(|held| held.sync_all()).map_err(file_error("sync", directory))
}

fn file_error(op: &'static str, path: &Path) -> impl Fn(io::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::File { op, path: path.clone(), source }
}
