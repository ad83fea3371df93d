//! The client: tasks as processes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::templates;
use super::world::{World, below, nanos, now};
use super::{jobs, shapes};

/// Why tasks are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kill {
    /// They are not.
    No,
    /// The job was stopped.
    Stop,
    /// The main tasks are over.
    MainTasksDead,
}

/// How a task ended.
struct Ended {
    failed: bool,
}

/// Sends a signal to a process and all it started.
pub(super) fn signal(process: u32, name: &str) {
    // A process that is gone is what was wanted.
    let _ =
        Command::new("kill").args([format!("-{name}"), "--".to_owned(), format!("-{process}")]).stderr(Stdio::null()).status();
}

/// Runs an allocation to its end.
pub(super) async fn run(world: Arc<World>, id: String, mut kill: watch::Receiver<Kill>) {
    tokio::time::sleep(world.beat).await;
    let job = match world.state().allocations.get(&id) {
        Some(it) => it["Job"].clone(),
        None => return,
    };
    let tasks: Vec<Value> = job["TaskGroups"][0]["Tasks"].as_array().cloned().unwrap_or_default();
    let hook = |task: &Value| (task["Lifecycle"]["Hook"] == "prestart", task["Lifecycle"]["Sidecar"] == true);
    for directory in ["alloc/logs", "alloc/data", "alloc/tmp"] {
        fs::create_dir_all(world.home(&id).join(directory)).expect("a directory");
    }
    change(&world, &id, |it| {
        let states: serde_json::Map<String, Value> = tasks
            .iter()
            .map(|task| {
                let received = shapes::event("Received", "Task received by client", json!({}), nanos());
                let state = json!({"Events": [received], "Failed": false, "FinishedAt": null, "LastRestart": null, "Paused": "",
                    "Restarts": 0, "StartedAt": null, "State": "pending"});
                (task["Name"].as_str().unwrap_or_default().to_owned(), state)
            })
            .collect();
        it["TaskStates"] = Value::Object(states);
    });
    let (sidecars_end, _) = watch::channel(Kill::No);
    let mut sidecars = tokio::task::JoinSet::new();
    let mut failed = false;
    for task in tasks.iter().filter(|task| hook(task).0) {
        if hook(task).1 {
            sidecars.spawn(run_task(world.clone(), id.clone(), task.clone(), sidecars_end.subscribe()));
        } else if !failed {
            failed = run_task(world.clone(), id.clone(), task.clone(), kill.clone()).await.failed;
        }
    }
    if !failed && *kill.borrow_and_update() == Kill::No {
        let mut mains = tokio::task::JoinSet::new();
        for task in tasks.iter().filter(|task| !hook(task).0) {
            mains.spawn(run_task(world.clone(), id.clone(), task.clone(), kill.clone()));
        }
        while let Some(ended) = mains.join_next().await {
            failed |= ended.expect("a task of the stand-in does not panic").failed;
        }
    }
    let why = if *kill.borrow() == Kill::Stop { Kill::Stop } else { Kill::MainTasksDead };
    sidecars_end.send_replace(why);
    while sidecars.join_next().await.is_some() {}
    let job_id = job["ID"].as_str().unwrap_or_default().to_owned();
    world.change(|state| {
        let index = state.index;
        if let Some(it) = state.allocations.get_mut(&id) {
            it["ClientStatus"] = json!(if failed { "failed" } else { "complete" });
            it["ClientDescription"] = json!(if failed { "Failed tasks" } else { "All tasks have completed" });
            it["ModifyIndex"] = json!(index);
            it["ModifyTime"] = json!(nanos());
            for (_, task) in it["TaskStates"].as_object_mut().into_iter().flatten() {
                task["State"] = json!("dead");
            }
        }
        if let Some(job) = state.jobs.get_mut(&job_id) {
            job["Status"] = json!("dead");
            job["ModifyIndex"] = json!(index);
        }
        state.kills.remove(&id);
        world.tell(state, &id, "AllocationUpdated");
    });
    jobs::place_waiting(&world);
}

/// Changes an allocation as its client reports it.
fn change(world: &World, id: &str, change: impl FnOnce(&mut Value)) {
    world.change(|state| {
        let index = state.index;
        if let Some(it) = state.allocations.get_mut(id) {
            change(it);
            it["ModifyIndex"] = json!(index);
            it["ModifyTime"] = json!(nanos());
            if it["NetworkStatus"].is_null() {
                it["NetworkStatus"] = json!({"Address": "", "AddressIPv6": "", "DNS": null, "InterfaceName": ""});
            }
        }
        world.tell(state, id, "AllocationUpdated");
    });
}

fn report(world: &World, id: &str, task: &str, events: &[(&str, &str, Value)], set: impl FnOnce(&mut Value)) {
    change(world, id, |it| {
        let state = &mut it["TaskStates"][task];
        if let Some(known) = state["Events"].as_array_mut() {
            known.extend(events.iter().map(|(kind, message, details)| shapes::event(kind, message, details.clone(), nanos())));
        }
        set(state);
        let running = it["TaskStates"].as_object().is_some_and(|states| states.values().any(|it| it["State"] == "running"));
        if running && it["ClientStatus"] == "pending" {
            it["ClientStatus"] = json!("running");
            it["ClientDescription"] = json!("Tasks are running");
        }
    });
}

/// Runs a task, again and again as its policy says.
async fn run_task(world: Arc<World>, id: String, task: Value, mut kill: watch::Receiver<Kill>) -> Ended {
    let name = task["Name"].as_str().unwrap_or_default().to_owned();
    let message = "Building Task Directory";
    report(&world, &id, &name, &[("Task Setup", message, json!({"message": message}))], |_| {});
    let mut restarts = 0;
    loop {
        let environment = match prepare(&world, &id, &task, &mut kill).await {
            Ok(Some(environment)) => environment,
            Ok(None) => return give_up(&world, &id, &name, &kill, Vec::new()),
            Err(why) => return give_up(&world, &id, &name, &kill, vec![("Failed Validation", why, json!({}))]),
        };
        let child = match start(&world, &id, &task, &environment) {
            Ok(child) => child,
            Err(Failure::Configuration(why)) => {
                return give_up(
                    &world,
                    &id,
                    &name,
                    &kill,
                    vec![("Failed Validation", why.clone(), json!({"validation_error": why}))],
                );
            }
            Err(Failure::Driver(why)) => {
                return give_up(&world, &id, &name, &kill, vec![("Driver Failure", why.clone(), json!({"driver_error": why}))]);
            }
        };
        let process = child.id().unwrap_or_default();
        world.state().processes.insert((id.clone(), name.clone()), process);
        report(&world, &id, &name, &[("Started", "Task started by client", json!({}))], |state| {
            state["State"] = json!("running");
            state["StartedAt"] = json!(now());
        });
        let (status, killed) = wait(&world, &id, &task, child, process, &mut kill).await;
        world.state().processes.remove(&(id.clone(), name.clone()));
        let signal = status.signal().unwrap_or(0);
        let code = status.code().unwrap_or(128 + signal);
        let text = if signal == 0 { format!("Exit Code: {code}") } else { format!("Exit Code: {code}, Signal: {signal}") };
        let details = json!({"exit_code": code.to_string(), "signal": signal.to_string(), "oom_killed": "false"});
        let mut events = vec![("Terminated", text.as_str(), details)];
        if killed {
            events.push(("Killed", "Task successfully killed", json!({})));
            report(&world, &id, &name, &events, |state| end(state, false));
            return Ended { failed: false };
        }
        let policy = &task["RestartPolicy"];
        let service = world.state().allocations.get(&id).is_some_and(|it| it["JobType"] == "service");
        if code == 0 && !service {
            report(&world, &id, &name, &events, |state| end(state, false));
            return Ended { failed: false };
        }
        if restarts >= policy["Attempts"].as_u64().unwrap_or(0) {
            let why = "Policy allows no restarts";
            events.push(("Not Restarting", why, json!({"fails_task": "true", "restart_reason": why})));
            report(&world, &id, &name, &events, |state| end(state, true));
            return Ended { failed: true };
        }
        restarts += 1;
        events.push(("Restarting", "Task restarting", json!({"restart_reason": "Restart within policy"})));
        report(&world, &id, &name, &events, |state| {
            state["State"] = json!("pending");
            state["Restarts"] = json!(restarts);
            state["LastRestart"] = json!(now());
        });
        let delay = Duration::from_nanos(policy["Delay"].as_u64().unwrap_or(0));
        let killed = tokio::select! {
            () = tokio::time::sleep(delay) => false,
            _ = kill.wait_for(|kill| *kill != Kill::No) => true,
        };
        if killed {
            return give_up(&world, &id, &name, &kill, Vec::new());
        }
    }
}

fn end(state: &mut Value, failed: bool) {
    state["State"] = json!("dead");
    state["Failed"] = json!(failed);
    state["FinishedAt"] = json!(now());
}

/// A task that never ran, or does not again.
#[expect(clippy::needless_pass_by_value, reason = "made for this call")]
fn give_up(world: &World, id: &str, name: &str, kill: &watch::Receiver<Kill>, why: Vec<(&str, String, Value)>) -> Ended {
    let failed = *kill.borrow() == Kill::No;
    let mut events: Vec<(&str, &str, Value)> =
        why.iter().map(|(kind, text, details)| (*kind, text.as_str(), details.clone())).collect();
    let refused = "Policy allows no restarts";
    if failed {
        events.push(("Not Restarting", refused, json!({"fails_task": "true", "restart_reason": refused})));
    }
    report(world, id, name, &events, |state| end(state, failed));
    Ended { failed }
}

/// Writes the task's files and says what its environment is; nothing if it is to end first.
async fn prepare(
    world: &World,
    id: &str,
    task: &Value,
    kill: &mut watch::Receiver<Kill>,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let name = task["Name"].as_str().unwrap_or_default();
    let home = world.home(id).join(name);
    for directory in ["local", "secrets", "tmp"] {
        fs::create_dir_all(home.join(directory)).map_err(|error| error.to_string())?;
    }
    let mut environment = environment(world, id, name);
    let mut known = environment.clone();
    for (attribute, value) in shapes::attributes().as_object().into_iter().flatten() {
        known.insert(format!("attr.{attribute}"), value.as_str().unwrap_or_default().to_owned());
    }
    for (variable, value) in task["Env"].as_object().into_iter().flatten() {
        environment.insert(variable.clone(), templates::replaced(value.as_str().unwrap_or_default(), &known));
    }
    let mut changes = world.watch();
    for template in task["Templates"].as_array().into_iter().flatten() {
        let bytes = loop {
            changes.borrow_and_update();
            let rendered = templates::render(template["EmbeddedTmpl"].as_str().unwrap_or_default(), &world.state())?;
            if let Some(bytes) = rendered {
                break bytes;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = kill.wait_for(|kill| *kill != Kill::No) => return Ok(None),
            }
        };
        let path = below(&home, template["DestPath"].as_str().unwrap_or_default())
            .ok_or("template destination path escapes alloc directory")?;
        fs::create_dir_all(path.parent().ok_or("no directory")?).map_err(|error| error.to_string())?;
        let mode = u32::from_str_radix(template["Perms"].as_str().unwrap_or("0644"), 8).unwrap_or(0o644);
        let _ = fs::remove_file(&path);
        fs::write(&path, &bytes).map_err(|error| error.to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|error| error.to_string())?;
        if template["Envvars"] == true {
            environment.extend(templates::variables(&String::from_utf8_lossy(&bytes))?);
        }
    }
    Ok(Some(environment))
}

/// What Nomad tells every task, and every command in it.
pub(super) fn environment(world: &World, id: &str, task: &str) -> BTreeMap<String, String> {
    let home = world.home(id);
    let path = |name: &str| home.join(name).display().to_string();
    let job = world.state().allocations.get(id).map(|it| it["Job"].clone()).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
        ("NOMAD_ALLOC_DIR".to_owned(), path("alloc")),
        ("NOMAD_TASK_DIR".to_owned(), path(&format!("{task}/local"))),
        ("NOMAD_SECRETS_DIR".to_owned(), path(&format!("{task}/secrets"))),
        ("NOMAD_ALLOC_ID".to_owned(), id.to_owned()),
        ("NOMAD_TASK_NAME".to_owned(), task.to_owned()),
        ("NOMAD_JOB_ID".to_owned(), text(&job["ID"])),
        ("NOMAD_JOB_NAME".to_owned(), text(&job["Name"])),
        ("NOMAD_NAMESPACE".to_owned(), text(&job["Namespace"])),
    ]);
    for network in job["TaskGroups"][0]["Networks"].as_array().into_iter().flatten() {
        for port in network["DynamicPorts"].as_array().into_iter().flatten() {
            environment.insert(format!("NOMAD_IP_{}", text(&port["Label"])), "127.0.0.1".to_owned());
        }
    }
    environment
}

enum Failure {
    Configuration(String),
    Driver(String),
}

fn start(
    world: &World,
    id: &str,
    task: &Value,
    environment: &BTreeMap<String, String>,
) -> Result<tokio::process::Child, Failure> {
    let name = task["Name"].as_str().unwrap_or_default();
    let read =
        |value: &Value| templates::interpolated(value.as_str().unwrap_or_default(), environment).map_err(Failure::Configuration);
    let program = read(&task["Config"]["command"])?;
    let args = task["Config"]["args"].as_array().into_iter().flatten().map(read).collect::<Result<Vec<String>, Failure>>()?;
    let file = |stream: &str| {
        let path = world.logs(id).join(format!("{name}.{stream}.0"));
        fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| Failure::Driver(error.to_string()))
    };
    // Whoever was started in the background of a shell ignores SIGINT, and so would the task.
    let mut command = Command::new("/usr/bin/env");
    command
        .args(["--default-signal=INT", "--"])
        .arg(&program)
        .args(args)
        .env_clear()
        .envs(environment)
        .current_dir(world.home(id).join(name))
        .process_group(0);
    command.stdin(Stdio::null());
    let absent = || {
        let text = "failed to launch command with executor: rpc error: code = Unknown desc = binary";
        Failure::Driver(format!("{text} {program:?} could not be found"))
    };
    if program.starts_with('/') && !std::path::Path::new(&program).exists() {
        return Err(absent());
    }
    command.stdout(file("stdout")?).stderr(file("stderr")?);
    tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(|_| absent())
}

/// Waits for a process; asks it to end, and then makes it, when it is to.
async fn wait(
    world: &World,
    id: &str,
    task: &Value,
    mut child: tokio::process::Child,
    process: u32,
    kill: &mut watch::Receiver<Kill>,
) -> (ExitStatus, bool) {
    tokio::select! {
        status = child.wait() => return (status.expect("a status"), false),
        _ = kill.wait_for(|kill| *kill != Kill::No) => {}
    }
    tokio::time::sleep(world.beat).await;
    let name = task["Name"].as_str().unwrap_or_default();
    let grace = Duration::from_nanos(task["KillTimeout"].as_u64().unwrap_or(0));
    let seconds = format!("{}s", grace.as_secs());
    let text = format!("Sent interrupt. Waiting {seconds} before force killing");
    let mut events = Vec::new();
    if *kill.borrow() == Kill::MainTasksDead {
        events.push(("Main Tasks Dead", "Main tasks in the group died", json!({})));
    }
    events.push(("Killing", text.as_str(), json!({"kill_timeout": seconds})));
    report(world, id, name, &events, |state| {
        if let Some(last) = state["Events"].as_array_mut().and_then(|events| events.last_mut()) {
            last["KillTimeout"] = task["KillTimeout"].clone();
        }
    });
    let asked = task["KillSignal"].as_str().filter(|name| !name.is_empty()).unwrap_or("SIGINT").trim_start_matches("SIG");
    signal(process, asked);
    let status = match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            signal(process, "KILL");
            child.wait().await
        }
    };
    (status.expect("a status"), true)
}
