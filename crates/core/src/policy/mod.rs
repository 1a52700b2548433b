//! May it run, what may it cost, where, and who says so: pure rules over exact decimals.

pub mod money;
