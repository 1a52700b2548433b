//! May it run, what may it cost, where, and who says so: pure rules over exact decimals.
//!
//! Values in, a decision with its reason out. Every check fails closed, and every refusal names the limit, what is left
//! of it, when it resets and who can lift it. The chapter `docs::policy` tells the same story for people.

pub mod admission;
pub mod breaker;
pub mod budget;
pub mod capacity;
pub mod continuity;
pub mod dec;
pub mod eval;
pub mod fleet;
pub mod gate;
pub mod hold;
pub mod lease;
pub mod lifecycle;
pub mod lineage;
pub mod money;
pub mod pace;
pub mod pick;
pub mod price;
pub mod routing;
pub mod safeguards;
pub mod settlement;
pub mod standing;
pub mod velocity;
pub mod window;
