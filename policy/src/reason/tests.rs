use std::borrow::Cow;
use std::collections::BTreeSet;

use super::*;

/// Every reason with its label and its sentence: dashboards, alerts, scripts and people's searches go by them. Add, never reword.
fn table() -> Vec<(Reason, &'static str, &'static str)> {
    let budget = || Arc::from("nightly");
    let refusal = Refusal { rule: "gpu", sentence: Cow::Borrowed("ACI does not run pods with GPUs") };
    vec![
        (Reason::HasRoom, "HasRoom", "dedicated nodes have room"),
        (Reason::NoRoom, "NoRoom", "dedicated nodes have no room"),
        (Reason::ServerlessFirst, "ServerlessFirst", "the policy puts serverless first"),
        (Reason::CheaperThanDedicated, "CheaperThanDedicated", "bursting costs less than a dedicated node"),
        (Reason::DearerThanBursting, "DearerThanBursting", "a dedicated node costs more than bursting"),
        (Reason::NotBurstable(Feature::HostPath), "NotBurstable", "no backend runs such pods (rule hostPath)"),
        (Reason::Held, "PolicyHeld", "the policy is stopped (spec.stopPolicy)"),
        (Reason::TierNotOpen, "TierNotOpen", "the tier is not open yet (spec.tiers[].after)"),
        (Reason::NoBackend, "NoBackend", "the policy has no backend for it"),
        (Reason::UnknownVirtualNode, "UnknownVirtualNode", "there is no usable VirtualNode of this name"),
        (Reason::Closed(Closed::NodeNotReady), "BackendClosed", "the backend is closed (NodeNotReady)"),
        (Reason::StartFailed, "BackendStartFailed", "the backend has failed to start such pods lately"),
        (Reason::Infeasible(refusal), "BackendInfeasible", "ACI does not run pods with GPUs (rule gpu)"),
        (Reason::NoQuote(QuoteRefusal::PricesMissing), "NoQuote", "nobody told what the virtual node costs"),
        (Reason::SpotNotAllowed, "SpotNotAllowed", "the tier does not allow Spot capacity (spec.tiers[].spot)"),
        (Reason::QuotaExhausted, "QuotaExhausted", "the cloud's quota is used up"),
        (Reason::VirtualNodeLimit, "VirtualNodeLimit", "the limits of the VirtualNode are used up (spec.limits)"),
        (Reason::TierLimit, "TierLimit", "the limits of the tier are used up (spec.tiers[].limits)"),
        (Reason::BudgetExceeded(budget()), "BudgetExceeded", "the budget nightly would be exceeded"),
        (Reason::BudgetUnusable(budget()), "BudgetUnusable", "the budget nightly is not usable (its condition Ready says why)"),
        (Reason::BudgetNotYetAuthorized(budget()), "BudgetNotYetAuthorized", "the budget nightly is being drawn on"),
    ]
}

/// A reason that is new does not compile here, and belongs into the table.
fn is_in_the_table(reason: &Reason) -> bool {
    match reason {
        Reason::HasRoom
        | Reason::NoRoom
        | Reason::ServerlessFirst
        | Reason::CheaperThanDedicated
        | Reason::DearerThanBursting
        | Reason::NotBurstable(_)
        | Reason::Held
        | Reason::TierNotOpen
        | Reason::NoBackend
        | Reason::UnknownVirtualNode
        | Reason::Closed(_)
        | Reason::StartFailed
        | Reason::Infeasible(_)
        | Reason::NoQuote(_)
        | Reason::SpotNotAllowed
        | Reason::QuotaExhausted
        | Reason::VirtualNodeLimit
        | Reason::TierLimit
        | Reason::BudgetExceeded(_)
        | Reason::BudgetUnusable(_)
        | Reason::BudgetNotYetAuthorized(_) => true,
    }
}

#[test]
fn every_reason_has_its_label_and_its_sentence() {
    let table = table();
    for (reason, label, sentence) in &table {
        assert!(is_in_the_table(reason));
        assert_eq!((reason.label(), &*reason.to_string()), (*label, *sentence));
    }
    let labels: BTreeSet<&str> = table.iter().map(|(_, label, _)| *label).collect();
    assert_eq!((labels.len(), table.len()), (21, 21), "no label stands for two reasons, and none is missing");
}
