//! The `policy` of an event, as text.

use super::{Authorisation, Decision, RuleId, Terms, VOTES_MAX, Vote};
use crate::attest::Signature;
use crate::event::line::push_string;

/// Bytes of the longest `policy`: the most votes, each with the longest id and reason (of which every byte may be escaped by one
/// more), and an authorisation with the most references (of which every byte may take six). A line must have room for it.
pub const POLICY_BYTES_MAX: usize = 64
    + VOTES_MAX * (RuleId::BYTES_MAX + 2 * Vote::REASON_BYTES_MAX + 64)
    + 6 * Terms::OPERATION_BYTES_MAX
    + Terms::REFS_MAX * (6 * Terms::REF_BYTES_MAX + 3)
    + 2 * 27
    + 64
    + Signature::TEXT_BYTES
    + 256;

pub(super) fn encode(decision: &Decision) -> String {
    let mut out = b"{\"outcome\":\"".to_vec();
    out.extend_from_slice(decision.outcome().as_str().as_bytes());
    out.extend_from_slice(b"\",\"rules\":[");
    for (index, vote) in decision.votes().into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"id\":");
        push_string(vote.rule().as_str(), &mut out);
        out.extend_from_slice(b",\"outcome\":");
        push_string(vote.outcome().as_str(), &mut out);
        out.extend_from_slice(b",\"reason\":");
        push_string(vote.reason(), &mut out);
        out.push(b'}');
    }
    out.push(b']');
    if let Some(attested) = decision.authorisation() {
        out.extend_from_slice(b",\"authorisation\":");
        push_authorisation(attested.authorisation(), &mut out);
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// Appends what serde writes of an authorisation too, so that it can be read back from an event.
fn push_authorisation(authorisation: &Authorisation, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"terms\":{");
    push_terms(authorisation.terms(), out);
    out.extend_from_slice(b"},\"key\":");
    push_string(&authorisation.key().to_string(), out);
    out.extend_from_slice(b",\"signature\":");
    push_string(&authorisation.signature().to_string(), out);
    out.push(b'}');
}

/// Appends the members of the terms' object, without its braces: what is signed, and what is written.
pub(super) fn push_terms(terms: &Terms, out: &mut Vec<u8>) {
    let (not_before, not_after) = terms.window();
    out.extend_from_slice(b"\"ledger_id\":");
    push_string(&terms.ledger_id().to_string(), out);
    out.extend_from_slice(b",\"operation\":");
    push_string(terms.operation(), out);
    out.extend_from_slice(b",\"artifact_refs\":");
    crate::event::line::push_strings(terms.artifact_refs(), out);
    out.extend_from_slice(b",\"not_before\":");
    push_string(&not_before.to_string(), out);
    out.extend_from_slice(b",\"not_after\":");
    push_string(&not_after.to_string(), out);
    out.extend_from_slice(b",\"reason_code\":");
    push_string(terms.reason_code().as_str(), out);
}
