//! Random lives against a plain model: what expires with what, who holds which claim, what may be served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use larder::format::ContentHash;
use larder::{AbsentReason, Draft, Error, Larder, ManualClock, Miss, Options, Session, Status};
use larder_tests::{FaultyDisk, Plan, verified};
use proptest::prelude::*;

const KEYS: [&str; 8] = ["a", "b", "c", "d/e", "d/f", "d/f/g", "h", "i"];
const TEXTS: [&str; 4] = ["leek", "salt", "soup", "pie"];
const GROUP_LIMIT: usize = 2;
const START: i64 = 1_000_000;

#[derive(Debug, Clone, PartialEq)]
struct Item {
    text: &'static str,
    status: Status,
    expires: i64,
    /// What it was made from, and the text that this had.
    made_from: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    fence: u64,
    until: i64,
    in_group: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    now: i64,
    items: BTreeMap<&'static str, Item>,
    claims: BTreeMap<&'static str, Held>,
    orphans: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
enum Op {
    Put {
        key: usize,
        text: usize,
        ready: bool,
        made_from: Vec<usize>,
        expires: Option<i64>,
    },
    Expire(usize),
    Delete(usize),
    DeleteTree(usize),
    Rename(usize, usize),
    Claim {
        key: usize,
        for_micros: u64,
        in_group: bool,
    },
    /// Stores in the name of the claim that was made on the key last.
    PutClaimed {
        key: usize,
        text: usize,
    },
    Release(usize),
    Cancel(usize),
    Advance(i64),
    Sweep(usize),
    Reopen,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS.len();
    prop_oneof![
        8 => (key(), 0..TEXTS.len(), prop::bool::weighted(0.8), prop::collection::vec(key(), 0..3),
              prop::option::weighted(0.4, 0i64..4_000))
            .prop_map(|(key, text, ready, made_from, expires)| Op::Put { key, text, ready, made_from, expires }),
        1 => key().prop_map(Op::Expire),
        2 => key().prop_map(Op::Delete),
        1 => key().prop_map(Op::DeleteTree),
        1 => (key(), key()).prop_map(|(from, to)| Op::Rename(from, to)),
        4 => (key(), 1u64..3_000, any::<bool>())
            .prop_map(|(key, for_micros, in_group)| Op::Claim { key, for_micros, in_group }),
        3 => (key(), 0..TEXTS.len()).prop_map(|(key, text)| Op::PutClaimed { key, text }),
        1 => key().prop_map(Op::Release),
        1 => key().prop_map(Op::Cancel),
        3 => (1i64..2_000).prop_map(Op::Advance),
        2 => (1usize..4).prop_map(Op::Sweep),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

fn is_below(key: &str, place: &str) -> bool {
    key == place || key.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    fn dependents(&self, of: &str) -> Vec<&'static str> {
        self.items.iter().filter(|(_, item)| item.made_from.contains_key(of)).map(|(key, _)| *key).collect()
    }

    /// Whatever was made from a key expires, but for those who saw what is there now.
    fn cascade(&mut self, origin: &str, now_has: Option<&str>) {
        for key in self.dependents(origin) {
            let Some(item) = self.items.get_mut(key) else { continue };
            let saw = item.made_from[origin];
            if item.status == Status::Ready && now_has != Some(saw) {
                item.status = Status::Expired;
                self.cascade(key, None);
            }
        }
    }

    fn leads_to(&self, from: &str, to: &str) -> bool {
        from == to
            || self.items.get(from).is_some_and(|item| item.made_from.keys().any(|on| self.leads_to(on, to)))
    }

    fn revoke(&mut self, key: &str) {
        if let Some(held) = self.claims.remove(key) {
            self.orphans.insert(held.fence);
        }
    }

    fn put(&mut self, key: &'static str, item: Item) {
        let old = self.items.get(key).map(|old| old.text);
        if old.is_some_and(|old| old != item.text) {
            self.cascade(key, Some(item.text));
        }
        self.items.insert(key, item);
    }

    fn remove(&mut self, key: &str) {
        if self.items.contains_key(key) {
            self.cascade(key, None);
            self.items.remove(key);
            self.revoke(key);
        }
    }

    fn deadline(item: &Item) -> Option<i64> {
        (item.status == Status::Ready && item.expires != i64::MAX).then_some(item.expires)
    }

    /// All that is due, in order: time, then expiry before claims, then key.
    fn due(&self) -> Vec<(i64, bool, &'static str)> {
        let expiries = self.items.iter().filter_map(|(key, item)| Some((Self::deadline(item)?, false, *key)));
        let claims = self.claims.iter().map(|(key, held)| (held.until, true, *key));
        let mut due: Vec<_> = expiries.chain(claims).filter(|(at, _, _)| *at <= self.now).collect();
        due.sort_by_key(|(at, is_claim, key)| (*at, *is_claim, key.replace('/', "\0")));
        due
    }

    fn miss(&self, item: &Item) -> Option<&'static str> {
        if item.status == Status::Expired {
            return Some("expired");
        }
        if !item.status.properties().is_loadable {
            return Some("status");
        }
        if item.expires <= self.now {
            return Some("expired");
        }
        let is_as_seen = |(on, saw): (&&str, &&str)| self.items.get(on).is_some_and(|item| item.text == *saw);
        (!item.made_from.iter().all(is_as_seen)).then_some("stale")
    }
}

fn name(miss: &Miss) -> &'static str {
    match miss {
        Miss::Expired => "expired",
        Miss::Status(_) => "status",
        Miss::Stale { .. } => "stale",
        _ => "another",
    }
}

/// The store and the model, side by side.
struct Pair {
    disk: FaultyDisk,
    clock: Arc<ManualClock>,
    larder: Option<Larder>,
    session: Session,
    model: Model,
    last_fence: BTreeMap<usize, u64>,
}

fn open(disk: &FaultyDisk, clock: &Arc<ManualClock>) -> (Larder, Session) {
    let options = Options::new()
        .inline()
        .log_segment_bytes(512 << 10)
        .cache_bytes(4 << 20)
        .clock(Arc::clone(clock) as _);
    let larder = disk.open(options, true).unwrap();
    let session = larder.session("ana").unwrap();
    (larder, session)
}

impl Pair {
    fn new() -> Self {
        let (disk, clock) = (FaultyDisk::default(), Arc::new(ManualClock::at(START)));
        let (larder, session) = open(&disk, &clock);
        let model = Model { now: START, ..Model::default() };
        Self { disk, clock, larder: Some(larder), session, model, last_fence: BTreeMap::new() }
    }

    fn larder(&self) -> &Larder {
        self.larder.as_ref().unwrap()
    }

    fn run(&mut self, op: &Op) {
        let kind = |error: Error| error.kind().name();
        match op {
            Op::Put { key, text, ready, made_from, expires } => {
                let (key, text) = (KEYS[*key], TEXTS[*text]);
                let status = if *ready { Status::Ready } else { Status::Source };
                let expires = expires.map_or(i64::MAX, |after| self.model.now + after);
                let draft = Draft::from(text).status(status.clone()).with(|about| {
                    made_from.iter().fold(about.expires(expires), |about, on| about.depends_on(KEYS[*on]))
                });
                let done = self.session.put(key, draft).map(drop).map_err(kind);
                let on: Vec<_> = made_from.iter().map(|on| KEYS[*on]).collect();
                let refused = on.iter().find_map(|on| {
                    if *on == key {
                        return Some("DependencyCycle");
                    }
                    (!self.model.items.contains_key(on)).then_some("NotFound")
                });
                let is_cycle = || on.iter().any(|on| self.model.leads_to(on, key));
                let refused = refused.or_else(|| is_cycle().then_some("DependencyCycle"));
                assert_eq!(done.err(), refused, "{op:?}");
                if refused.is_none() {
                    let made_from = on.iter().map(|on| (*on, self.model.items[on].text)).collect();
                    self.model.put(key, Item { text, status, expires, made_from });
                    self.model.revoke(key);
                }
            }
            Op::Expire(key) => {
                let key = KEYS[*key];
                let done = self.session.expire(key).map(|receipt| receipt.value).map_err(kind);
                let expected = match self.model.items.get(key).map(|item| item.status.clone()) {
                    None => Err("NotFound"),
                    Some(Status::Ready) => Ok(true),
                    Some(Status::Expired) => Ok(false),
                    Some(_) => Err("NotExpirable"),
                };
                assert_eq!(done, expected);
                if expected == Ok(true) {
                    self.model.items.get_mut(key).unwrap().status = Status::Expired;
                    self.model.cascade(key, None);
                }
            }
            Op::Delete(key) => {
                let key = KEYS[*key];
                assert_eq!(self.session.delete(key).unwrap().value, self.model.items.contains_key(key));
                self.model.remove(key);
            }
            Op::DeleteTree(key) => {
                let place = KEYS[*key];
                let below = |key: &&'static str| is_below(key, place);
                let keys: Vec<_> = self.model.items.keys().copied().filter(below).collect();
                assert_eq!(self.session.delete_tree(place).unwrap().value, keys.len() as u64);
                if !keys.is_empty() {
                    // All of it goes at once.
                    let gone: Vec<_> = keys.iter().map(|key| (*key, self.model.items[key].clone())).collect();
                    gone.iter().for_each(|(key, _)| self.model.cascade(key, None));
                    gone.iter().for_each(|(key, _)| drop(self.model.items.remove(key)));
                    let claimed: Vec<_> = self.model.claims.keys().copied().filter(below).collect();
                    claimed.iter().for_each(|key| self.model.revoke(key));
                }
            }
            Op::Rename(from, to) => {
                let (from, to) = (KEYS[*from], KEYS[*to]);
                let done = self.session.rename(from, to).map(drop).map_err(kind);
                let expected = match (self.model.items.get(from), self.model.items.get(to)) {
                    (None, _) => Err("NotFound"),
                    _ if from == to => Ok(()),
                    (Some(_), Some(_)) => Err("AlreadyExists"),
                    (Some(_), None) => Ok(()),
                };
                assert_eq!(done, expected, "{op:?}");
                if expected.is_ok() && from != to {
                    let item = self.model.items[from].clone();
                    self.model.put(to, item);
                    self.model.revoke(to);
                    self.model.remove(from);
                }
            }
            Op::Claim { key, for_micros, in_group } => {
                let (at, key) = (*key, KEYS[*key]);
                let request = self.session.claim(key);
                let request = if *in_group { request.in_group("oven", GROUP_LIMIT as u64) } else { request };
                let done = request.for_at_most(Duration::from_micros(*for_micros));
                let now = self.model.now;
                let is_live = |held: &Held| held.until > now;
                let others = self
                    .model
                    .claims
                    .iter()
                    .filter(|(other, held)| **other != key && held.in_group && is_live(held));
                let expected = if self.model.claims.get(key).is_some_and(is_live) {
                    Some("Claimed")
                } else if *in_group && others.count() >= GROUP_LIMIT {
                    Some("GroupFull")
                } else {
                    None
                };
                assert_eq!(done.as_ref().err().map(|error| error.kind().name()), expected, "{op:?}");
                if let Ok(claim) = done {
                    let fence = claim.detach();
                    assert!(self.last_fence.values().all(|other| *other < fence), "never used before");
                    self.last_fence.insert(at, fence);
                    let members =
                        self.model.claims.iter().filter(|(other, held)| **other != key && held.in_group);
                    let (live, mut late): (Vec<_>, Vec<_>) = members
                        .map(|(other, held)| (held.until, *other))
                        .partition(|(until, _)| *until > now);
                    late.sort_unstable();
                    let too_many = (live.len() + late.len() + 1).saturating_sub(GROUP_LIMIT);
                    for (_, other) in late.into_iter().take(if *in_group { too_many } else { 0 }) {
                        self.model.revoke(other);
                    }
                    self.model.revoke(key);
                    let until = now + i64::try_from(*for_micros).unwrap();
                    self.model.claims.insert(key, Held { fence, until, in_group: *in_group });
                }
            }
            Op::PutClaimed { key, text } => {
                let Some(fence) = self.last_fence.get(key).copied() else { return };
                let (key, text) = (KEYS[*key], TEXTS[*text]);
                let claim = self.session.resume_claim(key, fence).unwrap();
                let outcome = claim.put(Draft::from(text).status(Status::Ready)).unwrap();
                let holds = self.model.claims.get(key).is_some_and(|held| held.fence == fence);
                assert_eq!(outcome.is_fenced(), !holds, "{op:?}");
                self.model.orphans.remove(&fence);
                if holds {
                    let item =
                        Item { text, status: Status::Ready, expires: i64::MAX, made_from: BTreeMap::new() };
                    self.model.put(key, item);
                    self.model.claims.remove(key);
                }
            }
            Op::Release(key) => {
                let Some(fence) = self.last_fence.get(key).copied() else { return };
                let key = KEYS[*key];
                let held = self.session.resume_claim(key, fence).unwrap().release().unwrap();
                let holds = self.model.claims.get(key).is_some_and(|held| held.fence == fence);
                assert_eq!(held, holds);
                self.model.orphans.remove(&fence);
                if holds {
                    self.model.claims.remove(key);
                }
            }
            Op::Cancel(key) => {
                let key = KEYS[*key];
                let outcome = self.session.cancel(key).unwrap().value;
                let is_claimed = self.model.claims.contains_key(key);
                let expected = match self.model.items.get(key) {
                    _ if is_claimed => larder::CancelOutcome::Cancelled,
                    Some(item) => larder::CancelOutcome::NotCancellable(item.status.clone()),
                    None => larder::CancelOutcome::NotFound,
                };
                assert_eq!(outcome, expected);
                self.model.revoke(key);
            }
            Op::Advance(micros) => {
                self.clock.advance(*micros);
                self.model.now += micros;
            }
            Op::Sweep(limit) => {
                let due: Vec<_> = self.model.due().into_iter().take(*limit).collect();
                let found: Vec<_> = self.larder().due(self.model.now, *limit).unwrap();
                let found: Vec<_> = found.iter().map(|due| (due.at, due.key.to_string())).collect();
                let expected: Vec<_> = due.iter().map(|(at, _, key)| (*at, (*key).to_owned())).collect();
                assert_eq!(found, expected);
                let mut fired = 0;
                let report = self.larder().sweep(*limit).unwrap();
                for (at, is_claim, key) in due {
                    if is_claim {
                        self.model.revoke(key);
                        fired += 1;
                    } else if Model::deadline(&self.model.items[key]) == Some(at) {
                        self.model.items.get_mut(key).unwrap().status = Status::Expired;
                        self.model.cascade(key, None);
                        fired += 1;
                    }
                }
                assert_eq!(report.total(), fired, "what expired with another is not counted");
            }
            Op::Reopen => {
                self.larder.take().unwrap().close().unwrap();
                self.disk = FaultyDisk::holding(self.disk.current(), Plan::default());
                let (larder, session) = open(&self.disk, &self.clock);
                (self.larder, self.session) = (Some(larder), session);
            }
            Op::Crash => {
                // What the store did in its own name may not be on disk yet.
                self.larder().flush().unwrap();
                let image = self.disk.durable();
                self.larder = None;
                self.disk = FaultyDisk::holding(image, Plan::default());
                let (larder, session) = open(&self.disk, &self.clock);
                (self.larder, self.session) = (Some(larder), session);
            }
        }
    }

    fn compare(&self) {
        let view = self.session.snapshot().unwrap();
        for key in KEYS {
            let Some(item) = self.model.items.get(key) else {
                assert!(!view.exists(key).unwrap(), "{key}");
                continue;
            };
            let record = view.record(key).unwrap();
            let found = (record.status(), record.expires(), view.get(key).unwrap().bytes().unwrap());
            assert_eq!(found, (item.status.clone(), item.expires, item.text.into()), "{key}");
            let made_from: BTreeMap<String, u128> = record
                .dependencies()
                .into_iter()
                .map(|dependency| (dependency.on.to_string(), dependency.version))
                .collect();
            let version = |text: &str| ContentHash::of(text.as_bytes()).version();
            let expected: BTreeMap<String, u128> =
                item.made_from.iter().map(|(on, text)| ((*on).to_owned(), version(text))).collect();
            assert_eq!(made_from, expected, "{key}");
            // From the view, and from the cache.
            let lookups = [view.get_loadable(key).unwrap(), self.session.get_loadable(key).unwrap()];
            for lookup in lookups {
                assert_eq!(lookup.miss().map(name), self.model.miss(item), "{key}");
            }
        }
        let claims: BTreeMap<String, (u64, i64, bool)> = view
            .claims("")
            .unwrap()
            .into_iter()
            .map(|claim| (claim.key.to_string(), (claim.fence, claim.until, claim.group.is_some())))
            .collect();
        let expected: BTreeMap<String, (u64, i64, bool)> = self
            .model
            .claims
            .iter()
            .map(|(key, held)| ((*key).to_owned(), (held.fence, held.until, held.in_group)))
            .collect();
        assert_eq!(claims, expected);
        let orphans: BTreeSet<u64> = view.orphans().unwrap().iter().map(|orphan| orphan.fence).collect();
        assert_eq!(orphans, self.model.orphans);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn x_1_a_life_is_what_the_model_says(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.run(op);
            pair.compare();
        }
        verified(pair.larder());
    }
}

#[test]
fn a_recipe_is_not_a_hit_and_says_so() {
    let pair = Pair::new();
    let recipe = Draft::absent(AbsentReason::NeverProduced).status(Status::Recipe);
    pair.session.put("a", recipe).unwrap();
    assert_eq!(pair.session.get_loadable("a").unwrap().miss(), Some(&Miss::Status(Status::Recipe)));
}
