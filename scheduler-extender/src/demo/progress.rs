//! What one sees while it runs: one line that changes on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use policy::Timestamp;

use super::run::Sample;
use super::summary::duration;

/// Where there is no terminal, a line for so much virtual time.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Writes to standard error, so that the result can be piped.
pub(super) struct Progress {
    started: Timestamp,
    names: Vec<String>,
    currency: String,
    is_terminal: bool,
    next_line: Timestamp,
    width: usize,
    begun: Instant,
    speed: Option<u32>,
}

// === impl Progress ===

impl Progress {
    /// `names` are those of the virtual nodes, in the order of the samples.
    pub(super) fn new(started: Timestamp, names: Vec<String>, currency: &str, speed: Option<u32>) -> Progress {
        Progress {
            started,
            names,
            currency: currency.to_owned(),
            is_terminal: std::io::stderr().is_terminal(),
            next_line: started,
            width: 0,
            begun: Instant::now(),
            speed,
        }
    }

    /// Shows a sample, at its time if a speed was asked for.
    pub(super) fn show(&mut self, sample: &Sample) {
        if let Some(speed) = self.speed {
            let due = sample.at.since(self.started) / speed.max(1);
            std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
        }
        if !self.is_terminal && sample.at < self.next_line {
            return;
        }
        self.next_line = sample.at + LINE_EVERY;
        let line = self.line(sample);
        let mut out = std::io::stderr().lock();
        // Nobody is there to be told that nobody is there.
        if self.is_terminal {
            write!(out, "\r{line:<width$}", width = self.width).and_then(|()| out.flush()).ok();
            self.width = line.chars().count();
        } else {
            writeln!(out, "{line}").ok();
        }
    }

    /// Leaves the line.
    pub(super) fn end(&mut self) {
        if self.is_terminal && self.width > 0 {
            writeln!(std::io::stderr()).ok();
        }
    }

    fn line(&self, sample: &Sample) -> String {
        let mut parts = vec![format!("{:>7}", duration(sample.at.since(self.started))), format!("waiting {:>3}", sample.waiting)];
        let names = std::iter::once("dedicated").chain(self.names.iter().map(String::as_str));
        parts.extend(names.zip(&sample.placed).map(|(name, pods)| format!("{name} {pods:>3}")));
        parts.push(format!("done {:>3}", sample.done));
        parts.push(format!("{} {}", sample.committed.display_decimals(2), self.currency));
        parts.join("  ")
    }
}
