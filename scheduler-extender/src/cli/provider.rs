//! `spillway provider check`: what a backend answers, tried on the real account.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use policy::Shape;
use policy::virtual_node::Provider;
use providers::check::{self, Step};
use providers::prices::{self, CURRENCY};
use providers::{Container, PodRequest, PodUid, Secret};
use serde_json::{Value, json};

use super::OutputForm;
use crate::api::VirtualNode;
use crate::clouds::{self, Credentials};
use crate::{compile, duration, run};

#[derive(Debug, Args)]
pub(super) struct ProviderArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a backend for its quota, its usage and its health, as `spillway run` would; with --run also run one small pod there.
    #[command(
        after_help = "Examples:\n  spillway provider check fargate --region us-east-1 --cluster burst --subnet subnet-0a1b2c3d\n  spillway provider check aci --subscription-id … --resource-group burst --location eastus --run alpine:3\n  NOMAD_TOKEN=… spillway provider check nomad --address https://nomad.example:4646 --mhz-per-core 2500 -o json"
    )]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(subcommand)]
    cloud: Cloud,
    /// Image of a pod that is run to its end: `echo hello`, a quarter of a vCPU, half a gigabyte. It costs what it costs.
    #[arg(long, global = true, value_name = "IMAGE")]
    run: Option<String>,
    /// How long that pod may take.
    #[arg(long, global = true, default_value = "5m", value_name = "DURATION")]
    patience: String,
    /// Form of the answer.
    #[arg(short, long, global = true, default_value = "text", value_name = "FORM")]
    output: OutputForm,
}

/// Fields of `VirtualNode.spec`, as flags.
#[derive(Debug, Subcommand)]
enum Cloud {
    /// AWS Fargate. Credentials: whatever the AWS SDK finds (environment, profile, role).
    Fargate {
        /// AWS region.
        #[arg(long)]
        region: String,
        /// Name of the ECS cluster.
        #[arg(long)]
        cluster: String,
        /// Subnet of the tasks; may be given several times.
        #[arg(long = "subnet", required = true)]
        subnets: Vec<String>,
        /// Security group of the tasks; may be given several times.
        #[arg(long = "security-group")]
        security_groups: Vec<String>,
        /// Role with which ECS pulls images and writes logs.
        #[arg(long)]
        execution_role_arn: Option<String>,
        /// CloudWatch log group, which must exist, that the output is written to and read from.
        #[arg(long, requires = "execution_role_arn")]
        log_group: Option<String>,
        /// Give the task a public address, to pull an image without NAT.
        #[arg(long)]
        assign_public_ip: bool,
    },
    /// Azure Container Instances. Credentials: $AZURE_TENANT_ID, $AZURE_CLIENT_ID and $AZURE_CLIENT_SECRET, else the workload identity.
    Aci {
        /// Azure subscription.
        #[arg(long)]
        subscription_id: String,
        /// Resource group.
        #[arg(long)]
        resource_group: String,
        /// Azure location.
        #[arg(long)]
        location: String,
        /// Subnet of the container groups.
        #[arg(long)]
        subnet_id: Option<String>,
    },
    /// HashiCorp Nomad. Credentials: $NOMAD_TOKEN.
    Nomad {
        /// URL of the API, https.
        #[arg(long, env = "NOMAD_ADDR")]
        address: String,
        /// Nomad namespace.
        #[arg(long, env = "NOMAD_NAMESPACE", default_value = "default")]
        namespace: String,
        /// Node pool.
        #[arg(long, default_value = "default")]
        node_pool: String,
        /// MHz that one vCPU is asked for as.
        #[arg(long)]
        mhz_per_core: i64,
        /// Certificate authority of the API, PEM.
        #[arg(long, env = "NOMAD_CACERT", value_name = "FILE")]
        ca_cert: Option<std::path::PathBuf>,
    },
}

pub(super) fn main(args: &ProviderArgs) -> anyhow::Result<()> {
    let Command::Check(args) = &args.command;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let patience = duration::parse(&args.patience)
        .with_context(|| format!("--patience {:?}: a duration, such as 90s or 5m", args.patience))?;
    let (spec, credentials) = args.cloud.describe()?;
    let object: VirtualNode = serde_json::from_value(json!({"metadata": {"name": "provider-check"}, "spec": spec}))?;
    let compiled = compile::virtual_node(&object, CURRENCY)?;
    // Nomad has no prices but those of whoever pays for its machines.
    let built_in = (compiled.provider != Provider::Nomad).then(|| prices::embedded(&clouds::offer(&compiled)));
    let steps = super::runtime()?.block_on(async {
        let cluster = Arc::from("provider-check");
        let (clock, endpoints) = (Arc::new(run::now), clouds::Endpoints::default());
        let provider = clouds::connect(&object, &credentials, &cluster, CURRENCY, clock, &endpoints).await?;
        let mut steps = check::look(&*provider, built_in).await;
        if let Some(image) = &args.run {
            steps.extend(check::run(&*provider, &pod(image), patience).await);
        }
        anyhow::Ok(steps)
    })?;
    match args.output {
        OutputForm::Text => super::print(&table(&steps))?,
        OutputForm::Json => super::print(&format!("{:#}\n", machine(&steps)))?,
    }
    let failed = steps.iter().filter(|step| step.outcome.is_err()).count();
    anyhow::ensure!(failed == 0, "{failed} of {} steps failed", steps.len());
    Ok(())
}

/// A pod that says hello. Its UID is the moment, so that two checks make two.
fn pod(image: &str) -> PodRequest {
    let uid = format!("00000000-0000-4000-9000-{:012x}", run::now().millis());
    let shape = Shape { cpu_millis: 250, memory_bytes: 512 << 20, ephemeral_bytes: 0 };
    let main = Container { command: vec!["echo".to_owned(), "hello".to_owned()], ..Container::new("main", image) };
    PodRequest { containers: vec![main], ..PodRequest::new(PodUid::new(uid), "default", "provider-check", shape) }
}

fn table(steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    steps
        .iter()
        .map(|step| {
            let (mark, words) = told(step);
            format!("{mark:<6}  {:<width$}  {words}\n", step.name)
        })
        .collect()
}

fn machine(steps: &[Step]) -> Value {
    let step = |step: &Step| {
        let (_, words) = told(step);
        let kind = step.outcome.as_ref().err().map(|error| error.kind.label());
        json!({"step": step.name, "ok": step.outcome.is_ok(), "detail": words, "error": kind})
    };
    json!({"steps": steps.iter().map(step).collect::<Vec<_>>()})
}

fn told(step: &Step) -> (&'static str, String) {
    match &step.outcome {
        Ok(words) => ("ok", words.clone()),
        Err(error) => {
            let source = error.source.as_ref().map_or_else(String::new, |source| format!(": {source}"));
            ("FAILED", format!("{error}{source}"))
        }
    }
}

// === impl Cloud ===

impl Cloud {
    /// The specification that stands for the flags, and what the environment says of credentials.
    fn describe(&self) -> anyhow::Result<(Value, Credentials)> {
        match self {
            Cloud::Fargate { region, cluster, subnets, security_groups, execution_role_arn, log_group, assign_public_ip } => {
                let fargate = json!({"region": region, "cluster": cluster, "subnets": subnets, "securityGroups": security_groups,
                    "executionRoleArn": execution_role_arn, "logGroup": log_group, "assignPublicIp": assign_public_ip});
                Ok((json!({"fargate": fargate}), Credentials::default()))
            }
            Cloud::Aci { subscription_id, resource_group, location, subnet_id } => {
                let aci = json!({"subscriptionId": subscription_id, "resourceGroup": resource_group, "location": location,
                    "subnetId": subnet_id});
                let entries = environment(&["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"]);
                let entries = entries.filter(|entries| entries.contains_key("AZURE_CLIENT_SECRET"));
                Ok((json!({"aci": aci}), Credentials { entries, authority: None }))
            }
            Cloud::Nomad { address, namespace, node_pool, mhz_per_core, ca_cert } => {
                let nomad =
                    json!({"address": address, "namespace": namespace, "nodePool": node_pool, "mhzPerCore": mhz_per_core});
                let read = |path: &std::path::PathBuf| {
                    std::fs::read_to_string(path).with_context(|| format!("--ca-cert {}", path.display()))
                };
                let authority = ca_cert.as_ref().map(read).transpose()?;
                Ok((json!({"nomad": nomad}), Credentials { entries: environment(&["NOMAD_TOKEN"]), authority }))
            }
        }
    }
}

/// Those of these variables that are set; `None` if none is.
fn environment(names: &[&str]) -> Option<BTreeMap<String, Secret>> {
    let set = names.iter().filter_map(|name| Some(((*name).to_owned(), Secret::new(std::env::var(name).ok()?))));
    let set: BTreeMap<_, _> = set.collect();
    (!set.is_empty()).then_some(set)
}
