//! x
pub mod chain;
pub mod event;
pub mod import;
pub mod ledger;
pub mod mirror;
mod options;
pub use event::*;
pub use options::*;
