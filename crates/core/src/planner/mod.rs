//! What to do next, decided from what was seen: values in, actions out.
//!
//! An action leaves no choice to whoever executes it. Each decision stands alone, so that the driver can ask it in any
//! pass, again after a crash, and get the same answer for the same facts.

pub mod attempt;
pub mod ownership;
pub mod queue;
pub mod recipe;
pub mod rollback;
pub mod stop;
pub mod template;

/// Priority's weight and the ageing step: policy for the `priority` member, protocol section 3.
pub use queue::{Candidate, Holdback, choose, order, rank};
