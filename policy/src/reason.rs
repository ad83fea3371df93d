//! Why: every cause of every decision, with a label that never changes.

use std::fmt;
use std::sync::Arc;

use crate::capability::Refusal;
use crate::quote::QuoteRefusal;
use crate::virtual_node::Closed;
use crate::workload::Feature;

/// A cause. [`Reason::label`] is constant for metrics, events and conditions; `Display` is the sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Dedicated nodes have room.
    HasRoom,
    /// Dedicated nodes have no room.
    NoRoom,
    /// The policy puts a serverless tier first.
    ServerlessFirst,
    /// Bursting costs less than the dedicated node.
    CheaperThanDedicated,
    /// The dedicated node costs more than bursting.
    DearerThanBursting,
    /// No backend could ever run the pod.
    NotBurstable(Feature),
    /// The policy is stopped.
    Held,
    /// The tier opens later.
    TierNotOpen,
    /// The policy names no backend that could be asked.
    NoBackend,
    /// There is no VirtualNode of that name.
    UnknownVirtualNode,
    /// The backend takes nothing at the moment.
    Closed(Closed),
    /// The backend has lately failed to start pods of this size.
    StartFailed,
    /// The backend cannot run the pod.
    Infeasible(Refusal),
    /// The backend has no price for the pod.
    NoQuote(QuoteRefusal),
    /// The tier does not allow Spot capacity.
    SpotNotAllowed,
    /// The cloud's quota is used up.
    QuotaExhausted,
    /// The VirtualNode's own limits are used up.
    VirtualNodeLimit,
    /// The tier's limits are used up.
    TierLimit,
    /// A budget does not allow it.
    BudgetExceeded(Arc<str>),
    /// A budget that covers the pod cannot be used.
    BudgetUnusable(Arc<str>),
    /// A budget allows it, but the leader has not written down yet that it may spend so much.
    BudgetNotYetAuthorized(Arc<str>),
}

impl Reason {
    /// Why a pod that has burst did so, from the label that stands in its record.
    pub fn of_commitment(label: &str) -> Option<Reason> {
        [Reason::NoRoom, Reason::ServerlessFirst, Reason::CheaperThanDedicated].into_iter().find(|reason| reason.label() == label)
    }

    /// Constant label; never reworded.
    pub fn label(&self) -> &'static str {
        match self {
            Reason::HasRoom => "HasRoom",
            Reason::NoRoom => "NoRoom",
            Reason::ServerlessFirst => "ServerlessFirst",
            Reason::CheaperThanDedicated => "CheaperThanDedicated",
            Reason::DearerThanBursting => "DearerThanBursting",
            Reason::NotBurstable(_) => "NotBurstable",
            Reason::Held => "PolicyHeld",
            Reason::TierNotOpen => "TierNotOpen",
            Reason::NoBackend => "NoBackend",
            Reason::UnknownVirtualNode => "UnknownVirtualNode",
            Reason::Closed(_) => "BackendClosed",
            Reason::StartFailed => "BackendStartFailed",
            Reason::Infeasible(_) => "BackendInfeasible",
            Reason::NoQuote(_) => "NoQuote",
            Reason::SpotNotAllowed => "SpotNotAllowed",
            Reason::QuotaExhausted => "QuotaExhausted",
            Reason::VirtualNodeLimit => "VirtualNodeLimit",
            Reason::TierLimit => "TierLimit",
            Reason::BudgetExceeded(_) => "BudgetExceeded",
            Reason::BudgetUnusable(_) => "BudgetUnusable",
            Reason::BudgetNotYetAuthorized(_) => "BudgetNotYetAuthorized",
        }
    }

    /// How lasting a refusal is; of several the least lasting is the one to tell.
    pub(crate) fn permanence(&self) -> u8 {
        match self {
            Reason::BudgetNotYetAuthorized(_) => 0,
            Reason::TierNotOpen => 1,
            Reason::QuotaExhausted => 2,
            Reason::VirtualNodeLimit => 3,
            Reason::TierLimit => 4,
            Reason::BudgetExceeded(_) | Reason::BudgetUnusable(_) => 5,
            Reason::StartFailed => 6,
            Reason::Closed(_) => 7,
            Reason::NoQuote(_) => 8,
            Reason::SpotNotAllowed => 9,
            Reason::Infeasible(_) => 10,
            Reason::UnknownVirtualNode => 11,
            Reason::HasRoom
            | Reason::NoRoom
            | Reason::ServerlessFirst
            | Reason::CheaperThanDedicated
            | Reason::DearerThanBursting
            | Reason::NotBurstable(_)
            | Reason::Held
            | Reason::NoBackend => 12,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::HasRoom => out.write_str("dedicated nodes have room"),
            Reason::NoRoom => out.write_str("dedicated nodes have no room"),
            Reason::ServerlessFirst => out.write_str("the policy puts serverless first"),
            Reason::CheaperThanDedicated => out.write_str("bursting costs less than a dedicated node"),
            Reason::DearerThanBursting => out.write_str("a dedicated node costs more than bursting"),
            Reason::NotBurstable(feature) => write!(out, "no backend runs such pods (rule {})", feature.label()),
            Reason::Held => out.write_str("the policy is stopped (spec.stopPolicy)"),
            Reason::TierNotOpen => out.write_str("the tier is not open yet (spec.tiers[].after)"),
            Reason::NoBackend => out.write_str("the policy has no backend for it"),
            Reason::UnknownVirtualNode => out.write_str("there is no usable VirtualNode of this name"),
            Reason::Closed(closed) => write!(out, "the backend is closed ({})", closed.label()),
            Reason::StartFailed => out.write_str("the backend has failed to start such pods lately"),
            Reason::Infeasible(refusal) => write!(out, "{} (rule {})", refusal.sentence, refusal.rule),
            Reason::NoQuote(refusal) => write!(out, "{refusal}"),
            Reason::SpotNotAllowed => out.write_str("the tier does not allow Spot capacity (spec.tiers[].spot)"),
            Reason::QuotaExhausted => out.write_str("the cloud's quota is used up"),
            Reason::VirtualNodeLimit => out.write_str("the limits of the VirtualNode are used up (spec.limits)"),
            Reason::TierLimit => out.write_str("the limits of the tier are used up (spec.tiers[].limits)"),
            Reason::BudgetExceeded(budget) => write!(out, "the budget {budget} would be exceeded"),
            Reason::BudgetUnusable(budget) => write!(out, "the budget {budget} is not usable (its condition Ready says why)"),
            Reason::BudgetNotYetAuthorized(budget) => write!(out, "the budget {budget} is being drawn on"),
        }
    }
}

#[cfg(test)]
mod tests;
