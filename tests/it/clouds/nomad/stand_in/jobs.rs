//! Jobs come and go; one scheduler, one client.

use std::sync::Arc;

use serde_json::{Value, json};

use super::shapes;
use super::tasks::{self, Kill};
use super::world::{MEMORY_MB, MHZ, NODE, State, World, nanos};

/// A refusal: status and text.
pub(super) type Refused = (u16, String);

/// Registers a job.
pub(super) fn register(world: &Arc<World>, body: &Value, namespace: &str) -> Result<Value, Refused> {
    let given = &body["Job"];
    if !given.is_object() {
        return Err((400, "Job must be specified".to_owned()));
    }
    validate(given, namespace)?;
    let id = given["ID"].as_str().unwrap_or_default().to_owned();
    let existing = world.state().jobs.get(&id).map(|job| job["JobModifyIndex"].clone());
    if body["EnforceIndex"] == true && body["JobModifyIndex"].as_u64().unwrap_or(0) == 0 && existing.is_some() {
        return Err((500, "Enforcing job modify index 0: job already exists".to_owned()));
    }
    let (index, evaluation) = world.change(|state| {
        let mut job = shapes::job(given, namespace, state.index, nanos());
        if let Some(before) = state.jobs.get(&id) {
            job["CreateIndex"] = before["CreateIndex"].clone();
            job["Version"] = json!(before["Version"].as_u64().unwrap_or(0) + 1);
        }
        let evaluation = evaluation(state, &job, "job-register");
        state.jobs.insert(id.clone(), job);
        (state.index, evaluation)
    });
    later(world, id, evaluation.clone());
    Ok(answer(index, &evaluation, false))
}

/// Stops a job, and forgets it if asked to.
pub(super) fn stop(world: &Arc<World>, id: &str, purge: bool) -> Value {
    if !world.state().jobs.contains_key(id) {
        return answer(0, "", true);
    }
    let (index, evaluation) = world.change(|state| {
        let mut job = state.jobs[id].clone();
        job["Stop"] = json!(true);
        let running = state.allocations.values().any(|it| it["JobID"] == id && is_live(it));
        job["Status"] = json!(if running { "running" } else { "dead" });
        job["ModifyIndex"] = json!(state.index);
        let evaluation = evaluation(state, &job, "job-deregister");
        if let Some(evaluation) = state.evaluations.get_mut(&evaluation) {
            evaluation["Status"] = json!("complete");
        }
        state.jobs.insert(id.to_owned(), job);
        (state.index, evaluation)
    });
    let ours: Vec<String> = {
        let state = world.state();
        state.allocations.iter().filter(|(_, it)| it["JobID"] == id).map(|(id, _)| id.clone()).collect()
    };
    world.change(|state| {
        for allocation in &ours {
            let index = state.index;
            if let Some(it) = state.allocations.get_mut(allocation).filter(|it| is_live(it)) {
                it["DesiredStatus"] = json!("stop");
                it["DesiredDescription"] = json!("alloc not needed due to job update");
                it["ModifyIndex"] = json!(index);
                it["AllocModifyIndex"] = json!(index);
                it["ModifyTime"] = json!(nanos());
            }
            world.tell(state, allocation, "AllocationUpdateDesiredStatus");
            if let Some(kill) = state.kills.get(allocation) {
                kill.send_replace(Kill::Stop);
            }
        }
        if purge {
            state.jobs.remove(id);
            state.allocations.retain(|_, it| it["JobID"] != id);
            state.evaluations.retain(|_, it| it["JobID"] != id);
        }
    });
    answer(index, &evaluation, true)
}

/// The scheduler's dry run.
pub(super) fn plan(world: &World, body: &Value, namespace: &str) -> Result<Value, Refused> {
    let given = &body["Job"];
    validate(given, namespace)?;
    let state = world.state();
    let job = shapes::job(given, namespace, state.index, nanos());
    let existing = state.jobs.get(job["ID"].as_str().unwrap_or_default());
    let placed = existing.is_some_and(|existing| state.allocations.values().any(|it| it["JobID"] == existing["ID"]));
    let failed = if placed { None } else { place(&state, &job).err() };
    let group = job["TaskGroups"][0]["Name"].as_str().unwrap_or_default();
    let annotations = if placed { shapes::annotations(group, 0, 1, 0) } else { shapes::annotations(group, 1, 0, 0) };
    let (created, failed) = match failed {
        None => (Value::Null, Value::Null),
        Some(failure) => {
            let suitable = failure["ConstraintFiltered"].is_null();
            let failed = json!({group: shapes::metrics(failure)});
            let blocked = json!({"ClassEligibility": {"v1:3297672396111530502": suitable}, "CreateTime": nanos(),
                "FailedTGAllocs": failed, "ID": "00000000-0000-4000-8000-00000000aaaa", "JobID": job["ID"],
                "ModifyTime": nanos(), "Namespace": namespace, "PreviousEval": "00000000-0000-4000-8000-00000000bbbb",
                "Priority": 50, "Status": "blocked", "StatusDescription": "created to place remaining allocations",
                "TriggeredBy": "queued-allocs", "Type": job["Type"]});
            (json!([blocked]), failed)
        }
    };
    let index = existing.map_or(json!(0), |job| job["JobModifyIndex"].clone());
    Ok(json!({"Annotations": annotations, "CreatedEvals": created, "Diff": null, "FailedTGAllocs": failed, "Index": 0,
        "JobModifyIndex": index, "NextPeriodicLaunch": null, "Warnings": ""}))
}

/// How many allocations of a job are how far.
pub(super) fn summary(state: &State, job: &Value) -> Value {
    let counted =
        |status: &str| state.allocations.values().filter(|it| it["JobID"] == job["ID"] && it["ClientStatus"] == status).count();
    let none = state.allocations.values().all(|it| it["JobID"] != job["ID"]);
    let group = job["TaskGroups"][0]["Name"].as_str().unwrap_or_default();
    json!({"Children": {"Dead": 0, "Pending": 0, "Running": 0}, "CreateIndex": job["CreateIndex"], "JobID": job["ID"],
        "ModifyIndex": job["ModifyIndex"], "Namespace": job["Namespace"], "Summary": {group: {
            "Complete": counted("complete"), "Failed": counted("failed"), "Lost": 0,
            "Queued": u32::from(none && job["Stop"] == false), "Running": counted("running"), "Starting": counted("pending"), "Unknown": 0}}})
}

/// Places what waits, should there be room now.
pub(super) fn place_waiting(world: &Arc<World>) {
    let waiting: Vec<(String, String)> = {
        let state = world.state();
        let blocked = state.evaluations.iter().filter(|(_, it)| it["Status"] == "blocked");
        blocked.map(|(id, it)| (it["JobID"].as_str().unwrap_or_default().to_owned(), id.clone())).collect()
    };
    for (job, evaluation) in waiting {
        later(world, job, evaluation);
    }
}

pub(super) fn is_live(allocation: &Value) -> bool {
    matches!(allocation["ClientStatus"].as_str(), Some("pending" | "running"))
}

fn answer(index: u64, evaluation: &str, stopped: bool) -> Value {
    let mut answer = json!({"EvalCreateIndex": index, "EvalID": evaluation, "Index": index, "JobModifyIndex": index,
        "KnownLeader": false, "LastContact": 0, "NextToken": ""});
    if stopped {
        answer["VolumeEvalID"] = json!("");
        answer["VolumeEvalIndex"] = json!(0);
    } else {
        answer["Warnings"] = json!("");
    }
    answer
}

fn evaluation(state: &mut State, job: &Value, trigger: &str) -> String {
    let (id, now) = (state.id(), nanos());
    let evaluation = json!({"CreateIndex": state.index, "CreateTime": now, "ID": id, "JobID": job["ID"],
        "JobModifyIndex": state.index, "ModifyIndex": state.index, "ModifyTime": now, "Namespace": job["Namespace"],
        "Priority": job["Priority"], "Status": "pending", "TriggeredBy": trigger, "Type": job["Type"]});
    state.evaluations.insert(id.clone(), evaluation);
    id
}

fn list(problems: &[String]) -> String {
    let head = if problems.len() == 1 { "1 error occurred".to_owned() } else { format!("{} errors occurred", problems.len()) };
    let lines: String = problems.iter().map(|problem| format!("\t* {problem}\n")).collect();
    format!("{head}:\n{lines}\n")
}

fn validate(job: &Value, namespace: &str) -> Result<(), Refused> {
    let refuse = |problem: String| Err((500, list(&[problem])));
    let id = job["ID"].as_str().unwrap_or_default();
    if id.contains(' ') {
        return refuse("Job ID contains a space".to_owned());
    }
    let groups = job["TaskGroups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if groups.is_empty() {
        return refuse("Missing job task groups".to_owned());
    }
    for group in groups {
        for task in group["Tasks"].as_array().into_iter().flatten() {
            let resources = shapes::resources(&task["Resources"]);
            let mut problems = Vec::new();
            for (name, what, least) in [("CPU", "CPU", 1), ("MemoryMB", "MemoryMB", 10)] {
                let got = resources[name].as_i64().unwrap_or(0);
                if got < least {
                    problems.push(format!("minimum {what} value is {least}; got {got}"));
                }
            }
            if !problems.is_empty() {
                let (group, task) = (group["Name"].as_str().unwrap_or_default(), task["Name"].as_str().unwrap_or_default());
                let inner = list(&[list(&[list(&problems)])]);
                let inner = format!("Task {task} validation failed: {inner}");
                return refuse(format!("Task group {group} validation failed: {}", list(&[inner])));
            }
        }
    }
    if namespace != "default" {
        return refuse(format!("job {id:?} is in nonexistent namespace {namespace:?}"));
    }
    let pool = job["NodePool"].as_str().unwrap_or("default");
    if !["default", "all", ""].contains(&pool) {
        return refuse(format!("job {id:?} is in nonexistent node pool {pool:?}"));
    }
    Ok(())
}

/// Whether the client can take a job, or what the scheduler says of it.
fn place(state: &State, job: &Value) -> Result<(), Value> {
    let datacenter = |pattern: &Value| pattern == "*" || pattern == "dc1";
    if !job["Datacenters"].as_array().into_iter().flatten().any(datacenter) {
        return Err(json!({}));
    }
    let tasks =
        || job["TaskGroups"].as_array().into_iter().flatten().flat_map(|group| group["Tasks"].as_array().into_iter().flatten());
    let seen = json!({"NodesAvailable": {"dc1": 1}, "NodesEvaluated": 1, "NodesInPool": 1});
    let with = |more: Value| {
        let mut failure = seen.clone();
        for (name, value) in more.as_object().into_iter().flatten() {
            failure[name] = value.clone();
        }
        Err(failure)
    };
    for constraint in job["Constraints"].as_array().into_iter().flatten() {
        let left = constraint["LTarget"].as_str().unwrap_or_default();
        let name = left.trim_start_matches("${attr.").trim_end_matches('}');
        if shapes::attributes()[name] != constraint["RTarget"] {
            let text = format!("{left} = {}", constraint["RTarget"].as_str().unwrap_or_default());
            return with(json!({"NodesFiltered": 1, "ConstraintFiltered": {text: 1}}));
        }
    }
    if tasks().any(|task| task["Driver"] != "raw_exec") {
        return with(json!({"NodesFiltered": 1, "ConstraintFiltered": {"missing drivers": 1}}));
    }
    let (mhz, mb) = asked(job);
    let live: Vec<(i64, i64)> = state.allocations.values().filter(|it| is_live(it)).map(|it| asked(&it["Job"])).collect();
    let dimension = if live.iter().map(|it| it.0).sum::<i64>() + mhz > MHZ {
        ("cpu", "CPU")
    } else if live.iter().map(|it| it.1).sum::<i64>() + mb > MEMORY_MB {
        ("memory", "MemoryMB")
    } else {
        return Ok(());
    };
    let exhausted = tasks().map(|task| {
        let nothing = json!({"CPU": 0, "Cores": 0, "Devices": null, "DiskMB": 0, "IOPS": 0, "MemoryMB": 0, "MemoryMaxMB": 0,
            "NUMA": null, "Networks": null, "SecretsMB": 0});
        let mut resources = nothing;
        resources[dimension.1] = task["Resources"][dimension.1].clone();
        (task["Name"].as_str().unwrap_or_default().to_owned(), resources)
    });
    let exhausted: serde_json::Map<String, Value> = exhausted.collect();
    with(json!({"NodesExhausted": 1, "DimensionExhausted": {dimension.0: 1}, "ResourcesExhausted": exhausted}))
}

/// MHz and MB of a job: init tasks are over when the main ones start.
fn asked(job: &Value) -> (i64, i64) {
    let mut sums = [(0, 0); 3];
    for task in
        job["TaskGroups"].as_array().into_iter().flatten().flat_map(|group| group["Tasks"].as_array().into_iter().flatten())
    {
        let sum = match &task["Lifecycle"] {
            Value::Null => &mut sums[0],
            lifecycle if lifecycle["Sidecar"] == true => &mut sums[1],
            _ => &mut sums[2],
        };
        sum.0 += task["Resources"]["CPU"].as_i64().unwrap_or(0);
        sum.1 += task["Resources"]["MemoryMB"].as_i64().unwrap_or(0);
    }
    let [main, sidecars, init] = sums;
    (main.0.max(init.0) + sidecars.0, main.1.max(init.1) + sidecars.1)
}

fn later(world: &Arc<World>, job: String, evaluation: String) {
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(world.beat).await;
        schedule(&world, &job, &evaluation);
    });
}

fn schedule(world: &Arc<World>, id: &str, evaluation: &str) {
    let placed = world.change(|state| {
        let job = state.jobs.get(id)?.clone();
        if job["Stop"] == true || !state.evaluations.contains_key(evaluation) {
            return None;
        }
        let group = job["TaskGroups"][0]["Name"].as_str().unwrap_or_default().to_owned();
        let (index, now) = (state.index, nanos());
        if let Err(failure) = place(state, &job) {
            if state.evaluations[evaluation]["Status"] == "blocked" {
                return None;
            }
            let suitable = failure["ConstraintFiltered"].is_null();
            let failed = json!({group.clone(): shapes::metrics(failure.clone())});
            let blocked = state.id();
            let mut waiting = json!({"CreateIndex": index, "CreateTime": now, "FailedTGAllocs": failed, "ID": blocked, "JobID": id,
                "JobModifyIndex": job["JobModifyIndex"], "ModifyIndex": index, "ModifyTime": now, "Namespace": job["Namespace"],
                "PreviousEval": evaluation, "Priority": 50, "SnapshotIndex": index - 1, "Status": "blocked",
                "StatusDescription": "created to place remaining allocations", "TriggeredBy": "queued-allocs", "Type": job["Type"]});
            if failure["NodesEvaluated"].as_i64().is_some() {
                waiting["ClassEligibility"] = json!({"v1:3297672396111530502": suitable});
            }
            state.evaluations.insert(blocked.clone(), waiting);
            let it = state.evaluations.get_mut(evaluation)?;
            it["BlockedEval"] = json!(blocked);
            it["FailedTGAllocs"] = failed;
            complete(it, &group, index, 1);
            return None;
        }
        let allocation = state.id();
        let it = allocate(&job, &group, &allocation, evaluation, index, now);
        state.allocations.insert(allocation.clone(), it);
        let it = state.evaluations.get_mut(evaluation)?;
        if let Some(it) = it.as_object_mut() {
            it.remove("FailedTGAllocs");
            it.remove("StatusDescription");
        }
        complete(it, &group, index, 0);
        if let Some(job) = state.jobs.get_mut(id) {
            job["Status"] = json!("running");
            job["ModifyIndex"] = json!(index);
        }
        world.tell(state, &allocation, "PlanResult");
        let (sender, receiver) = tokio::sync::watch::channel(Kill::No);
        state.kills.insert(allocation.clone(), sender);
        Some((allocation, receiver))
    });
    if let Some((allocation, kill)) = placed {
        tokio::spawn(tasks::run(world.clone(), allocation, kill));
    }
}

fn complete(evaluation: &mut Value, group: &str, index: u64, queued: u32) {
    let waited = evaluation["Status"] == "blocked";
    evaluation["Status"] = json!("complete");
    evaluation["ModifyIndex"] = json!(index);
    evaluation["SnapshotIndex"] = json!(index);
    evaluation["PlanAnnotations"] = shapes::annotations(group, 1, 0, 0);
    evaluation["QueuedAllocations"] = if waited { json!({group: 0}) } else { json!({group: queued}) };
}

fn allocate(job: &Value, group: &str, id: &str, evaluation: &str, index: u64, now: i64) -> Value {
    let tasks = || job["TaskGroups"][0]["Tasks"].as_array().into_iter().flatten();
    let by_name = |of: &dyn Fn(&Value) -> Value| -> Value {
        let fields = tasks().map(|task| (task["Name"].as_str().unwrap_or_default().to_owned(), of(task)));
        Value::Object(fields.collect())
    };
    let disk = &job["TaskGroups"][0]["EphemeralDisk"]["SizeMB"];
    let sum = |name: &str| tasks().filter_map(|task| task["Resources"][name].as_i64()).sum::<i64>();
    let whole = |cpu: i64, memory: i64| {
        let mut out = shapes::resources(&json!({"CPU": cpu, "MemoryMB": memory, "MemoryMaxMB": memory}));
        out["DiskMB"] = disk.clone();
        out
    };
    let score = json!([{"NodeID": NODE, "NormScore": 0.020_736_773, "Scores": {"binpack": 0.020_736_773, "job-anti-affinity": 0.0,
        "node-reschedule-penalty": 0.0, "node-affinity": 0.0}}]);
    let metrics = json!({"NodesAvailable": {"dc1": 1}, "NodesEvaluated": 1, "NodesInPool": 1, "ScoreMetaData": score});
    let mut embedded = job.clone();
    embedded["Status"] = json!("pending");
    json!({
        "AllocModifyIndex": index,
        "AllocatedResources": {
            "Shared": {"DiskMB": disk, "Networks": null, "Ports": null},
            "TaskLifecycles": by_name(&|task| task["Lifecycle"].clone()),
            "Tasks": by_name(&|task| json!({"Cpu": {"CpuShares": task["Resources"]["CPU"], "ReservedCores": null}, "Devices": null,
                "Memory": {"MemoryMB": task["Resources"]["MemoryMB"], "MemoryMaxMB": 0}, "Networks": null})),
        },
        "ClientDescription": "", "ClientStatus": "pending", "CreateIndex": index, "CreateTime": now, "DeploymentStatus": null,
        "DesiredDescription": "", "DesiredStatus": "run", "EvalID": evaluation, "FollowupEvalID": "", "ID": id, "Job": embedded,
        "JobID": job["ID"], "JobType": job["Type"], "JobVersion": 0, "Metrics": shapes::metrics(metrics), "ModifyIndex": index,
        "ModifyTime": now, "Name": format!("{}.{group}[0]", job["ID"].as_str().unwrap_or_default()), "Namespace": job["Namespace"],
        "NextAllocation": "", "NodeID": NODE, "NodeName": "nomad-client-1", "PreemptedAllocations": null,
        "PreemptedByAllocation": "", "RescheduleTracker": null, "Resources": whole(sum("CPU"), sum("MemoryMB")),
        "SharedResources": shared(disk), "SigningKeyID": "60276bd7-c260-bf64-871b-763ae4aba4e4", "TaskGroup": group,
        "TaskResources": by_name(&|task| task["Resources"].clone()), "TaskStates": null,
    })
}

/// What tasks share, which is the disk.
fn shared(disk: &Value) -> Value {
    let mut out = shapes::resources(&json!({"CPU": 0, "MemoryMB": 0}));
    out["DiskMB"] = disk.clone();
    out
}
