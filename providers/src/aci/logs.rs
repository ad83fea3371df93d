//! Output of containers.
//!
//! Azure gives all of it as one text, at most 4 MB of a container that runs, and cannot follow. So it is read again and again,
//! and what was there before is taken off. The lines are asked for with their times: that makes each of them unlike any other,
//! so that the overlap is exact even when the beginning has been dropped meanwhile.

use std::sync::Arc;
use std::time::Duration;

use policy::Timestamp;

use super::settings::Pace;
use crate::LogQuery;

/// What has come of one container's output, and what was passed on.
#[derive(Debug)]
pub(super) struct Follower {
    /// The whole text as it was read last.
    text: String,
    /// What is wanted of it; `follow` is false after the container has ended.
    query: LogQuery,
    /// Bytes that may still be passed on.
    left: u64,
    pause: Duration,
    pace: Pace,
    first: bool,
}

// === impl Follower ===

impl Follower {
    /// Has seen nothing yet.
    pub(super) fn new(query: LogQuery, pace: Pace) -> Follower {
        let left = query.limit_bytes.unwrap_or(u64::MAX);
        Follower { text: String::new(), query, left, pause: pace.shortest, pace, first: true }
    }

    /// Takes the whole text in and gives out what is new of it, as the query wants it.
    pub(super) fn take(&mut self, text: String) -> Vec<u8> {
        // A line that has no end yet will come again, longer.
        let complete = if self.query.follow { text.rfind('\n').map_or(0, |end| end + 1) } else { text.len() };
        let text = {
            let mut text = text;
            text.truncate(complete);
            text
        };
        let fresh = &text[overlap(&self.text, &text)..];
        let mut lines: Vec<&str> = fresh.split_inclusive('\n').filter(|line| self.wanted(line)).collect();
        if std::mem::take(&mut self.first)
            && let Some(tail) = self.query.tail_lines
        {
            let skipped = lines.len().saturating_sub(tail as usize);
            lines.drain(..skipped);
        }
        let mut bytes: Vec<u8> = Vec::new();
        for line in lines {
            bytes.extend_from_slice(if self.query.timestamps { line } else { dated(line).1 }.as_bytes());
        }
        bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= bytes.len() as u64;
        self.pause = if bytes.is_empty() { (self.pause * 2).min(self.pace.longest) } else { self.pace.shortest };
        // A text that became empty was not read properly; the next one will tell.
        if !text.is_empty() {
            self.text = text;
        }
        bytes
    }

    /// Whether nothing more is wanted, or nothing more will come.
    pub(super) fn over(&self) -> bool {
        self.left == 0 || !self.query.follow
    }

    /// Whose output it is.
    pub(super) fn container(&self) -> Arc<str> {
        self.query.container.clone()
    }

    /// How long to wait before the next reading.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// The container has ended: also a last line without an end is to be had.
    pub(super) fn finish(&mut self) {
        self.query.follow = false;
    }

    /// Lines without a date belong to those before them, and Azure may have none: they are not held back.
    fn wanted(&self, line: &str) -> bool {
        self.query.since.is_none_or(|since| dated(line).0.is_none_or(|time| time >= since))
    }
}

/// How many of the first bytes of `after` were the last of `before`.
///
/// The ordinary case is that all of it still stands at the beginning. Otherwise the beginning has been dropped, and the longest
/// end of `before` that `after` begins with is looked for (Knuth, Morris and Pratt: linear in both).
fn overlap(before: &str, after: &str) -> usize {
    if after.starts_with(before) {
        return before.len();
    }
    let (text, pattern) = (before.as_bytes(), after.as_bytes());
    // For each beginning of the pattern, the length of its longest proper beginning that is also its end.
    let mut borders = vec![0_u32; pattern.len()];
    let step = |mut matched: usize, byte: u8, borders: &[u32]| {
        while matched > 0 && (matched == pattern.len() || pattern[matched] != byte) {
            matched = borders[matched - 1] as usize;
        }
        if pattern.get(matched) == Some(&byte) { matched + 1 } else { matched }
    };
    for place in 1..pattern.len() {
        let matched = step(borders[place - 1] as usize, pattern[place], &borders);
        borders[place] = u32::try_from(matched).unwrap_or(0);
    }
    let matched = text.iter().fold(0, |matched, byte| step(matched, *byte, &borders));
    // Never into the middle of a letter: the text would not be one.
    (0..=matched).rev().find(|end| after.is_char_boundary(*end)).unwrap_or(0)
}

/// The time that a line begins with, and the rest of it.
fn dated(line: &str) -> (Option<Timestamp>, &str) {
    let Some((date, rest)) = line.split_once(' ') else { return (None, line) };
    match date.parse::<jiff::Timestamp>() {
        Ok(time) => (Some(Timestamp::from_millis(time.as_millisecond())), rest),
        Err(_) => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { shortest: Duration::from_secs(2), longest: Duration::from_secs(15) };

    fn follower() -> Follower {
        Follower::new(LogQuery { follow: true, ..LogQuery::all("main") }, PACE)
    }

    fn line(second: u32, text: &str) -> String {
        format!("2026-11-21T10:00:{second:02}.123456789Z {text}\n")
    }

    fn taken(follower: &mut Follower, text: &str) -> String {
        String::from_utf8(follower.take(text.to_owned())).expect("text")
    }

    #[test]
    fn only_what_is_new_is_passed_on_without_its_time() {
        let mut follower = follower();
        assert_eq!(taken(&mut follower, &line(1, "a")), "a\n");
        assert_eq!(taken(&mut follower, &line(1, "a")), "");
        assert_eq!(taken(&mut follower, &(line(1, "a") + &line(2, "a"))), "a\n");
    }

    #[test]
    fn a_dropped_beginning_repeats_nothing() {
        let mut follower = follower();
        let lines: Vec<String> = (0..6).map(|second| line(second, "tick")).collect();
        assert_eq!(taken(&mut follower, &lines[..3].concat()), "tick\n".repeat(3));
        assert_eq!(taken(&mut follower, &lines[1..5].concat()), "tick\n".repeat(2));
        assert_eq!(taken(&mut follower, &lines[5..].concat()), "tick\n", "nothing of the old is left");
    }

    #[test]
    fn a_line_is_passed_on_when_it_is_whole_or_the_container_has_ended() {
        let mut follower = follower();
        let cut = line(1, "half");
        assert_eq!(taken(&mut follower, &cut[..cut.len() - 3]), "");
        assert_eq!(taken(&mut follower, &(cut.clone() + "2026-11-21T10:00:02Z last")), "half\n");
        follower.finish();
        assert_eq!(taken(&mut follower, &(cut + "2026-11-21T10:00:02Z last")), "last");
    }

    #[test]
    fn silence_makes_the_pauses_longer_and_a_line_makes_them_short_again() {
        let mut follower = follower();
        let seconds: Vec<u64> = (0..5).map(|_| (follower.take(String::new()), follower.pause().as_secs()).1).collect();
        assert_eq!(seconds, [4, 8, 15, 15, 15]);
        follower.take(line(1, "a"));
        assert_eq!(follower.pause(), PACE.shortest);
    }

    #[test]
    fn tail_since_times_and_limit() {
        let text = (1..5).map(|second| line(second, &format!("line {second}"))).collect::<String>();
        let all = LogQuery::all("main");
        let answer = |query: LogQuery| taken(&mut Follower::new(query, PACE), &text);
        assert_eq!(answer(LogQuery { tail_lines: Some(2), ..all.clone() }), "line 3\nline 4\n");
        assert_eq!(answer(LogQuery { timestamps: true, tail_lines: Some(1), ..all.clone() }), line(4, "line 4"));
        assert_eq!(answer(LogQuery { limit_bytes: Some(8), ..all.clone() }), "line 1\nl");
        let since: jiff::Timestamp = "2026-11-21T10:00:04Z".parse().expect("a time");
        let since = Some(Timestamp::from_millis(since.as_millisecond()));
        assert_eq!(answer(LogQuery { since, ..all.clone() }), "line 4\n");
        assert_eq!(taken(&mut Follower::new(all, PACE), "no time here\n"), "no time here\n");
    }

    proptest! {
        #[test]
        fn a_window_that_moves_over_a_log_gives_every_line_once(
            steps in proptest::collection::vec((0_usize..5, 0_usize..3), 1..20),
        ) {
            let lines: Vec<String> = (0..200).map(|n| line(n % 60, &format!("{}", n / 60 % 2))).collect();
            let (mut from, mut to) = (0, 1);
            let mut follower = follower();
            let mut out = taken(&mut follower, &lines[from..to].concat());
            for (more, dropped) in steps {
                // Never drops what has not been read yet.
                from = (from + dropped).min(to - 1);
                to += more;
                out.push_str(&taken(&mut follower, &lines[from..to].concat()));
            }
            let all: String = lines[..to].iter().map(|line| dated(line).1).collect();
            prop_assert_eq!(out, all);
        }
    }
}
