//! The schema's history. A migration, once released, is never edited: what comes next is a new file in `schema/`.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::LedgerError;

/// Marks the file as a ledger of Dispatch (`application_id` in its header): `DSPL`.
pub(crate) const APPLICATION_ID: i32 = 0x4453_504C;

/// The migrations, oldest first; the schema's number is how many of them were applied.
const MIGRATIONS: [&str; 4] = [
    include_str!("../schema/0001.sql"),
    include_str!("../schema/0002.sql"),
    include_str!("../schema/0003.sql"),
    include_str!("../schema/0004.sql"),
];

/// The newest schema this program knows, the one it writes (`PRAGMA user_version`).
pub const SCHEMA: u32 = 4;

/// The number of a file's schema; 0 = nothing was ever made in it.
pub(crate) fn version(connection: &Connection) -> Result<u32, LedgerError> {
    connection
        .query_row("PRAGMA user_version", (), |row| row.get(0))
        .map_err(|source| LedgerError::sql("read the schema's number", source))
}

/// Applies what is missing, all of it in one transaction.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), LedgerError> {
    migrate_by(connection, &MIGRATIONS)
}

fn migrate_by(connection: &mut Connection, migrations: &[&str]) -> Result<(), LedgerError> {
    let found = version(connection)?;
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(LedgerError::Newer { found, known });
    }
    if found == known {
        return Ok(());
    }
    let applied = usize::try_from(found).unwrap_or(usize::MAX);
    let mut migrate = || -> rusqlite::Result<()> {
        let held = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for migration in migrations.iter().skip(applied) {
            held.execute_batch(migration)?;
        }
        held.pragma_update(None, "user_version", known)?;
        held.commit()
    };
    migrate().map_err(|source| LedgerError::sql("migrate the schema", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE t (a INTEGER NOT NULL) STRICT; INSERT INTO t VALUES (7);";
    const SECOND: &str = "ALTER TABLE t ADD COLUMN b TEXT NOT NULL DEFAULT 'x';";

    #[test]
    fn the_number_of_the_schema_is_the_number_of_migrations() {
        assert_eq!(usize::try_from(SCHEMA).unwrap(), MIGRATIONS.len());
    }

    #[test]
    fn an_older_file_is_migrated_and_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_by(&mut connection, &[FIRST]).unwrap();
        migrate_by(&mut connection, &[FIRST, SECOND]).unwrap();
        migrate_by(&mut connection, &[FIRST, SECOND]).unwrap();
        assert_eq!(version(&connection).unwrap(), 2);
        let row: (i64, String) =
            connection.query_row("SELECT a, b FROM t", (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (7, "x".to_owned()));
    }

    #[test]
    fn a_failing_migration_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_by(&mut connection, &[FIRST]).unwrap();
        assert!(migrate_by(&mut connection, &[FIRST, SECOND, "CREATE TABLE t (a)"]).is_err());
        assert_eq!(version(&connection).unwrap(), 1);
        assert!(connection.prepare("SELECT b FROM t").is_err());
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate_by(&mut connection, &[FIRST, SECOND]).unwrap();
        let refused = migrate_by(&mut connection, &[FIRST]);
        assert!(matches!(refused, Err(LedgerError::Newer { found: 2, known: 1 })));
    }
}
