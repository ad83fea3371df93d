//! What a cloud in memory is like.

use std::time::Duration;

use policy::virtual_node::{Limits, Prices, Provider};
use policy::{Rate, Timestamp};

use crate::{CallLimit, PodUid};

/// The character of a backend.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cloud that it plays.
    pub provider: Provider,
    /// How long pods take to start.
    pub start: StartLatency,
    /// How many pods it accepts per second.
    pub creates: CallLimit,
    /// How much may run at once.
    pub quota: Limits,
    /// What it charges.
    pub prices: Prices,
}

/// Time from acceptance to running: fixed parts, the image pull and some luck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartLatency {
    /// Placement and network, before the image pull; not billed.
    pub before_pull: Duration,
    /// Image pull speed in bytes per second; zero is "no time at all".
    pub pull_bytes_per_second: u64,
    /// From the end of the pull to running containers.
    pub after_pull: Duration,
    /// Spread around the sum in percent, a fixed draw for each pod UID.
    pub spread_percent: u32,
}

/// A pod whose request says nothing about its image pulls this much.
const IMAGE_BYTES_DEFAULT: u64 = 200_000_000;
/// What the neutral cloud charges.
const FREE: Prices =
    Prices { vcpu: Rate::FREE, gb: Rate::FREE, ephemeral_gb: Rate::FREE, minimum: Duration::ZERO, as_of: Timestamp::EPOCH };
const MIB: u64 = 1 << 20;

// === impl Settings ===

impl Settings {
    /// AWS Fargate as published start times describe it: slow to place, fast to pull.
    pub fn fargate(prices: Prices) -> Settings {
        Settings {
            provider: Provider::Fargate,
            start: StartLatency {
                before_pull: Duration::from_secs(28),
                pull_bytes_per_second: 58 * MIB,
                after_pull: Duration::from_secs(10),
                spread_percent: 15,
            },
            creates: CallLimit::per_second(20, 100),
            quota: Limits::default(),
            prices,
        }
    }

    /// Azure Container Instances without a virtual network.
    pub fn container_instances(prices: Prices) -> Settings {
        Settings {
            provider: Provider::Aci,
            start: StartLatency {
                before_pull: Duration::from_secs(20),
                pull_bytes_per_second: 15 * MIB,
                after_pull: Duration::from_secs(5),
                spread_percent: 30,
            },
            creates: CallLimit::per_second(10, 50),
            quota: Limits::default(),
            prices,
        }
    }

    /// A Nomad cluster of one's own, with the image cached on most clients.
    pub fn nomad(prices: Prices) -> Settings {
        Settings {
            provider: Provider::Nomad,
            start: StartLatency {
                before_pull: Duration::from_secs(1),
                pull_bytes_per_second: 100 * MIB,
                after_pull: Duration::from_secs(1),
                spread_percent: 25,
            },
            creates: CallLimit::per_second(100, 100),
            quota: Limits::default(),
            prices,
        }
    }

    /// The backend that starts pods at once and never says no; the neutral ground of tests.
    pub fn immediate() -> Settings {
        Settings {
            provider: Provider::InMemory,
            start: StartLatency {
                before_pull: Duration::ZERO,
                pull_bytes_per_second: 0,
                after_pull: Duration::ZERO,
                spread_percent: 0,
            },
            creates: CallLimit::per_second(u32::MAX, u32::MAX),
            quota: Limits::default(),
            prices: FREE,
        }
    }
}

// === impl StartLatency ===

impl StartLatency {
    /// When the pull of a pod accepted at `accepted` begins, and when its containers run.
    pub(super) fn schedule(&self, uid: &PodUid, image_bytes: Option<u64>, accepted: Timestamp) -> (Timestamp, Timestamp) {
        let bytes = image_bytes.unwrap_or(IMAGE_BYTES_DEFAULT);
        let pull_millis = bytes.saturating_mul(1000).checked_div(self.pull_bytes_per_second).unwrap_or(0);
        let percent = self.percent(uid);
        let stretched = |duration: Duration| duration * percent / 100;
        let pull_at = accepted + stretched(self.before_pull);
        (pull_at, pull_at + stretched(Duration::from_millis(pull_millis) + self.after_pull))
    }

    /// Between 100 − spread and 100 + spread, by the UID alone, so that a repeated run repeats it.
    fn percent(&self, uid: &PodUid) -> u32 {
        let spread = self.spread_percent.min(90);
        // FNV-1a: a fixed function of the text, unlike std's hashers.
        let hash = uid
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let draw = u32::try_from((hash >> 32) % u64::from(2 * spread + 1)).unwrap_or(0);
        100 - spread + draw
    }
}
