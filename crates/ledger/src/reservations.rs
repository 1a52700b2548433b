//! Reservations: money set aside for one attempt of one task, closed exactly once (policy section 1).

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Balance, Caps, Payer, Window, WindowKey, WindowKeys};
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt, micros, usd};
use crate::error::LedgerError;
use crate::money::{Account, Posting};
use crate::reader::Reader;
use crate::tasks::TaskKey;
use crate::tx::Tx;

/// Money to be set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReservation {
    /// Its own id, freshly drawn.
    pub id: Uuid,
    /// For which task.
    pub key: TaskKey,
    /// For which of its attempts, from 1.
    pub nth: u32,
    /// How much.
    pub amount: Usd,
    /// In which windows.
    pub windows: WindowKeys,
    /// Which of them it is made in.
    pub payer: Payer,
}

impl NewReservation {
    /// The windows it is made in, in the order of asking.
    fn asked(&self) -> impl Iterator<Item = (Window, &WindowKey)> {
        self.windows.iter().filter(|(window, _)| self.payer.asks(*window))
    }
}

/// Whether money was set aside.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserving {
    /// In every window.
    Reserved,
    /// In none: the first window that has no room, with what it holds.
    WouldExceed {
        /// The window.
        window: WindowKey,
        /// What it holds.
        balance: Balance,
    },
    /// In none: the first window that was closed before its time.
    Closed {
        /// The window.
        window: WindowKey,
    },
}

/// Whether this call closed a reservation.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It did.
    Now,
    /// It was closed before; nothing changed.
    Before,
}

/// Money that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationRow {
    /// Its id.
    pub id: Uuid,
    /// For which task.
    pub key: TaskKey,
    /// For which of its attempts.
    pub nth: u32,
    /// How much.
    pub amount: Usd,
    /// When.
    pub made_at: Timestamp,
    /// When it was closed; `None` = it is open.
    pub closed_at: Option<Timestamp>,
    /// What was charged; `None` = it is open, or was released.
    pub actual: Option<Usd>,
    /// Where the charge comes from.
    pub basis: Option<CostBasis>,
}

impl Reader {
    /// A reservation.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn reservation(&self, id: Uuid) -> Result<Option<ReservationRow>, LedgerError> {
        let sql = "SELECT * FROM reservations WHERE id = ?1";
        self.one("read a reservation", sql, [id.to_string()], read_reservation)
    }

    /// What a branch of a tree has cost and set aside: the task of this id, whoever sent it, every task below it that runs
    /// here, and what those it sends elsewhere may cost there. What comes back from these counts in their own bounds.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn branch_committed(&self, top: TaskId) -> Result<Usd, LedgerError> {
        let below = self.committed_below(top)?;
        let sql =
            "SELECT coalesce(sum(CASE WHEN closed_at IS NULL THEN amount ELSE coalesce(actual, 0) END), 0)
            FROM reservations WHERE task = ?1";
        let own = self.one("sum up a branch", sql, [top.to_string()], |row| row.get::<_, i64>(0))?;
        Ok(usd(own.unwrap_or(0)).checked_add(below).unwrap_or(below))
    }

    /// The same without the task itself: what came back of a task that was sent elsewhere.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn committed_below(&self, top: TaskId) -> Result<Usd, LedgerError> {
        let sql = "WITH RECURSIVE branch (id) AS (
              SELECT tasks.id FROM tasks WHERE tasks.parent = ?1
              UNION SELECT tasks.id FROM tasks JOIN branch ON tasks.parent = branch.id),
            sent (id) AS (
              SELECT children.id FROM children WHERE children.parent = ?1
              UNION SELECT children.id FROM children JOIN branch ON children.parent = branch.id)
            SELECT coalesce(sum(CASE WHEN closed_at IS NULL THEN amount ELSE coalesce(actual, 0) END), 0)
            FROM reservations WHERE task IN (SELECT id FROM branch UNION SELECT id FROM sent)";
        let below = self.one("sum up a branch", sql, [top.to_string()], |row| row.get::<_, i64>(0))?;
        Ok(usd(below.unwrap_or(0)))
    }

    /// Every reservation that is not closed.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_reservations(&self) -> Result<Vec<ReservationRow>, LedgerError> {
        let sql = "SELECT * FROM reservations WHERE closed_at IS NULL ORDER BY made_at, id";
        self.all("read the reservations", sql, (), read_reservation)
    }
}

impl Tx<'_> {
    /// Sets money aside in all windows, or in none: each of them is looked at again here, inside the transaction, so
    /// `reserved + spent` never passes a cap by a reservation. The task's row then points to it, so the task is inserted first.
    ///
    /// # Errors
    /// An unknown task, a negative amount, an id that was used, an open reservation for the same attempt, or a ledger
    /// that cannot be written.
    pub fn reserve_within(&mut self, new: &NewReservation, caps: &Caps) -> Result<Reserving, LedgerError> {
        let reserving = self.reserve_for_child(new, caps)?;
        if reserving != Reserving::Reserved {
            return Ok(reserving);
        }
        let sql = "UPDATE tasks SET reservation = ?3 WHERE sender = ?1 AND id = ?2";
        let params = (new.key.from.as_str(), new.key.id.to_string(), new.id.to_string());
        match self.run("point a task to its reservation", sql, params)? {
            0 => Err(LedgerError::UnknownTask { key: new.key.clone() }),
            _ => Ok(Reserving::Reserved),
        }
    }

    /// The same for a task that another node runs for one of this node: no row of this ledger points to it.
    ///
    /// # Errors
    /// As [`Tx::reserve_within`].
    pub fn reserve_for_child(&mut self, new: &NewReservation, caps: &Caps) -> Result<Reserving, LedgerError> {
        let amount = micros(new.amount)?;
        for (kind, window) in new.asked() {
            let Some(held) = self.window(window)? else {
                if has_room(Balance::default(), caps.get(kind), amount)? {
                    continue;
                }
                return Ok(Reserving::WouldExceed { window: window.clone(), balance: Balance::default() });
            };
            if held.closed_at.is_some() {
                return Ok(Reserving::Closed { window: window.clone() });
            }
            if !has_room(held.balance, caps.get(kind), amount)? {
                return Ok(Reserving::WouldExceed { window: window.clone(), balance: held.balance });
            }
        }
        let (from, id, reservation) = (new.key.from.as_str(), new.key.id.to_string(), new.id.to_string());
        let sql = "INSERT INTO reservations (id, sender, task, nth, amount, made_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let params = (&reservation, from, &id, new.nth, amount, self.now().unix_ms());
        self.run("make a reservation", sql, params)?;
        for (_, window) in new.asked() {
            self.open_window(window)?;
            let sql = "INSERT INTO reservation_windows (reservation, key) VALUES (?1, ?2)";
            self.run("make a reservation", sql, (&reservation, window.to_string()))?;
            self.post(&Posting {
                window,
                source: Account::Free,
                target: Account::Reserved,
                micros: amount,
                reservation: Some(new.id),
                why: "reserve",
                basis: None,
            })?;
        }
        Ok(Reserving::Reserved)
    }

    /// Closes a reservation by charging what was spent, in the windows it was made in. An actual above the amount is
    /// charged as it is. Settling a closed one changes nothing and says so.
    ///
    /// # Errors
    /// A negative actual, an unknown reservation, or a ledger that cannot be written.
    pub fn settle(&mut self, id: Uuid, actual: Usd, basis: CostBasis) -> Result<Closing, LedgerError> {
        let charged = micros(actual)?;
        self.close(id, Some((charged, basis)))
    }

    /// Closes a reservation by giving all of it back. Releasing a closed one changes nothing and says so.
    ///
    /// # Errors
    /// An unknown reservation, or a ledger that cannot be written.
    pub fn release(&mut self, id: Uuid) -> Result<Closing, LedgerError> {
        self.close(id, None)
    }

    fn close(&mut self, id: Uuid, charge: Option<(i64, CostBasis)>) -> Result<Closing, LedgerError> {
        let row = self.reservation(id)?.ok_or(LedgerError::UnknownReservation { id })?;
        if row.closed_at.is_some() {
            return Ok(Closing::Before);
        }
        let amount = micros(row.amount)?;
        let sql = "SELECT key FROM reservation_windows WHERE reservation = ?1";
        let windows: Vec<WindowKey> =
            self.all("read a reservation", sql, [id.to_string()], |row| get(row, "key"))?;
        let (why, basis) = charge.map_or(("release", None), |(_, basis)| ("settle", Some(basis)));
        for window in &windows {
            let back = Posting {
                window,
                source: Account::Reserved,
                target: Account::Free,
                micros: amount,
                reservation: Some(id),
                why,
                basis,
            };
            self.post(&back)?;
            if let Some((charged, _)) = charge {
                self.post(&Posting {
                    source: Account::Free,
                    target: Account::Spent,
                    micros: charged,
                    ..back
                })?;
            }
        }
        let sql =
            "UPDATE reservations SET closed_at = ?2, closing = ?3, actual = ?4, basis = ?5 WHERE id = ?1";
        let closing = if charge.is_some() { "settled" } else { "released" };
        let params = (
            id.to_string(),
            self.now().unix_ms(),
            closing,
            charge.map(|(charged, _)| charged),
            basis.map(CostBasis::as_str),
        );
        self.run("close a reservation", sql, params)?;
        let sql = "UPDATE tasks SET reservation = NULL WHERE sender = ?1 AND id = ?2 AND reservation = ?3";
        let params = (row.key.from.as_str(), row.key.id.to_string(), id.to_string());
        self.run("close a reservation", sql, params)?;
        Ok(Closing::Now)
    }
}

/// `reserved + spent + amount <= cap`; a sum that cannot be held has no room either.
fn has_room(balance: Balance, cap: Option<Usd>, amount: i64) -> Result<bool, LedgerError> {
    let used = micros(balance.reserved)?.checked_add(micros(balance.spent)?);
    let Some(total) = used.and_then(|used| used.checked_add(amount)) else { return Ok(false) };
    Ok(cap.is_none_or(|cap| usd(total) <= cap))
}

fn read_reservation(row: &Row<'_>) -> rusqlite::Result<ReservationRow> {
    Ok(ReservationRow {
        id: get(row, "id")?,
        key: TaskKey { from: get(row, "sender")?, id: get(row, "task")? },
        nth: row.get("nth")?,
        amount: get(row, "amount")?,
        made_at: get(row, "made_at")?,
        closed_at: get_opt(row, "closed_at")?,
        actual: get_opt(row, "actual")?,
        basis: get_opt(row, "basis")?,
    })
}
