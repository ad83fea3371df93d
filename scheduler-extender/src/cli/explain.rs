//! `spillway why`: the committer's own state, built from the API server, asked about one pod.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use policy::{Decision, Outcome, Room};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{OutputForm, WhyArgs};
use crate::committer::{Committer, Event, Explained, Settings};
use crate::metrics::{Limits, Metrics};
use crate::{api, run};

pub(super) fn why(args: &WhyArgs) -> anyhow::Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let name = args.pod.strip_prefix("pod/").or_else(|| args.pod.strip_prefix("pods/")).unwrap_or(&args.pod);
    let (explained, policy) = super::runtime()?.block_on(async {
        let client = crate::run::connect(args.kubeconfig.as_deref(), "why").await?;
        let exists = Api::<Pod>::namespaced(client.clone(), &args.namespace).get_opt(name).await.context("reading the pod")?;
        let pod = exists.with_context(|| format!("there is no pod {name} in namespace {}", args.namespace))?;
        let committer = committer(&client, &args.currency).await?;
        anyhow::Ok((committer.explain(&args.namespace, name, run::now()), committer.selecting(&pod)))
    })?;
    match args.output {
        OutputForm::Text => super::print(&with_policy(&explained, policy.as_deref(), &args.currency)),
        OutputForm::Json => super::print(&format!("{:#}\n", machine(&explained, policy.as_deref()))),
    }
}

/// A committer that knows everything and does nothing.
async fn committer(client: &Client, currency: &str) -> anyhow::Result<Committer> {
    let mut committer = Committer::new(Settings::standard(currency), Arc::new(Metrics::new(currency, Limits::STANDARD)));
    let now = run::now();
    let mut tell = |event| committer.handle(event, now);
    list::<Namespace>(client).await?.into_iter().for_each(|object| tell(Event::Namespace(Box::new(object))));
    list::<Node>(client).await?.into_iter().for_each(|object| tell(Event::Node(Box::new(object))));
    list::<Service>(client).await?.into_iter().for_each(|object| tell(Event::Service(Box::new(object))));
    list::<api::BurstPolicy>(client).await?.into_iter().for_each(|object| tell(Event::Policy(Box::new(object))));
    list::<api::VirtualNode>(client).await?.into_iter().for_each(|object| tell(Event::VirtualNode(Box::new(object))));
    list::<api::BurstBudget>(client).await?.into_iter().for_each(|object| tell(Event::Budget(Box::new(object))));
    let pods = list::<Pod>(client).await?;
    pods.iter().for_each(|object| tell(Event::Pod(Box::new(object.clone()))));
    tell(Event::Synced);
    // Pending pods are told again once everything is known, as the committer would ask for.
    let pending = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_none_or(str::is_empty);
    pods.into_iter().filter(pending).for_each(|object| tell(Event::Pod(Box::new(object))));
    committer.weigh(now);
    Ok(committer)
}

pub(super) async fn list<K>(client: &Client) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    Ok(api.list(&ListParams::default()).await.with_context(|| format!("listing {}", K::plural(&())))?.items)
}

/// For people, about a pod that `policy` selects.
fn with_policy(explained: &Explained, policy: Option<&str>, currency: &str) -> String {
    match (explained, policy) {
        (Explained::Dedicated(_), None) => text(explained, currency) + &text(&Explained::NotSelected, currency),
        (explained, _) => text(explained, currency),
    }
}

/// For people.
pub(crate) fn text(explained: &Explained, currency: &str) -> String {
    match explained {
        Explained::NotSelected => "No BurstPolicy selects this pod: Spillway does not touch it.\n".to_owned(),
        Explained::Dedicated(node) => format!("On dedicated node {node}: its scheduler placed it there.\n"),
        Explained::Burst(record) => format!(
            "Burst to virtual node {} by policy {} (generation {}), tier {}: {}.\n  bought   {} m of CPU, {} MiB\n  quote    {} {currency} for {} s, at {} {currency} an hour\n  budgets  {}\n",
            record.virtual_node,
            record.policy,
            record.generation,
            record.tier,
            record.why(),
            record.usage.cpu_millis,
            record.usage.memory_bytes >> 20,
            record.quote,
            record.run.as_secs(),
            record.hourly,
            if record.budgets.is_empty() { "none".to_owned() } else { record.budgets.join(", ") },
        ),
        Explained::Waiting { policy, room, decision } => waiting(policy, *room, decision, currency),
    }
}

fn waiting(policy: &str, room: Room, decision: &Decision, currency: &str) -> String {
    let mut out = String::new();
    let verdict = match &decision.outcome {
        Outcome::Dedicated => "is left to its scheduler",
        Outcome::Burst(_) => "is about to burst",
        Outcome::Wait(_) => "waits",
    };
    let room = match room {
        Room::Some => "dedicated nodes may have room for it",
        Room::NoneSince(_) => "dedicated nodes have no room for it",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "Pending under policy {policy}; {room}. It {verdict}: {}.", decision.explanation.reason);
    for tier in &decision.explanation.tiers {
        let _ = writeln!(out, "  tier {:<20} {}", tier.tier, tier.reason);
        for candidate in &tier.candidates {
            let _ = match &candidate.verdict {
                Ok(quote) => writeln!(out, "    {:<22} {} {currency} ({})", candidate.virtual_node, quote.total(), quote.shape),
                Err(reason) => writeln!(out, "    {:<22} {reason}", candidate.virtual_node),
            };
        }
    }
    out
}

/// For machines.
fn machine(explained: &Explained, policy: Option<&str>) -> serde_json::Value {
    match explained {
        Explained::NotSelected => json!({"outcome": "NotSelected"}),
        Explained::Dedicated(node) => match policy {
            Some(policy) => json!({"outcome": "Dedicated", "node": node, "policy": policy}),
            None => json!({"outcome": "NotSelected", "node": node}),
        },
        Explained::Burst(record) => {
            json!({"outcome": "Burst", "decision": serde_json::from_str::<serde_json::Value>(&record.to_json()).unwrap_or_default()})
        }
        Explained::Waiting { policy, decision, .. } => {
            let tiers: Vec<_> = decision.explanation.tiers.iter().map(|tier| {
                let candidates: Vec<_> = tier.candidates.iter().map(|candidate| match &candidate.verdict {
                    Ok(quote) => json!({"virtualNode": candidate.virtual_node, "total": quote.total().to_string()}),
                    Err(reason) => json!({"virtualNode": candidate.virtual_node, "reason": reason.label(), "message": reason.to_string()}),
                }).collect();
                json!({"tier": tier.tier, "reason": tier.reason.label(), "message": tier.reason.to_string(), "candidates": candidates})
            }).collect();
            let reason = &decision.explanation.reason;
            json!({"outcome": "Waiting", "policy": policy, "reason": reason.label(), "message": reason.to_string(), "tiers": tiers})
        }
    }
}
