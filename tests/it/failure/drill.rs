//! Spillway killed, hung or cut off from the API server at a random instant of a fan-out.
//!
//! Whatever happens: dedicated nodes fill up as without Spillway (over the brim where kube-scheduler has lost an answer), no pod is
//! lost or moved, and in the end the money, the pods and what is marked as unaccounted agree exactly. `make drill` runs many seeds,
//! `make test` a few.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use policy::Money;
use serde_json::json;
use tokio::time::sleep;
use world::control_plane::{Component, wait_until};

use crate::relay::{Line, Relay};
use crate::scenario::replicas::TAKEOVER;
use crate::scenario::{Extender, NAMESPACE, PATIENCE, Places, Scenario, dedicated_first, record};

/// Pods of the Job.
const PODS: usize = 300;
/// Of which fit on dedicated nodes.
const ROOM: usize = 50;

/// What happens in the middle.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// `kill -9`, and a new process once the dedicated nodes are full.
    Killed,
    /// SIGSTOP, and SIGCONT once the dedicated nodes are full.
    Hung,
    /// The API server is killed and started again: answers are lost, watches end and cannot be resumed (410).
    CutOff,
    /// For a while every answer is lost on its way, of Bindings that exist, too, and so is every event.
    Swallowed,
}

#[tokio::test]
async fn killed_in_the_middle() {
    run(&[Disturbance::Killed], 2).await;
}

#[tokio::test]
async fn hung_or_cut_off_in_the_middle() {
    run(&[Disturbance::Hung, Disturbance::CutOff, Disturbance::Swallowed], 1).await;
}

/// Of two replicas the one that leads is killed, again and again.
#[tokio::test]
async fn the_leader_killed_in_the_middle() {
    let rounds = number("SPILLWAY_DRILL_ROUNDS").unwrap_or(1);
    let scenario = stage().await;
    let mut leader = scenario.replica("replica-a").await;
    scenario.led_by(&leader, PATIENCE).await;
    let first = seed();
    for (seed, name) in (first..first + rounds).zip(["replica-b", "replica-a"].into_iter().cycle()) {
        println!("leader killed, SPILLWAY_DRILL_SEED={seed}");
        let standby = scenario.replica(name).await;
        let round = Round::new(&scenario, Disturbance::Killed, seed).await;
        round.job().await;
        round.random_instant().await;
        leader.kill();
        let took = scenario.led_by(&standby, PATIENCE).await;
        println!("takeover: {took:?}");
        assert!(took <= TAKEOVER, "{took:?}\n{}", scenario.log());
        let seen = scenario.places(&round.app).await;
        round.rest(&seen).await;
        round.clean_up().await;
        leader = standby;
    }
}

/// Some rounds of each disturbance on one control plane. `SPILLWAY_DRILL_ROUNDS` asks for more of them, `SPILLWAY_DRILL_SEED`
/// for those that failed.
async fn run(disturbances: &[Disturbance], rounds: u64) {
    let rounds = number("SPILLWAY_DRILL_ROUNDS").unwrap_or(rounds);
    let first = seed();
    let mut scenario = stage().await;
    let api_server = scenario.plane.api_server_url().trim_start_matches("https://").parse().expect("an address");
    let relay = Relay::listen(None, &[api_server]).await;
    scenario.kubeconfig = scenario.service_account_kubeconfig("relayed", Some(relay.address)).await;
    scenario.start().await;
    for seed in first..first + rounds {
        for disturbance in disturbances {
            println!("{disturbance:?}, SPILLWAY_DRILL_SEED={seed}");
            let round = Round::new(&scenario, *disturbance, seed).await;
            round.play(&relay).await;
            round.clean_up().await;
        }
    }
}

async fn stage() -> Scenario {
    let scenario = Scenario::new(Extender::Absent).await;
    scenario.dedicated(10, "5").await;
    scenario.virtual_node("virtual-0", "0.04").await;
    scenario.virtual_node("virtual-1", "0.04").await;
    scenario
}

/// `SPILLWAY_DRILL_SEED`, or another one each time.
pub(super) fn seed() -> u64 {
    number("SPILLWAY_DRILL_SEED").unwrap_or_else(|| jiff::Timestamp::now().as_millisecond().unsigned_abs() % 1_000_000)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"))
}

/// One fan-out with its own policy and budget.
struct Round<'a> {
    scenario: &'a Scenario,
    disturbance: Disturbance,
    random: Random,
    app: String,
    limit: Money,
}

impl<'a> Round<'a> {
    async fn new(scenario: &'a Scenario, disturbance: Disturbance, seed: u64) -> Round<'a> {
        let mut random = Random(seed);
        let app = format!("{disturbance:?}-{seed}").to_lowercase();
        // At 0.04 a pod-hour: for none, some or all of the 250 pods that find no dedicated room.
        let limit: Money = format!("{}.{:02}", random.below(13), random.below(100)).parse().expect("money");
        let budget = json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": "BurstBudget", "metadata": {"name": app},
            "spec": {"amount": limit.to_string(), "currency": "USD", "period": "Month", "scope": {"policies": [app]}},
        });
        scenario.apply(budget).await.expect("a BurstBudget");
        scenario.policy(&app, &app, dedicated_first(&["virtual-0", "virtual-1"]), json!({})).await;
        wait_until("the budget is in force", PATIENCE, async || {
            scenario.budget_status(&app).await.period_start.map(drop).context("no status")
        })
        .await
        .expect("a status");
        Round { scenario, disturbance, random, app, limit }
    }

    async fn play(&self, relay: &Relay) {
        let scenario = self.scenario;
        match self.disturbance {
            Disturbance::Killed => {
                self.job().await;
                self.random_instant().await;
                scenario.kill();
                self.dedicated_full().await;
                scenario.start().await;
            }
            Disturbance::Hung => {
                self.job().await;
                self.random_instant().await;
                scenario.pause();
                self.dedicated_full().await;
                sleep(Duration::from_millis(self.random.clone().below(3000))).await;
                scenario.resume();
            }
            Disturbance::CutOff => {
                tokio::join!(self.pods(), async {
                    self.random_instant().await;
                    scenario.plane.restart_apiserver().await.expect("it comes up again");
                });
                self.dedicated_full().await;
            }
            Disturbance::Swallowed => {
                self.job().await;
                self.random_instant().await;
                relay.set(Line::SWALLOWING);
                sleep(Duration::from_millis(self.random.clone().below(3000))).await;
                relay.set(Line::HEALTHY);
                self.dedicated_full().await;
            }
        }
        let seen = scenario.places(&self.app).await;
        self.rest(&seen).await;
    }

    /// Waits until everything has come to rest, and nothing that was seen has moved.
    async fn rest(&self, seen: &Places) {
        let settled =
            wait_until("everything that is paid for is placed, and the books agree", PATIENCE, async || self.settled().await);
        let places = settled.await.unwrap_or_else(|error| panic!("{:?}: {error:#}\n{}", self, self.scenario.log()));
        self.nothing_moved(seen, &places);
    }

    async fn job(&self) {
        self.scenario.job(&self.app, u32::try_from(PODS).expect("small"), "1", json!({})).await;
    }

    /// The same pods without a Job, whose controller needs up to five minutes to get over answers that it has lost.
    async fn pods(&self) {
        let pods: Api<Pod> = Api::namespaced(self.scenario.client.clone(), NAMESPACE);
        let container = json!({"name": "main", "image": "registry.example/work:1", "resources": {"requests": {"cpu": "1", "memory": "128Mi"}}});
        let (pods, container) = (&pods, &container);
        let make = async |index: usize| {
            let pod = json!({
                "metadata": {"name": format!("{}-{index}", self.app), "labels": {"app": self.app}},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            });
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            wait_until("a pod is made", PATIENCE, async || match pods.create(&PostParams::default(), &pod).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                made => Ok(made.map(drop)?),
            })
            .await
            .expect("made");
        };
        futures::stream::iter(0..PODS).for_each_concurrent(16, make).await;
    }

    /// Some moment of the fan-out: after a time, or when so many pods have burst.
    async fn random_instant(&self) {
        let mut random = self.random.clone();
        if random.below(2) == 0 {
            sleep(Duration::from_millis(random.below(2000))).await;
            return;
        }
        let burst = usize::try_from(random.below(100)).expect("small");
        // A budget may pay for fewer; then it happens when all of them are there.
        let _ = wait_until("some have burst", Duration::from_secs(3), async || {
            let places = self.scenario.places(&self.app).await;
            ensure!(places.virtual_.len() >= burst);
            Ok(())
        })
        .await;
    }

    /// Without Spillway, or without its help, the dedicated nodes fill up. An API server that has just come up may keep
    /// kube-scheduler's Bindings waiting for a minute.
    async fn dedicated_full(&self) {
        let full = wait_until("dedicated nodes full", 3 * PATIENCE, async || {
            let places = self.scenario.places(&self.app).await;
            ensure!(self.room().contains(&places.dedicated.len()), "{:?}", places.counts());
            Ok(())
        });
        full.await.unwrap_or_else(|error| panic!("{self:?}: {error:#}\n{}", self.scenario.log()));
    }

    /// How many pods dedicated nodes hold when they are full. When kube-scheduler loses the answer to a Binding that exists, it
    /// takes the room for free until its watch shows the pod, and may fill it a second time; a kubelet would turn that pod away.
    /// Its log says how often.
    fn room(&self) -> RangeInclusive<usize> {
        let log = self.scenario.plane.log(Component::Scheduler);
        let ours = format!("pod=\"{NAMESPACE}/{}-", self.app);
        let answered = |line: &str| ["not found", "forbidden", "refused"].iter().any(|answer| line.contains(answer));
        let lost = |line: &&str| line.contains(&ours) && line.contains("running Bind plugin") && !answered(line);
        ROOM..=ROOM + log.lines().filter(lost).count()
    }

    /// The state in which everything comes to rest.
    async fn settled(&self) -> anyhow::Result<Places> {
        let places = self.scenario.places(&self.app).await;
        let (dedicated, burst, pending) = places.counts();
        ensure!(dedicated + burst + pending == PODS && self.room().contains(&dedicated), "{:?}", places.counts());
        let status = self.scenario.budget_status(&self.app).await;
        let money = |text: &Option<String>| -> anyhow::Result<Money> {
            text.as_deref().context("no amount")?.parse().map_err(|error| anyhow::anyhow!("{error}"))
        };
        let (spent, reserved, unaccounted) = (money(&status.spent)?, money(&status.reserved)?, money(&status.unaccounted)?);
        let quotes: Vec<Money> = places.virtual_.iter().map(|pod| record(pod).quote).collect();
        let committed: Money = quotes.iter().copied().sum();
        // What is never true, not even for a moment.
        assert!(committed <= self.limit, "{self:?}: {committed} committed");
        assert!(money(&status.authorized)? <= self.limit, "{self:?}: {status:?}");
        assert!(places.virtual_.iter().all(|pod| record(pod).budgets.iter().any(|name| **name == *self.app)));

        ensure!(reserved == committed, "{reserved} in the books, {committed} in pods");
        // Nothing has ended, so what is spent is what a process that died may have spent.
        ensure!(spent == unaccounted, "{spent} spent, {unaccounted} unaccounted");
        ensure!(money(&status.authorized)? == spent.saturating_add(reserved), "more is authorized: {status:?}");
        let left = self.limit.saturating_sub(spent).saturating_sub(reserved);
        let quote: Money = "0.04".parse().expect("money");
        ensure!(quotes.iter().all(|one| *one == quote), "{quotes:?}");
        ensure!(pending == 0 || left < quote, "{pending} wait although {left} is left: {status:?}");
        Ok(places)
    }

    /// No pod was lost, made again or moved.
    fn nothing_moved(&self, before: &Places, after: &Places) {
        let places = |places: &Places| -> BTreeSet<(String, String)> {
            let bound = places.dedicated.iter().chain(&places.virtual_);
            bound.map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), node(pod))).collect()
        };
        let moved: Vec<_> = places(before).difference(&places(after)).cloned().collect();
        assert!(moved.is_empty(), "{self:?}: {moved:?}");
        let running = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Failed");
        assert!(after.dedicated.iter().chain(&after.virtual_).all(running));
    }

    async fn clean_up(&self) {
        let jobs: Api<Job> = Api::namespaced(self.scenario.client.clone(), NAMESPACE);
        let app = ListParams::default().fields(&format!("metadata.name={}", self.app));
        jobs.delete_collection(&DeleteParams::background(), &app).await.expect("the Job, if there is one");
        let pods: Api<Pod> = Api::namespaced(self.scenario.client.clone(), NAMESPACE);
        let app = ListParams::default().labels(&format!("app={}", self.app));
        pods.delete_collection(&DeleteParams::default(), &app).await.expect("the pods");
        wait_until("the pods are gone", PATIENCE, async || {
            let left = self.scenario.plane.pods(NAMESPACE, &format!("app={}", self.app)).await?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await
        .expect("gone");
    }
}

impl std::fmt::Debug for Round<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {}", self.app, self.limit)
    }
}

fn node(pod: &Pod) -> String {
    world::control_plane::place_of(pod).unwrap_or_default().to_owned()
}

/// SplitMix64: a seed gives the same instants on every machine.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
