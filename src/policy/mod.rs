//! Policy: whether an event may be appended at all, and what is recorded of that.
//!
//! Called by the ledger's writer before it seals an event, after it has answered duplicates. Does no I/O, knows no clock and no
//! actor: the moment, the state of the mirror and the standing of the signing key are handed in. It never changes an event, and
//! never lets one pass because something could not be found out.
//!
//! # How it decides
//! Each [`Gate`] of a store's [`Policy`] looks at what is [being appended](Appending) and casts a [`Vote`]: an [`Outcome`], the
//! id of its rule, and a reason. Outcomes have one order, `allow < warn < break_glass < quarantine < reject`, and the strongest
//! vote wins, whatever the order in which votes came. The [`Decision`] keeps them all: those that have its outcome
//! *contributed*, the others were *discarded*.
//!
//! | outcome | the event | what is kept |
//! |---|---|---|
//! | allow | is written | nothing |
//! | warn, break_glass | is written | the whole decision, in the event's `policy` |
//! | quarantine, reject | is not written | the caller gets the whole decision in [`PolicyError::Refused`] |
//!
//! # Break-glass
//! A quarantine or reject becomes `break_glass` if some vote asks for that, *every* blocking vote says that it may be overridden,
//! and an [`Authorisation`] holds: signed by a key that the policy [permits](Policy::permit_break_glass), for this ledger, for
//! appending, for this event, its session or its payload, and at this moment. What does not hold changes nothing, and the refusal
//! says why it did not. Where nothing blocks, an authorisation is of no account; a vote that asks for break-glass is then the strongest,
//! and is recorded as such, so a gate asks only where it means it.
//!
//! # The rules that are built in
//! | rule | votes |
//! |---|---|
//! | `ledger.append.event_source_tier_gate` | allow for sources of the policy's minimum tier or above; below it warn, in trusted mode reject |
//! | `ledger.append.attestation_required` | in trusted mode reject for a `user` event that no current key has signed, else allow. For `user` it must allow: nothing overrides it |
//! | `ledger.append.runtime_mode` | on what no key of this ledger has signed: warn in local mode, reject in trusted mode |
//! | `ledger.append_signed.key_state_current_use` | reject for keys that are retired or revoked, in trusted mode for unknown ones too. It must allow, whatever the rest say |
//! | `ledger.append_signed.trust_tier_minimum` | of signed events: allow where the key has the policy's minimum tier; below it warn, in trusted mode reject |
//! | `mirror.append.parity_invariant` | allow while the mirror is equal, being rebuilt or behind within the bound; more lag warns; a mismatch warns, in trusted mode rejects |
//!
//! The mirror's vote is about what the actors know: a mismatch that a check has found counts until another one is clean, or the store is
//! closed. [`Store`](crate::Store) and the command know how far the mirror lags, and nothing of what an earlier check has found. Besides
//! all rules, a key that the ledger has ended, or (where it records keys at all) has never let in, can't sign: see
//! [`AppendError::Key`](crate::AppendError::Key).
//!
//! [`Policy::default`] has the last of them alone; [`Policy::local`] and [`Policy::trusted`] have all six, and require them. A
//! caller may bring a decision of its own: its votes are counted with those of the store's gates, so it adds and never weakens. A
//! rule that is [required](Policy::require) must have voted, in the store or in what the caller brings; else the append is refused.
//!
//! ```
//! use counterfoil::policy::{Policy, RuleId, Vote, compose, Outcome};
//! let rule = RuleId::new("acme.deploys")?;
//! let votes = vec![Vote::reject(rule.clone(), "no deploys on Fridays"), Vote::warn(rule, "it is late")];
//! let decision = compose(votes, None);
//! assert_eq!(decision.outcome(), Outcome::Reject);
//! assert_eq!((decision.contributing().len(), decision.discarded().len()), (1, 1));
//! let policy = Policy::local().require(RuleId::new("acme.deploys")?);
//! # Ok::<(), counterfoil::policy::RuleIdError>(())
//! ```

mod authorisation;
mod builtin;
mod decision;
mod gate;
mod json;
mod store;
mod vote;

pub use authorisation::{Attested, Authorisation, AuthorisationFault, ReasonCode, Terms, TermsError};
pub use builtin::{AttestationRequired, EventSourceTier, KeyStateCurrentUse, ParityInvariant, RuntimeModeGate, TrustTierMinimum};
pub use decision::{Decision, compose};
pub use gate::{Appending, Gate, KeyStanding, ParityState, RuntimeMode, TrustTier};
pub use json::POLICY_BYTES_MAX;
pub use store::{Policy, PolicyError};
pub use vote::{Outcome, RuleId, RuleIdError, VOTES_MAX, Vote};
