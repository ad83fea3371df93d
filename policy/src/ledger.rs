//! What may still be spent: one account per budget, one entry per commitment.
//!
//! Money moves in one direction: `reserve` → `commit` → `adjust` while the pod runs → `retire` when it is gone. A reservation
//! that comes to nothing is `release`d. At every moment, for every account,
//!
//! ```text
//! spent + committed + reserved  <=  authorized  <=  limit
//! ```
//!
//! `authorized` is what the leader has *written down* that it may reach (`BurstBudget.status.authorized`). A successor that
//! finds less than that in the pods counts the rest as spent, so that two leaders can never spend the same money.
//! Two things may push a total above its limit, and neither is a commitment: an admin who lowers the limit, and a pod that
//! runs longer than it was quoted for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::selector::{Labels, Selector};
use crate::{Money, Timestamp};

/// The accounts of all budgets and the entries of all commitments.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    books: Books,
    entries: HashMap<Arc<str>, Entry, foldhash::fast::RandomState>,
}

/// The accounts alone: all that a decision needs to know of a [`Ledger`], small enough to be copied into every snapshot.
#[derive(Clone, Debug, Default)]
pub struct Books {
    accounts: BTreeMap<Arc<str>, Account>,
    /// Budgets that nobody can read: what they may cover is not paid for.
    unusable: BTreeMap<Arc<str>, Scope>,
}

/// What a budget pays for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Namespaces it covers; `None` covers all.
    pub namespace_selector: Option<Selector>,
    /// Policies it covers; empty covers all.
    pub policies: Vec<Arc<str>>,
}

/// A `BurstBudget` of the current period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Name of the object.
    pub name: Arc<str>,
    /// What it pays for.
    pub scope: Scope,
    /// What may be spent in a period.
    pub limit: Money,
    /// Whether the limit holds or is only watched.
    pub when_exceeded: WhenExceeded,
    /// Start of the current period.
    pub start: Timestamp,
    /// End of the current period, exclusive.
    pub end: Timestamp,
}

/// What happens at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenExceeded {
    /// Nothing more bursts; pods wait for dedicated nodes.
    DedicatedOnly,
    /// It is reported, nothing else.
    Warn,
}

/// What an account holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Settled: pods that are gone, and what nobody can account for.
    pub spent: Money,
    /// The part of `spent` that no pod explains.
    pub unaccounted: Money,
    /// Commitments of pods that exist.
    pub committed: Money,
    /// Reservations whose Binding has not been answered.
    pub reserved: Money,
    /// What the total may reach without writing it down anew.
    pub authorized: Money,
}

/// Why a reservation is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// The budget's limit would be exceeded by this much.
    Limit {
        /// Name of the budget.
        budget: Arc<str>,
        /// What is missing.
        missing: Money,
    },
    /// The limit allows it, but the authorization written so far does not: write a larger one, then try again.
    Authorization {
        /// Name of the budget.
        budget: Arc<str>,
        /// What is missing.
        missing: Money,
    },
    /// Nobody can read the budget, so nothing is paid from it.
    Unusable {
        /// Name of the budget.
        budget: Arc<str>,
    },
}

#[derive(Clone, Debug)]
struct Account {
    budget: Budget,
    balance: Balance,
}

#[derive(Clone, Debug)]
struct Entry {
    amount: Money,
    committed: bool,
    /// The accounts that the entry is charged to, and how much of it earlier periods have already paid.
    charges: Vec<(Arc<str>, Money)>,
}

// === impl Balance ===

impl Balance {
    /// Everything that counts against the limit.
    pub fn total(&self) -> Money {
        self.spent.saturating_add(self.committed).saturating_add(self.reserved)
    }
}

// === impl Scope ===

impl Scope {
    /// Whether a pod of this policy in a namespace with these labels is charged to this budget.
    pub fn covers(&self, policy: &str, namespace: &Labels) -> bool {
        (self.policies.is_empty() || self.policies.iter().any(|name| **name == *policy))
            && self.namespace_selector.as_ref().is_none_or(|selector| selector.matches(namespace))
    }
}

// === impl Entry ===

impl Entry {
    /// What the entry costs an account in its current period.
    fn charge(&self, paid: Money) -> Money {
        self.amount.saturating_sub(paid).max(Money::ZERO)
    }
}

// === impl Books ===

impl Books {
    /// The names of the budgets that a pod of this policy in such a namespace is charged to.
    pub fn covering<'a>(&'a self, policy: &'a str, namespace: &'a Labels) -> impl Iterator<Item = &'a Arc<str>> {
        self.accounts
            .values()
            .filter(move |account| account.budget.scope.covers(policy, namespace))
            .map(|account| &account.budget.name)
    }

    /// Whether `amount` could be reserved now, for everybody that it would be charged to. A limit that is in the way is told
    /// before an authorization that is merely not written yet.
    pub fn affords(&self, policy: &str, namespace: &Labels, amount: Money) -> Result<(), Shortfall> {
        let unusable = self.unusable.iter().find(|(_, scope)| scope.covers(policy, namespace));
        if let Some((budget, _)) = unusable {
            return Err(Shortfall::Unusable { budget: budget.clone() });
        }
        let covering = || self.accounts.values().filter(|account| account.budget.scope.covers(policy, namespace));
        covering().try_for_each(|account| account.within_limit(amount))?;
        covering().try_for_each(|account| account.within_authorization(amount))
    }

    /// Budgets and their balances, by name.
    pub fn accounts(&self) -> impl Iterator<Item = (&Budget, &Balance)> {
        self.accounts.values().map(|account| (&account.budget, &account.balance))
    }

    /// One budget and its balance.
    pub fn account(&self, name: &str) -> Option<(&Budget, &Balance)> {
        self.accounts.get(name).map(|account| (&account.budget, &account.balance))
    }
}

// === impl Ledger ===

impl Ledger {
    /// What decisions may know of it.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Opens an account, or changes its terms; a new period starts from zero, with what runs carried over as paid.
    pub fn set_budget(&mut self, budget: Budget) {
        let name = budget.name.clone();
        self.books.unusable.remove(&name);
        match self.books.accounts.get_mut(&name) {
            None => {
                self.books.accounts.insert(name, Account { budget, balance: Balance::default() });
            }
            Some(account) if account.budget.start == budget.start => account.budget = budget,
            Some(account) => {
                account.budget = budget;
                account.balance = Balance::default();
                self.carry_over(&name);
            }
        }
        self.assert_conserved();
    }

    /// A budget that nobody can read: it caps what it may cover at nothing, until it can be read. One that has an account goes
    /// on as it was.
    pub fn set_unusable(&mut self, name: &Arc<str>, scope: Scope) {
        if !self.books.accounts.contains_key(name) {
            self.books.unusable.insert(name.clone(), scope);
        }
    }

    /// Closes an account; its entries go on in the others.
    pub fn remove_budget(&mut self, name: &str) {
        self.books.unusable.remove(name);
        self.books.accounts.remove(name);
        for entry in self.entries.values_mut() {
            entry.charges.retain(|(account, _)| **account != *name);
        }
    }

    /// Takes over what a predecessor wrote for the current period. Call it once, when every pod that exists is entered.
    ///
    /// What was authorized but is found neither in `spent` nor in a pod counts as spent: the predecessor may have committed it.
    pub fn take_over(&mut self, name: &str, spent: Money, unaccounted: Money, authorized: Money) {
        let Some(account) = self.books.accounts.get_mut(name) else { return };
        let balance = &mut account.balance;
        balance.spent = balance.spent.saturating_add(spent);
        balance.unaccounted = balance.unaccounted.saturating_add(unaccounted);
        let missing = authorized.saturating_sub(balance.total()).max(Money::ZERO);
        balance.spent = balance.spent.saturating_add(missing);
        balance.unaccounted = balance.unaccounted.saturating_add(missing);
        balance.authorized = authorized.max(balance.total());
        self.assert_conserved();
    }

    /// Shows what another keeper has written, for those who only look: commitments are those of the pods that are entered.
    pub fn copy(&mut self, name: &str, spent: Money, unaccounted: Money, authorized: Money) {
        let Some(account) = self.books.accounts.get_mut(name) else { return };
        let balance = &mut account.balance;
        (balance.spent, balance.unaccounted) = (spent, unaccounted);
        balance.authorized = authorized.max(balance.total());
        self.assert_conserved();
    }

    /// What the leader may reach from now on. Lower it *before* writing a smaller value, raise it *after* writing a larger one.
    pub fn authorize(&mut self, name: &str, authorized: Money) {
        if let Some(account) = self.books.accounts.get_mut(name) {
            account.balance.authorized = authorized.max(account.balance.total());
        }
    }

    /// Sets `amount` aside for a pod in every budget that covers it, or in none of them.
    pub fn reserve(
        &mut self,
        uid: &Arc<str>,
        policy: &str,
        namespace: &Labels,
        amount: Money,
    ) -> Result<Vec<Arc<str>>, Shortfall> {
        debug_assert!(amount >= Money::ZERO, "a reservation cannot earn money");
        debug_assert!(!self.entries.contains_key(uid), "a pod is reserved for once");
        self.books.affords(policy, namespace, amount)?;
        let budgets: Vec<Arc<str>> = self.books.covering(policy, namespace).cloned().collect();
        self.enter(uid, budgets.iter().map(|name| (name.clone(), Money::ZERO)).collect(), amount, false);
        Ok(budgets)
    }

    /// The Binding exists: the reservation has become a commitment.
    pub fn commit(&mut self, uid: &str) {
        let Some(mut entry) = self.entries.remove_entry(uid) else { return };
        if !entry.1.committed {
            self.charge(&entry.1, -1);
            entry.1.committed = true;
            self.charge(&entry.1, 1);
        }
        self.entries.insert(entry.0, entry.1);
        self.assert_conserved();
    }

    /// The Binding does not exist: the money is free again.
    pub fn release(&mut self, uid: &str) {
        if let Some(entry) = self.entries.remove(uid) {
            debug_assert!(!entry.committed, "a commitment is retired, not released");
            self.charge(&entry, -1);
        }
        self.assert_conserved();
    }

    /// Enters a commitment that was found in a pod, made at `committed_at` and charged to these budgets.
    pub fn recover(&mut self, uid: &Arc<str>, budgets: &[Arc<str>], amount: Money, committed_at: Timestamp) {
        if self.entries.contains_key(uid) {
            return;
        }
        let charges = budgets
            .iter()
            .filter_map(|name| self.books.accounts.get(name))
            .map(|account| {
                // What an earlier period has committed is not committed again.
                let paid = if committed_at < account.budget.start { amount } else { Money::ZERO };
                (account.budget.name.clone(), paid)
            })
            .collect();
        self.enter(uid, charges, amount, true);
    }

    /// A commitment that was missing when the books were taken over has shown up: it is entered, so it is unaccounted no more.
    pub fn explain(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else { return };
        for (name, paid) in &entry.charges {
            if let Some(account) = self.books.accounts.get_mut(name) {
                let balance = &mut account.balance;
                let explained = balance.unaccounted.min(entry.charge(*paid));
                balance.unaccounted = balance.unaccounted.saturating_sub(explained);
                balance.spent = balance.spent.saturating_sub(explained);
                balance.authorized = balance.authorized.saturating_sub(explained).max(balance.total());
            }
        }
        self.assert_conserved();
    }

    /// A budget that a pod is charged to has come back: what is entered for the pod counts in it again.
    pub fn charge_also(&mut self, uid: &str, name: &Arc<str>, committed_at: Timestamp) {
        let Some(start) = self.books.account(name).map(|(budget, _)| budget.start) else { return };
        let Some(mut entry) = self.entries.remove_entry(uid) else { return };
        if entry.1.charges.iter().all(|(charged, _)| charged != name) {
            self.charge(&entry.1, -1);
            let paid = if committed_at < start { entry.1.amount } else { Money::ZERO };
            entry.1.charges.push((name.clone(), paid));
            self.charge(&entry.1, 1);
        }
        self.entries.insert(entry.0, entry.1);
        self.assert_conserved();
    }

    /// What the pod costs is known better: it has run longer than quoted, or it has ended.
    pub fn adjust(&mut self, uid: &str, amount: Money) {
        let Some(mut entry) = self.entries.remove_entry(uid) else { return };
        self.charge(&entry.1, -1);
        entry.1.amount = amount;
        self.charge(&entry.1, 1);
        self.entries.insert(entry.0, entry.1);
        self.assert_conserved();
    }

    /// The pod is gone: what it cost is spent.
    pub fn retire(&mut self, uid: &str) {
        let Some(entry) = self.entries.remove(uid) else { return };
        self.charge(&entry, -1);
        for (name, paid) in &entry.charges {
            if let Some(account) = self.books.accounts.get_mut(name) {
                account.balance.spent = account.balance.spent.saturating_add(entry.charge(*paid));
            }
        }
        self.assert_conserved();
    }

    /// What is entered for a pod.
    pub fn amount(&self, uid: &str) -> Option<Money> {
        self.entries.get(uid).map(|entry| entry.amount)
    }

    fn enter(&mut self, uid: &Arc<str>, charges: Vec<(Arc<str>, Money)>, amount: Money, committed: bool) {
        let entry = Entry { amount, committed, charges };
        self.charge(&entry, 1);
        self.entries.insert(uid.clone(), entry);
        self.assert_conserved();
    }

    /// Books an entry in (`+1`) or out (`-1`) of its accounts.
    fn charge(&mut self, entry: &Entry, sign: i64) {
        for (name, paid) in &entry.charges {
            let Some(account) = self.books.accounts.get_mut(name) else { continue };
            let side = if entry.committed { &mut account.balance.committed } else { &mut account.balance.reserved };
            let charge = entry.charge(*paid);
            *side = if sign > 0 { side.saturating_add(charge) } else { side.saturating_sub(charge) };
            let total = account.balance.total();
            // A pod that outlives its quote costs what it costs; the authorization follows so that it stays an upper bound.
            account.balance.authorized = account.balance.authorized.max(total);
        }
    }

    /// A new period of `name` has begun: what its entries have cost so far was paid by the last one.
    fn carry_over(&mut self, name: &str) {
        let mut reserved = Money::ZERO;
        for entry in self.entries.values_mut() {
            let amount = entry.amount;
            for (account, paid) in &mut entry.charges {
                if **account == *name {
                    if entry.committed {
                        *paid = amount;
                    } else {
                        *paid = Money::ZERO;
                        reserved = reserved.saturating_add(amount);
                    }
                }
            }
        }
        if let Some(account) = self.books.accounts.get_mut(name) {
            account.balance.reserved = reserved;
            account.balance.authorized = reserved;
        }
    }

    /// The books agree with the entries: what this module exists for, checked wherever debug assertions are on.
    fn assert_conserved(&self) {
        #[cfg(debug_assertions)]
        {
            // Checking every entry after every step would make a fan-out quadratic.
            if self.entries.len() <= 64 {
                self.check().expect("entries and balances agree");
            }
        }
    }

    /// Whether the balances are exactly the sums of the entries and within their authorization.
    pub fn check(&self) -> Result<(), String> {
        for (name, account) in &self.books.accounts {
            let sum = |committed: bool| -> Money {
                let entries = self.entries.values().filter(|entry| entry.committed == committed);
                entries
                    .flat_map(|entry| {
                        entry.charges.iter().filter(|(charged, _)| charged == name).map(|(_, paid)| entry.charge(*paid))
                    })
                    .sum()
            };
            let balance = &account.balance;
            if sum(true) != balance.committed || sum(false) != balance.reserved {
                return Err(format!("budget {name}: entries say {} + {}, books say {balance:?}", sum(true), sum(false)));
            }
            if balance.total() > balance.authorized {
                return Err(format!("budget {name}: total {} above authorization {}", balance.total(), balance.authorized));
            }
        }
        Ok(())
    }
}

// === impl Account ===

impl Account {
    fn within_limit(&self, amount: Money) -> Result<(), Shortfall> {
        let total = self.balance.total().saturating_add(amount);
        if self.budget.when_exceeded == WhenExceeded::DedicatedOnly && total > self.budget.limit {
            let budget = self.budget.name.clone();
            return Err(Shortfall::Limit { budget, missing: total.saturating_sub(self.budget.limit) });
        }
        Ok(())
    }

    fn within_authorization(&self, amount: Money) -> Result<(), Shortfall> {
        let total = self.balance.total().saturating_add(amount);
        if total > self.balance.authorized {
            let budget = self.budget.name.clone();
            return Err(Shortfall::Authorization { budget, missing: total.saturating_sub(self.balance.authorized) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
