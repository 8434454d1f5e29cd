//! Authorisations: a person's signed word that an append may go against a rule.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Appending, json};
use crate::attest::{AttestError, Attestor, KeyId, PublicKey, Signature};
use crate::event::{LedgerId, Timestamp};

/// Why someone breaks the glass. There are no other reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Something is going wrong now.
    IncidentResponse,
    /// Something lost is being brought back.
    RestoreRecovery,
    /// An operator puts something right.
    OperatorCorrection,
    /// Data moves from one form to another.
    DataMigration,
    /// Someone has to see what happens.
    DiagnosticOnly,
}

impl ReasonCode {
    /// All of them.
    pub const ALL: [ReasonCode; 5] = [
        ReasonCode::IncidentResponse,
        ReasonCode::RestoreRecovery,
        ReasonCode::OperatorCorrection,
        ReasonCode::DataMigration,
        ReasonCode::DiagnosticOnly,
    ];

    /// Its name: `incident_response`, `restore_recovery`, `operator_correction`, `data_migration`, `diagnostic_only`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReasonCode::IncidentResponse => "incident_response",
            ReasonCode::RestoreRecovery => "restore_recovery",
            ReasonCode::OperatorCorrection => "operator_correction",
            ReasonCode::DataMigration => "data_migration",
            ReasonCode::DiagnosticOnly => "diagnostic_only",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an authorisation covers, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TermsFields")]
pub struct Terms {
    ledger_id: LedgerId,
    operation: String,
    artifact_refs: Vec<String>,
    not_before: MomentText,
    not_after: MomentText,
    reason_code: ReasonCode,
}

/// The same before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsFields {
    ledger_id: LedgerId,
    operation: String,
    artifact_refs: Vec<String>,
    not_before: MomentText,
    not_after: MomentText,
    reason_code: ReasonCode,
}

/// A time by its exact text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MomentText(Timestamp);

impl Serialize for MomentText {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MomentText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<MomentText, D::Error> {
        String::deserialize(from)?.parse().map(MomentText).map_err(serde::de::Error::custom)
    }
}

/// Why terms can't be those of an authorisation: they would cover everything, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// The operation is empty or too long.
    #[error("the operation has {bytes} bytes, but must have 1 to {max}; name what is authorised, as in `ledger.append`", max = Terms::OPERATION_BYTES_MAX)]
    Operation {
        /// Bytes it has.
        bytes: usize,
    },
    /// There is no artifact, or there are too many.
    #[error("{count} artifact references, but there must be 1 to {max}; name the events, sessions or payloads that are meant", max = Terms::REFS_MAX)]
    Refs {
        /// How many there are.
        count: usize,
    },
    /// A reference is empty or too long.
    #[error("artifact reference {index} has {bytes} bytes, but must have 1 to {max}; name an event, a session or a payload", max = Terms::REF_BYTES_MAX)]
    Ref {
        /// Which one, from 0.
        index: usize,
        /// Bytes it has.
        bytes: usize,
    },
    /// The window ends before it begins.
    #[error("the authorisation would end at {not_after}, before it begins at {not_before}; give it a window")]
    Window {
        /// When it begins.
        not_before: Timestamp,
        /// When it ends.
        not_after: Timestamp,
    },
}

impl Terms {
    /// Bytes of the longest name of an operation, as for rules.
    pub const OPERATION_BYTES_MAX: usize = 128;
    /// Artifacts of one authorisation at most. 16: what is meant for more is no exception any more.
    pub const REFS_MAX: usize = 16;
    /// Bytes of the longest reference: `session:` and the longest session id.
    pub const REF_BYTES_MAX: usize = 520;
    /// The name of appending an event.
    pub const APPEND: &str = "ledger.append";

    /// Terms under which an operation on these artifacts is authorised, from `not_before` to `not_after`, both included. The
    /// order of artifacts, and how often they are named, means nothing. For an append they are `evt_…` (the id that the draft
    /// gives), `session:…` or `payload:` and the hex of payload_hash; see [`Appending::artifact_refs`].
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn new(
        ledger_id: LedgerId,
        operation: impl Into<String>,
        artifact_refs: impl IntoIterator<Item = impl Into<String>>,
        (not_before, not_after): (Timestamp, Timestamp),
        reason_code: ReasonCode,
    ) -> Result<Terms, TermsError> {
        let operation = operation.into();
        if !(1..=Terms::OPERATION_BYTES_MAX).contains(&operation.trim().len()) || operation.len() > Terms::OPERATION_BYTES_MAX {
            return Err(TermsError::Operation { bytes: operation.len() });
        }
        let mut artifact_refs: Vec<String> = artifact_refs.into_iter().map(Into::into).collect();
        if !(1..=Terms::REFS_MAX).contains(&artifact_refs.len()) {
            return Err(TermsError::Refs { count: artifact_refs.len() });
        }
        let is_wrong = |text: &str| text.trim().is_empty() || text.len() > Terms::REF_BYTES_MAX;
        if let Some((index, text)) = artifact_refs.iter().enumerate().find(|(_, text)| is_wrong(text)) {
            return Err(TermsError::Ref { index, bytes: text.len() });
        }
        if not_before > not_after {
            return Err(TermsError::Window { not_before, not_after });
        }
        artifact_refs.sort_unstable();
        artifact_refs.dedup();
        Ok(Terms { ledger_id, operation, artifact_refs, not_before: MomentText(not_before), not_after: MomentText(not_after), reason_code })
    }

    /// The ledger that is meant.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// What may be done.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// To what it may be done, sorted.
    pub fn artifact_refs(&self) -> &[String] {
        &self.artifact_refs
    }

    /// When it begins and ends, both included.
    pub fn window(&self) -> (Timestamp, Timestamp) {
        (self.not_before.0, self.not_after.0)
    }

    /// Why.
    pub fn reason_code(&self) -> ReasonCode {
        self.reason_code
    }

    /// What is signed: `counterfoil break-glass authorisation v1`, LF, the terms as canonical JSON, LF.
    pub fn message(&self) -> Vec<u8> {
        let mut message = b"counterfoil break-glass authorisation v1\n{".to_vec();
        json::push_terms(self, &mut message);
        message.extend_from_slice(b"}\n");
        message
    }
}

impl TryFrom<TermsFields> for Terms {
    type Error = TermsError;
    fn try_from(fields: TermsFields) -> Result<Terms, TermsError> {
        let window = (fields.not_before.0, fields.not_after.0);
        Terms::new(fields.ledger_id, fields.operation, fields.artifact_refs, window, fields.reason_code)
    }
}

/// Terms and a signature. Whether it holds is for the policy to say: [`Policy::attest`](super::Policy::attest).
///
/// Its JSON, by serde, is what one person hands to another, and what the `policy` of an event holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorisation {
    terms: Terms,
    key: PublicKey,
    signature: Signature,
}

/// Why an authorisation does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorisationFault {
    /// There is none.
    #[error("there is no authorisation; have one signed by a key that the policy permits")]
    Missing,
    /// The key is not one that may authorise here.
    #[error("{key_id} may not authorise it here; have it signed by a key that the policy permits")]
    NotPermitted {
        /// Whose signature it has.
        key_id: KeyId,
    },
    /// The signature is not one of these terms by this key.
    #[error("the signature of its authorisation by {key_id} does not verify: terms or signature were changed; have it signed anew")]
    NotAttested {
        /// Whose signature it should be.
        key_id: KeyId,
    },
    /// It is for another ledger.
    #[error("its authorisation is for the ledger {stated}, and this is {actual}; have one signed for this ledger")]
    OtherLedger {
        /// The ledger it is for.
        stated: LedgerId,
        /// This ledger.
        actual: LedgerId,
    },
    /// It is for something else.
    #[error("its authorisation is for `{stated}`, and this is `{actual}`; have one signed for this operation")]
    OtherOperation {
        /// What it is for.
        stated: String,
        /// What is being done.
        actual: &'static str,
    },
    /// It is for other events.
    #[error("its authorisation names neither this event nor its session nor its payload; have one signed that names one of them")]
    OtherArtifact,
    /// Its time has not come.
    #[error("its authorisation begins at {not_before}, and it is {now}; wait, or have one signed for now")]
    NotYet {
        /// When it begins.
        not_before: Timestamp,
        /// Now.
        now: Timestamp,
    },
    /// Its time is over.
    #[error("its authorisation ended at {not_after}, and it is {now}; have a new one signed")]
    Over {
        /// When it ended.
        not_after: Timestamp,
        /// Now.
        now: Timestamp,
    },
}

impl Authorisation {
    /// Terms with a signature that was made elsewhere, over [`Terms::message`].
    pub fn new(terms: Terms, key: PublicKey, signature: Signature) -> Authorisation {
        Authorisation { terms, key, signature }
    }

    /// Has terms signed.
    ///
    /// # Errors
    /// What the signer says.
    pub fn sign(terms: Terms, attestor: &dyn Attestor) -> Result<Authorisation, AttestError> {
        let signature = attestor.sign(&terms.message())?;
        Ok(Authorisation { terms, key: attestor.public_key(), signature })
    }

    /// What it covers.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The key that it says has signed.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Its signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Whether its signature is one of its terms by its key. Whether that key may authorise anything is another question, which
    /// the policy answers; one that stands in an event was permitted when the event was written, by whoever wrote it.
    pub fn is_signed(&self) -> bool {
        self.key.verify(&self.terms.message(), &self.signature)
    }

    /// Whether it holds for this append: the key permitted, the signature right, and all that it is bound to as it says.
    pub(super) fn attest(&self, permitted: &[PublicKey], appending: &Appending<'_>) -> Result<Attested, AuthorisationFault> {
        let (terms, key_id) = (&self.terms, self.key.key_id());
        if !permitted.contains(&self.key) {
            return Err(AuthorisationFault::NotPermitted { key_id });
        }
        // What is bound is looked at before the signature, which costs more than all of it.
        let (not_before, not_after) = terms.window();
        let now = appending.now();
        if terms.ledger_id != appending.ledger_id() {
            return Err(AuthorisationFault::OtherLedger { stated: terms.ledger_id, actual: appending.ledger_id() });
        }
        if terms.operation != Terms::APPEND {
            return Err(AuthorisationFault::OtherOperation { stated: terms.operation.clone(), actual: Terms::APPEND });
        }
        if !appending.artifact_refs().iter().any(|reference| terms.artifact_refs.contains(reference)) {
            return Err(AuthorisationFault::OtherArtifact);
        }
        if now < not_before {
            return Err(AuthorisationFault::NotYet { not_before, now });
        }
        if now > not_after {
            return Err(AuthorisationFault::Over { not_after, now });
        }
        if !self.is_signed() {
            return Err(AuthorisationFault::NotAttested { key_id });
        }
        Ok(Attested(self.clone()))
    }
}

/// An authorisation that was found to hold, which is the only way to make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Attested(Authorisation);

impl Attested {
    /// The authorisation.
    pub fn authorisation(&self) -> &Authorisation {
        &self.0
    }
}
