use super::*;
use proptest::prelude::*;

const LIMIT: i64 = 1000;

fn cents(nanos: i64) -> Money {
    Money::from_nanos(nanos)
}

fn budget(name: &str, limit: i64, start: i64) -> Budget {
    Budget {
        name: Arc::from(name),
        scope: Scope::default(),
        limit: cents(limit),
        when_exceeded: WhenExceeded::DedicatedOnly,
        start: Timestamp::from_millis(start),
        end: Timestamp::from_millis(start + 1000),
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.set_budget(budget("b", LIMIT, 0));
    ledger.authorize("b", cents(LIMIT));
    ledger
}

fn uid(number: usize) -> Arc<str> {
    Arc::from(format!("uid-{number}"))
}

fn reserve(ledger: &mut Ledger, number: usize, amount: i64) -> Result<Vec<Arc<str>>, Shortfall> {
    ledger.reserve(&uid(number), "p", &Labels::default(), cents(amount))
}

fn balance(ledger: &Ledger) -> Balance {
    *ledger.books().account("b").expect("the test's budget").1
}

#[test]
fn the_limit_is_hard_to_the_last_nano() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 999).expect("fits");
    assert_eq!(reserve(&mut ledger, 2, 2), Err(Shortfall::Limit { budget: Arc::from("b"), missing: cents(1) }));
    reserve(&mut ledger, 3, 1).expect("the last nano fits");
    assert!(reserve(&mut ledger, 4, 1).is_err());
}

#[test]
fn nothing_is_spent_beyond_what_was_written_down() {
    let mut ledger = Ledger::default();
    ledger.set_budget(budget("b", LIMIT, 0));
    assert_eq!(reserve(&mut ledger, 1, 10), Err(Shortfall::Authorization { budget: Arc::from("b"), missing: cents(10) }));
    ledger.authorize("b", cents(15));
    reserve(&mut ledger, 1, 10).expect("authorized");
    assert!(reserve(&mut ledger, 2, 10).is_err());
}

#[test]
fn all_budgets_agree_or_none_is_charged() {
    let mut ledger = ledger();
    ledger.set_budget(budget("small", 5, 0));
    ledger.authorize("small", cents(5));
    assert!(matches!(reserve(&mut ledger, 1, 10), Err(Shortfall::Limit { budget, .. }) if &*budget == "small"));
    assert_eq!(balance(&ledger).total(), Money::ZERO);
}

#[test]
fn a_budget_that_only_warns_refuses_nothing_but_is_counted() {
    let mut ledger = Ledger::default();
    ledger.set_budget(Budget { when_exceeded: WhenExceeded::Warn, ..budget("b", 5, 0) });
    ledger.authorize("b", cents(100));
    reserve(&mut ledger, 1, 50).expect("only warns");
    assert_eq!(balance(&ledger).reserved, cents(50));
}

#[test]
fn settlement_replaces_the_quote_by_the_bill() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 100).expect("fits");
    ledger.commit("uid-1");
    ledger.adjust("uid-1", cents(70));
    assert_eq!(balance(&ledger).committed, cents(70));
    ledger.retire("uid-1");
    assert_eq!((balance(&ledger).committed, balance(&ledger).spent), (Money::ZERO, cents(70)));
    ledger.retire("uid-1");
    assert_eq!(balance(&ledger).spent, cents(70), "a pod is retired once");
}

#[test]
fn a_successor_counts_what_it_cannot_find_as_spent() {
    let mut ledger = Ledger::default();
    ledger.set_budget(budget("b", LIMIT, 0));
    ledger.recover(&uid(1), &[Arc::from("b")], cents(30), Timestamp::from_millis(5));
    ledger.take_over("b", cents(100), Money::ZERO, cents(200));
    let balance = balance(&ledger);
    assert_eq!((balance.spent, balance.unaccounted, balance.committed), (cents(170), cents(70), cents(30)));
    assert_eq!(balance.total(), cents(200));
}

#[test]
fn a_new_period_starts_empty_but_overruns_are_charged_to_it() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 100).expect("fits");
    ledger.commit("uid-1");
    ledger.set_budget(budget("b", LIMIT, 1000));
    assert_eq!(balance(&ledger).total(), Money::ZERO);
    ledger.adjust("uid-1", cents(130));
    assert_eq!(balance(&ledger).committed, cents(30));
    ledger.recover(&uid(2), &[Arc::from("b")], cents(50), Timestamp::from_millis(900));
    assert_eq!(balance(&ledger).committed, cents(30), "committed in the last period");
}

#[test]
fn scope_is_by_policy_and_namespace() {
    let team: Labels = [("team", "media")].into_iter().collect();
    let selector = Selector { requirements: vec![crate::selector::Requirement::equals("team", "media")] };
    let scope = Scope { namespace_selector: Some(selector), policies: vec![Arc::from("p")] };
    assert!(scope.covers("p", &team));
    assert!(!scope.covers("q", &team));
    assert!(!scope.covers("p", &Labels::default()));
}

#[test]
fn a_budget_that_nobody_can_read_pays_for_nothing_that_it_may_cover() {
    let mut ledger = ledger();
    let scope = Scope { namespace_selector: None, policies: vec![Arc::from("p")] };
    ledger.set_unusable(&Arc::from("b"), Scope::default());
    reserve(&mut ledger, 1, 10).expect("it has an account, which goes on");
    ledger.set_unusable(&Arc::from("unread"), scope);
    assert_eq!(reserve(&mut ledger, 2, 10), Err(Shortfall::Unusable { budget: Arc::from("unread") }));
    assert_eq!(ledger.books().affords("q", &Labels::default(), cents(10)), Ok(()));
    ledger.remove_budget("unread");
    reserve(&mut ledger, 2, 10).expect("gone");
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(usize, i64),
    Commit(usize),
    Release(usize),
    Settle(usize, i64),
    Retire(usize),
    Authorize(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pod = 0..12_usize;
    let step = prop_oneof![
        (pod.clone(), 0..400_i64).prop_map(|(pod, amount)| Step::Reserve(pod, amount)),
        pod.clone().prop_map(Step::Commit),
        pod.clone().prop_map(Step::Release),
        (pod.clone(), 0..100_i64).prop_map(|(pod, percent)| Step::Settle(pod, percent)),
        pod.prop_map(Step::Retire),
        (0..=LIMIT).prop_map(Step::Authorize),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever order the answers come in: never above the limit, and every nano is in exactly one place.
    #[test]
    fn never_exceeds_its_limit_and_conserves_money(steps in steps()) {
        let mut ledger = ledger();
        let mut open: HashMap<usize, (i64, bool)> = HashMap::new();
        let mut gone = 0_i64;
        for step in steps {
            match step {
                Step::Reserve(pod, amount) if !open.contains_key(&pod) => {
                    if reserve(&mut ledger, pod, amount).is_ok() {
                        open.insert(pod, (amount, false));
                    }
                }
                Step::Commit(pod) => {
                    ledger.commit(&uid(pod));
                    if let Some(entry) = open.get_mut(&pod) { entry.1 = true; }
                }
                Step::Release(pod) if open.get(&pod).is_some_and(|entry| !entry.1) => {
                    ledger.release(&uid(pod));
                    open.remove(&pod);
                }
                Step::Settle(pod, percent) if open.get(&pod).is_some_and(|entry| entry.1) => {
                    let amount = open[&pod].0 * percent / 100;
                    ledger.adjust(&uid(pod), cents(amount));
                    open.insert(pod, (amount, true));
                }
                Step::Retire(pod) if open.get(&pod).is_some_and(|entry| entry.1) => {
                    ledger.retire(&uid(pod));
                    gone += open.remove(&pod).map_or(0, |entry| entry.0);
                }
                Step::Authorize(amount) => ledger.authorize("b", cents(amount)),
                Step::Reserve(..) | Step::Release(_) | Step::Settle(..) | Step::Retire(_) => {}
            }
            let balance = balance(&ledger);
            prop_assert!(balance.total() <= cents(LIMIT), "{balance:?}");
            prop_assert!(balance.total() <= balance.authorized, "{balance:?}");
            let expected: i64 = open.values().map(|entry| entry.0).sum::<i64>() + gone;
            prop_assert_eq!(balance.total(), cents(expected));
            prop_assert_eq!(ledger.check(), Ok(()));
        }
    }
}
