//! What the components cost, from /proc: for measurements and for waiting until the dust has settled.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::waiting::wait_until;
use super::{Component, ControlPlane};

/// The kernel counts CPU time for /proc in hundredths of a second on every architecture that Rust servers run on.
const TICKS_PER_SECOND: u32 = 100;

/// A component at work shows more than this within [`WINDOW`]; one that only keeps its watches alive shows less.
const IDLE_CPU_MAX: Duration = Duration::from_millis(150);
const WINDOW: Duration = Duration::from_secs(1);

impl ControlPlane {
    /// CPU time that a component has used since it was started. Linux only.
    ///
    /// # Errors
    /// When it does not run.
    pub fn cpu_time(&self, component: Component) -> Result<Duration> {
        let stat = self.proc_file(component, "stat")?;
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| -> Result<u32> { Ok(fields.get(index).context("short /proc/<id>/stat")?.parse()?) };
        Ok(Duration::from_secs(1) * (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
    }

    /// Memory that a component occupies now. Linux only.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_bytes(&self, component: Component) -> Result<u64> {
        let status = self.proc_file(component, "status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc/<id>/status")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    /// Waits until the control plane has nothing to do: after thousands of nodes were made, controllers go on writing to
    /// each of them for the better part of a minute, which spoils what is measured meanwhile. Linux only.
    ///
    /// # Errors
    /// When the time is over.
    pub async fn wait_until_idle(&self, timeout: Duration) -> Result<()> {
        let total = || -> Result<Duration> { self.running().into_iter().map(|component| self.cpu_time(component)).sum() };
        wait_until("an idle control plane", timeout, async || {
            let before = total()?;
            tokio::time::sleep(WINDOW).await;
            let used = total()?.saturating_sub(before);
            ensure!(used <= IDLE_CPU_MAX, "{:.2} s of CPU in {:.0} s", used.as_secs_f64(), WINDOW.as_secs_f64());
            Ok(())
        })
        .await
    }

    fn proc_file(&self, component: Component, file: &str) -> Result<String> {
        let process = self.process_id(component).with_context(|| format!("{} does not run", component.name()))?;
        Ok(std::fs::read_to_string(format!("/proc/{process}/{file}"))?)
    }
}
