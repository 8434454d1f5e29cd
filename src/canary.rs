//! Canaries: ways to break a promise on purpose, so that CI can show that the tests would notice.
//!
//! They exist only in builds with `--cfg counterfoil_canary` (`.ci/canary-rustc`), which can't be release builds; there the
//! environment variable COUNTERFOIL_CANARY says which one sings. `.ci/canaries` runs each against the tests named there.
//! Everywhere else [`on`] is a constant `false`, and what it guards is not compiled into anything.

#[cfg(all(counterfoil_canary, not(debug_assertions)))]
compile_error!("a canary loses data on purpose: never in a release");

/// A promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(counterfoil_canary), allow(dead_code))] // MirrorFirst is asked for in such builds only
pub(crate) enum Canary {
    /// A group's bytes are not fsynced.
    SkipSync,
    /// The names of segments are not fsynced.
    SkipDirectorySync,
    /// Recovery believes the page cache.
    TrustCache,
    /// The actors acknowledge a group before it is written.
    AcknowledgeFirst,
    /// The writer goes on after an I/O error.
    IgnorePoison,
    /// The store lets the mirror commit a group before the ledger has it.
    MirrorFirst,
}

/// Whether this canary sings.
#[cfg(not(counterfoil_canary))]
pub(crate) const fn on(_: Canary) -> bool {
    false
}

/// Whether this canary sings.
#[cfg(counterfoil_canary)]
pub(crate) fn on(canary: Canary) -> bool {
    static SINGS: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let name = match canary {
        Canary::SkipSync => "skip-sync",
        Canary::SkipDirectorySync => "skip-directory-sync",
        Canary::TrustCache => "trust-cache",
        Canary::AcknowledgeFirst => "acknowledge-first",
        Canary::IgnorePoison => "ignore-poison",
        Canary::MirrorFirst => "mirror-first",
    };
    SINGS.get_or_init(|| std::env::var("COUNTERFOIL_CANARY").unwrap_or_default()) == name
}
