//! How a real agent writes its objects: with every field it has, or without those that are empty.

use serde_json::{Map, Value, json};

/// The fields of `given` over those of `defaults`.
fn over(defaults: Value, given: &Value) -> Value {
    let mut out = defaults;
    for (name, value) in given.as_object().into_iter().flatten() {
        if !value.is_null() {
            out[name] = value.clone();
        }
    }
    out
}

fn each(value: &Value, with: impl Fn(&Value) -> Value) -> Value {
    match value.as_array() {
        Some(items) => items.iter().map(with).collect(),
        None => Value::Null,
    }
}

/// Without some fields.
pub(super) fn without(value: &Value, names: &[&str]) -> Value {
    let mut out = value.clone();
    if let Some(out) = out.as_object_mut() {
        out.retain(|name, _| !names.contains(&name.as_str()));
    }
    out
}

/// Without the fields that are empty, at the top only: how one allocation or evaluation is written.
pub(super) fn sparse(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    let fields = value.as_object().into_iter().flatten();
    Value::Object(fields.filter(|(_, value)| !empty(value)).map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A job as the agent keeps it.
pub(super) fn job(given: &Value, namespace: &str, index: u64, now: i64) -> Value {
    let defaults = json!({
        "Affinities": null, "AllAtOnce": false, "Constraints": null, "ConsulNamespace": "", "CreateIndex": index,
        "Datacenters": ["*"], "DispatchIdempotencyToken": "", "Dispatched": false, "ID": "", "JobModifyIndex": index,
        "Meta": null, "ModifyIndex": index, "Multiregion": null, "Name": given["ID"], "Namespace": namespace,
        "NodePool": "default", "NomadTokenID": "", "ParameterizedJob": null, "ParentID": "", "Payload": null, "Periodic": null,
        "Priority": 50, "Region": "global", "Spreads": null, "Stable": false, "Status": "pending", "StatusDescription": "",
        "Stop": false, "SubmitTime": now, "TaskGroups": null, "Type": "service", "UI": null,
        "Update": {"AutoPromote": false, "AutoRevert": false, "Canary": 0, "HealthCheck": "", "HealthyDeadline": 0,
            "MaxParallel": 0, "MinHealthyTime": 0, "ProgressDeadline": 0, "Stagger": 0},
        "VaultNamespace": "", "Version": 0, "VersionTag": null,
    });
    let mut out = over(defaults, given);
    let batch = out["Type"] == "batch";
    out["Constraints"] = each(&out["Constraints"], |given| over(json!({"LTarget": "", "Operand": "=", "RTarget": ""}), given));
    out["TaskGroups"] = each(&out["TaskGroups"], |given| group(given, batch));
    out
}

const DAY: i64 = 86_400_000_000_000;

fn group(given: &Value, batch: bool) -> Value {
    let defaults = json!({
        "Affinities": null, "Constraints": null, "Consul": null, "Count": 1, "Disconnect": null,
        "EphemeralDisk": {"Migrate": false, "SizeMB": 300, "Sticky": false}, "MaxClientDisconnect": null,
        "MaxRunDuration": null, "Meta": null, "Migrate": null, "Name": "", "Networks": null, "PreventRescheduleOnLost": false,
        "ReschedulePolicy": null, "RestartPolicy": null, "Scaling": null, "Services": null, "ShutdownDelay": null,
        "Spreads": null, "StopAfterClientDisconnect": null, "Tasks": null, "Update": null, "Volumes": null,
    });
    let mut out = over(defaults, given);
    let attempts = if batch { 3 } else { 2 };
    let interval = if batch { DAY } else { 1_800_000_000_000 };
    let restart = json!({"Attempts": attempts, "Delay": 15_000_000_000_i64, "Interval": interval, "Mode": "fail", "RenderTemplates": false});
    let reschedule = json!({"Attempts": 1, "Delay": 5_000_000_000_i64, "DelayFunction": "constant", "Interval": DAY, "MaxDelay": 0, "Unlimited": false});
    out["RestartPolicy"] = over(restart, &given["RestartPolicy"]);
    out["ReschedulePolicy"] = over(reschedule, &given["ReschedulePolicy"]);
    let disk = json!({"Migrate": false, "SizeMB": 300, "Sticky": false});
    out["EphemeralDisk"] = over(disk, &given["EphemeralDisk"]);
    let restart = out["RestartPolicy"].clone();
    out["Tasks"] = each(&out["Tasks"], |given| task(given, &restart));
    out
}

fn task(given: &Value, restart: &Value) -> Value {
    let defaults = json!({
        "Actions": null, "Affinities": null, "Artifacts": null, "CSIPluginConfig": null, "Config": null, "Constraints": null,
        "Consul": null, "DispatchPayload": null, "Driver": "", "Env": null, "Identities": null,
        "Identity": {"Audience": ["nomadproject.io"], "ChangeMode": "", "ChangeSignal": "", "Env": false, "ExtraClaims": null,
            "File": false, "Filepath": "", "Name": "default", "ServiceName": "", "TTL": 0},
        "KillSignal": "", "KillTimeout": 5_000_000_000_i64, "Kind": "", "Leader": false, "Lifecycle": null,
        "LogConfig": null, "Meta": null, "Name": "", "Resources": null, "RestartPolicy": null, "ScalingPolicies": null,
        "Schedule": null, "Secrets": null, "Services": null, "ShutdownDelay": 0, "Templates": null, "User": "", "Vault": null,
        "VolumeMounts": null,
    });
    let mut out = over(defaults, given);
    out["LogConfig"] = over(json!({"Disabled": false, "MaxFileSizeMB": 10, "MaxFiles": 10}), &given["LogConfig"]);
    out["Resources"] = resources(&given["Resources"]);
    out["RestartPolicy"] = over(restart.clone(), &given["RestartPolicy"]);
    out["Templates"] = each(&out["Templates"], |given| {
        over(
            json!({"ChangeMode": "restart", "ChangeScript": null, "ChangeSignal": "", "DestPath": "", "EmbeddedTmpl": "",
                "Envvars": false, "ErrMissingKey": false, "Gid": null, "LeftDelim": "{{", "Once": false, "Perms": "0644",
                "RightDelim": "}}", "SourcePath": "", "Splay": 5_000_000_000_i64, "Uid": null, "VaultGrace": 0, "Wait": null}),
            given,
        )
    });
    out
}

pub(super) fn resources(given: &Value) -> Value {
    over(
        json!({"CPU": 100, "Cores": 0, "Devices": null, "DiskMB": 0, "IOPS": 0, "MemoryMB": 300, "MemoryMaxMB": 0, "NUMA": null,
            "Networks": null, "SecretsMB": 0}),
        given,
    )
}

/// A job in a list.
pub(super) fn job_stub(job: &Value, summary: Value, meta: bool) -> Value {
    let names = [
        "CreateIndex",
        "Datacenters",
        "ID",
        "JobModifyIndex",
        "ModifyIndex",
        "Multiregion",
        "Name",
        "Namespace",
        "NodePool",
        "ParentID",
        "Priority",
        "Status",
        "StatusDescription",
        "Stop",
        "SubmitTime",
        "Type",
    ];
    let mut out: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), job[*name].clone())).collect();
    out.insert("JobSummary".to_owned(), summary);
    out.insert("ParameterizedJob".to_owned(), json!(false));
    out.insert("Periodic".to_owned(), json!(false));
    if meta {
        out.insert("Meta".to_owned(), job["Meta"].clone());
    }
    Value::Object(out)
}

/// An allocation in a list.
pub(super) fn allocation_stub(allocation: &Value, resources: bool, states: bool) -> Value {
    let names = [
        "ClientDescription",
        "ClientStatus",
        "CreateIndex",
        "CreateTime",
        "DeploymentStatus",
        "DesiredDescription",
        "DesiredStatus",
        "EvalID",
        "FollowupEvalID",
        "ID",
        "JobID",
        "JobType",
        "JobVersion",
        "ModifyIndex",
        "ModifyTime",
        "Name",
        "Namespace",
        "NextAllocation",
        "NodeID",
        "NodeName",
        "PreemptedAllocations",
        "PreemptedByAllocation",
        "RescheduleTracker",
        "TaskGroup",
        "TaskStates",
    ];
    let mut out: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), allocation[*name].clone())).collect();
    let desired = json!({"ForceReschedule": null, "Migrate": null, "MigrateDisablePlacement": null, "NoShutdownDelay": null, "Reschedule": null});
    out.insert("DesiredTransition".to_owned(), desired);
    if resources {
        out.insert("AllocatedResources".to_owned(), allocation["AllocatedResources"].clone());
    }
    if !states {
        out.insert("TaskStates".to_owned(), Value::Null);
    }
    Value::Object(out)
}

/// An event of a task.
#[expect(clippy::needless_pass_by_value, reason = "made for this call")]
pub(super) fn event(kind: &str, message: &str, details: Value, time: i64) -> Value {
    let number = |name: &str| details[name].as_str().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let text = |name: &str| details[name].as_str().unwrap_or_default().to_owned();
    json!({
        "Details": details, "DiskLimit": 0, "DisplayMessage": message, "DownloadError": "", "DriverError": text("driver_error"),
        "DriverMessage": "", "ExitCode": number("exit_code"), "FailedSibling": text("failed_sibling"),
        "FailsTask": text("fails_task") == "true", "GenericSource": "", "KillError": "", "KillReason": "", "KillTimeout": 0,
        "Message": text("message"), "RestartReason": text("restart_reason"), "SetupError": "", "Signal": number("signal"),
        "StartDelay": 0, "TaskSignal": "", "TaskSignalReason": "", "Time": time, "Type": kind,
        "ValidationError": text("validation_error"), "VaultError": "",
    })
}

/// What the scheduler counted.
#[expect(clippy::needless_pass_by_value, reason = "made for this call")]
pub(super) fn metrics(failure: Value) -> Value {
    over(
        json!({"AllocationTime": 24_153, "ClassExhausted": null, "ClassFiltered": null, "CoalescedFailures": 0,
            "ConstraintFiltered": null, "DimensionExhausted": null, "NodePool": "default", "NodesAvailable": {},
            "NodesEvaluated": 0, "NodesExhausted": 0, "NodesFiltered": 0, "NodesInPool": 0, "QuotaExhausted": null,
            "ResourcesExhausted": null, "ScoreMetaData": null, "Scores": null}),
        &failure,
    )
}

/// What the scheduler means to do with a group.
pub(super) fn annotations(group: &str, place: u32, ignore: u32, stop: u32) -> Value {
    json!({"DesiredTGUpdates": {group: {"Canary": 0, "DestructiveUpdate": 0, "Disconnect": 0, "Ignore": ignore,
        "InPlaceUpdate": 0, "Migrate": 0, "Place": place, "Preemptions": 0, "Reconnect": 0, "RescheduleLater": 0,
        "RescheduleNow": 0, "Stop": stop}}, "PreemptedAllocs": null})
}

/// The client.
pub(super) fn node(id: &str, whole: bool) -> Value {
    let driver = json!({"raw_exec": {"Attributes": {"driver.raw_exec": "true"}, "Detected": true, "HealthDescription": "Healthy",
        "Healthy": true, "UpdateTime": "2026-11-21T09:06:22.563888816Z"}});
    let core = |id: u32| json!({"BaseSpeed": 2600, "Disable": false, "Grade": true, "GuessSpeed": 0, "ID": id, "MaxSpeed": 0, "NodeID": 0, "SocketID": 0});
    let address = |address: &str, family: &str| json!({"Address": address, "Alias": "default", "Family": family, "Gateway": "", "ReservedPorts": ""});
    let network = |cidr: &str, ip: &str| json!({"CIDR": cidr, "Device": "lo", "IP": ip, "MBits": 1000, "Mode": "host"});
    let resources = json!({"Cpu": {"CpuShares": 8000, "ReservableCpuCores": [0, 1], "TotalCpuCores": 2}, "Devices": null,
        "Disk": {"DiskMB": 258_019}, "MaxDynamicPort": 32000, "Memory": {"MemoryMB": 16384}, "MinDynamicPort": 20000,
        "Networks": [network("127.0.0.1/32", "127.0.0.1"), network("::1/128", "::1")],
        "NodeNetworks": [{"Addresses": [address("127.0.0.1", "ipv4"), address("::1", "ipv6")], "Device": "lo",
            "MacAddress": "", "Mode": "host", "Speed": 1000}],
        "Processors": {"Topology": {"Cores": [core(0), core(1)], "Distances": null, "Nodes": [0], "OverrideTotalCompute": 8000,
            "OverrideWitholdCompute": 0}}});
    let reserved = json!({"Cpu": {"CpuShares": 0, "ReservedCpuCores": null}, "Disk": {"DiskMB": 0}, "Memory": {"MemoryMB": 0},
        "Networks": {"ReservedHostPorts": ""}});
    let mut node = json!({"CreateIndex": 8, "Datacenter": "dc1", "Drain": false, "Drivers": driver, "HostVolumes": {}, "ID": id,
        "LastDrain": null, "ModifyIndex": 10, "Name": "nomad-client-1", "NodeClass": "", "NodePool": "default",
        "NodeResources": resources, "ReservedResources": reserved, "SchedulingEligibility": "eligible", "Status": "ready",
        "StatusDescription": ""});
    if whole {
        let more = json!({"Attributes": attributes(), "CSIControllerPlugins": {}, "CSINodePlugins": {}, "CgroupParent": "nomad.slice",
            "ComputedClass": "v1:3297672396111530502", "DrainStrategy": null, "Events": [{"CreateIndex": 0, "Details": null,
            "Message": "Node registered", "Subsystem": "Cluster", "Timestamp": "2026-11-21T09:06:23Z"}],
            "GCVolumesOnNodeGC": false, "HTTPAddr": "127.0.0.1:4646", "HostNetworks": null,
            "IdentitySigningKeyID": "60276bd7-c260-bf64-871b-763ae4aba4e4", "LastAllocUpdateIndex": 165,
            "LastMissedHeartbeatIndex": 0, "Links": {}, "Meta": {}, "NodeMaxAllocs": 0});
        let mut node = over(node, &more);
        for name in ["DrainStrategy", "HostNetworks"] {
            node[name] = Value::Null;
        }
        node["SecretID"] = json!("");
        node["StatusUpdatedAt"] = json!(1_795_251_983);
        node["TLSEnabled"] = json!(false);
        return node;
    }
    node["Address"] = json!("127.0.0.1");
    node["Version"] = json!("2.0.6");
    node
}

/// Attributes of the client that constraints and references may name.
pub(super) fn attributes() -> Value {
    json!({"cpu.arch": "amd64", "kernel.name": "linux", "nomad.version": "2.0.6", "driver.raw_exec": "1", "cpu.numcores": "2",
        "cpu.totalcompute": "8000", "unique.network.ip-address": "127.0.0.1", "unique.hostname": "nomad-client-1"})
}
