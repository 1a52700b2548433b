//! Reading: the same methods on an open ledger, on one opened for reading only, and inside a transaction.

use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, TransactionBehavior};

use crate::error::LedgerError;

/// Every question the ledger answers. Got by dereferencing a [`crate::Ledger`], a [`crate::ReadLedger`] or a
/// [`crate::Tx`]; in a transaction it sees what that has written so far.
#[derive(Debug)]
pub struct Reader {
    pub(crate) connection: Connection,
}

impl Reader {
    /// Asks several things of one and the same moment, whatever a writer commits in between.
    ///
    /// # Errors
    /// What the closure answers, or that the moment cannot be held. Inside a transaction of [`crate::Ledger::write`]
    /// it is not needed, and fails.
    pub fn snapshot<T>(&self, ask: impl FnOnce(&Reader) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let op = "hold a moment";
        let held = Transaction::new_unchecked(&self.connection, TransactionBehavior::Deferred)
            .map_err(|source| LedgerError::sql(op, source))?;
        let answer = ask(self)?;
        held.finish().map_err(|source| LedgerError::sql(op, source))?;
        Ok(answer)
    }

    /// All rows of a question.
    pub(crate) fn all<T>(
        &self,
        op: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let ask = || -> rusqlite::Result<Vec<T>> {
            self.connection.prepare_cached(sql)?.query_map(params, read)?.collect()
        };
        ask().map_err(|source| LedgerError::sql(op, source))
    }

    /// The one row of a question, or none.
    pub(crate) fn one<T>(
        &self,
        op: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, LedgerError> {
        let ask = || -> rusqlite::Result<Option<T>> {
            self.connection.prepare_cached(sql)?.query_row(params, read).optional()
        };
        ask().map_err(|source| LedgerError::sql(op, source))
    }

    /// Changes rows and says how many. Only transactions call it.
    pub(crate) fn run(&self, op: &'static str, sql: &str, params: impl Params) -> Result<usize, LedgerError> {
        let change = || -> rusqlite::Result<usize> { self.connection.prepare_cached(sql)?.execute(params) };
        change().map_err(|source| LedgerError::sql(op, source))
    }
}
