//! Child processes that cannot outlive the test, however it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

/// Reads a pipe that only this process can write to. When this process ends, even by SIGKILL, the pipe ends: the
/// watchdog kills the group, paused members too, and removes the folder.
const WATCHDOG: &str = r#"read -r _; kill -s KILL -- "-$1"; rm -rf -- "$2""#;

/// Only keeps the process group in existence while its members come and go, and ends by its own pipe.
const LEADER: &str = "read -r _";

/// See [`WATCHDOG`]. While it is alive, processes can be started in the group.
#[derive(Debug)]
pub(super) struct Watchdog {
    // In this order: the watchdog must find the group, and the leader must outlive it.
    _watchdog: Shell,
    leader: Shell,
}

/// A shell that waits for the end of its standard input.
#[derive(Debug)]
struct Shell {
    child: Child,
    // Never written to: its closing is the message.
    pipe: Option<ChildStdin>,
}

/// What a program is started with.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    pub(super) arguments: Vec<String>,
    /// Set for it beside what this process has.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// One running program with its log file. It is killed when this is dropped, and when the test ends, however that ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

// === impl Watchdog ===

impl Watchdog {
    /// Starts watching over `folder` and the processes to come.
    pub(super) fn start(folder: &Path) -> Result<Watchdog> {
        let leader = Shell::start(LEADER, &[])?;
        let group = leader.child.id().to_string();
        let watchdog = Shell::start(WATCHDOG, &[OsStr::new(&group), folder.as_os_str()])?;
        Ok(Watchdog { _watchdog: watchdog, leader })
    }

    /// Starts a program in the watched group; what it prints is appended to `log`.
    pub(super) fn spawn(&self, program: &Path, command: &CommandLine, log: &Path) -> Result<Process> {
        let group = i32::try_from(self.leader.child.id()).context("process id out of range")?;
        let output = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(&command.arguments)
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .process_group(group)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { child })
    }
}

// === impl CommandLine ===

impl From<Vec<String>> for CommandLine {
    fn from(arguments: Vec<String>) -> CommandLine {
        CommandLine { arguments, environment: Vec::new() }
    }
}

// === impl Shell ===

impl Shell {
    /// In a process group of its own, out of reach of a Ctrl-C that ends the test.
    fn start(script: &str, arguments: &[&OsStr]) -> Result<Shell> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, "spillway-watchdog"])
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start /bin/sh as the watchdog")?;
        let pipe = child.stdin.take();
        Ok(Shell { child, pipe })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It ends itself within milliseconds; waiting keeps it from staying behind as a zombie.
        self.child.wait().ok();
    }
}

// === impl Process ===

impl Process {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGSTOP: the program hangs, its connections stay open.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// SIGCONT: it goes on as if nothing had happened.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// SIGTERM: it is asked to stop.
    ///
    /// # Errors
    /// When it has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal("-TERM")
    }

    // The standard library can only kill, and a call into libc would need unsafe code.
    fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status().context("cannot run kill")?;
        ensure!(status.success(), "kill {signal} {} failed", self.id());
        Ok(())
    }
}

impl Drop for Process {
    /// SIGKILL, like a crash: nothing here needs to say goodbye, and a paused program cannot.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The last lines of a log, for failure texts.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let text = read_log(log);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A whole log; empty where there is none yet.
pub(super) fn read_log(log: &Path) -> String {
    std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The log file of a component.
pub(super) fn log_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(watchdog: &Watchdog, folder: &Path) -> Process {
        watchdog.spawn(Path::new("/bin/sleep"), &vec!["1000".to_owned()].into(), &folder.join("log")).unwrap()
    }

    #[test]
    fn the_watchdog_ends_even_paused_processes_and_removes_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let watchdog = Watchdog::start(folder.path()).unwrap();
        let (mut running, mut paused) = (sleeper(&watchdog, folder.path()), sleeper(&watchdog, folder.path()));
        paused.pause().unwrap();
        assert!(running.exited().unwrap().is_none() && paused.exited().unwrap().is_none());
        drop(watchdog);
        for process in [&mut running, &mut paused] {
            assert!(!process.child.wait().unwrap().success());
        }
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let watchdog = Watchdog::start(folder.path()).unwrap();
        let process = sleeper(&watchdog, folder.path());
        let id = process.id().to_string();
        drop(process);
        assert!(!Command::new("kill").args(["-0", &id]).stderr(Stdio::null()).status().unwrap().success());
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = log_path(folder.path(), "etcd");
        assert_eq!(tail(&log, 2), "");
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
    }
}
