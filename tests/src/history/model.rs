//! What a store is, as far as a history goes: a map.

use std::collections::BTreeMap;

use larder::EventKind;

use super::{Change, Happened, Only, Step, Told, Version};

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model(pub(super) BTreeMap<String, Version>);

/// What a call does at a place in the order.
pub(super) struct At<'a> {
    /// The number that its commit has, or would have.
    pub(super) commit: u64,
    pub(super) principal: &'a str,
    /// What the feed has to say of it.
    pub(super) happened: &'a mut Vec<Happened>,
}

impl Model {
    /// Does a step, and gives it with what should have come of it.
    pub(super) fn step(&mut self, step: &Step, at: &mut At<'_>) -> Step {
        match step {
            Step::Read(key, _) => Step::Read(key, self.0.get(*key).copied()),
            Step::Walk(place, _) => {
                let found = self.below(place).into_iter().map(|(key, version)| {
                    let Version { generation, commit, .. } = version;
                    (key, generation, commit)
                });
                Step::Walk(place, found.collect())
            }
            Step::Change(change, _) => Step::Change(change.clone(), self.change(change, at)),
        }
    }

    fn below(&self, place: &str) -> Vec<(String, Version)> {
        let is_below = |key: &str| {
            place.is_empty()
                || key.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let all = self.0.iter().filter(|(key, _)| is_below(key));
        all.map(|(key, version)| (key.clone(), *version)).collect()
    }

    fn change(&mut self, change: &Change, at: &mut At<'_>) -> Told {
        let commit = at.commit;
        match *change {
            Change::Put(key, value, only) => {
                let old = self.0.get(key).copied();
                if let Some(refused) = refused(only, old) {
                    return refused;
                }
                let previous = old.map(|old| old.generation);
                let generation = previous.unwrap_or(0) + 1;
                self.0.insert(key.to_owned(), Version { value, generation, commit });
                at.tell(EventKind::Put, key, None, (previous, Some(generation)));
                Told::Stored { generation, previous }
            }
            Change::Delete(key, only) => {
                let old = self.0.get(key).copied();
                if let Some(refused) = refused(only, old) {
                    return refused;
                }
                let Some(old) = self.0.remove(key) else { return Told::NotFound };
                at.tell(EventKind::Deleted, key, None, (Some(old.generation), None));
                Told::Removed(1)
            }
            Change::Rename(from, to, only) => {
                let Some(old) = self.0.get(from).copied() else { return Told::NotFound };
                if self.0.contains_key(to) {
                    return Told::AlreadyExists;
                }
                if let Some(refused) = refused(only, Some(old)) {
                    return refused;
                }
                let generation = old.generation + 1;
                self.0.remove(from);
                self.0.insert(to.to_owned(), Version { generation, commit, ..old });
                at.tell(EventKind::Renamed, to, Some(from), (None, Some(generation)));
                at.tell(EventKind::Deleted, from, None, (Some(old.generation), None));
                Told::Stored { generation, previous: Some(old.generation) }
            }
            Change::DeleteTree(place) => {
                let gone = self.below(place);
                if gone.is_empty() {
                    return Told::NotFound;
                }
                self.0.retain(|key, _| gone.iter().all(|(gone, _)| gone != key));
                at.tell(EventKind::TreeDeleted, place, None, (None, None));
                Told::Removed(gone.len() as u64)
            }
        }
    }
}

impl At<'_> {
    fn tell(
        &mut self,
        kind: EventKind,
        place: &str,
        from: Option<&str>,
        generations: (Option<u64>, Option<u64>),
    ) {
        self.happened.push(Happened {
            commit: self.commit,
            kind,
            place: place.to_owned(),
            from: from.map(str::to_owned),
            old_generation: generations.0,
            new_generation: generations.1,
            principal: self.principal.to_owned(),
        });
    }
}

/// The answer of a condition that does not hold.
fn refused(only: Only, old: Option<Version>) -> Option<Told> {
    let generation = old.map(|old| old.generation);
    let holds = match only {
        Only::Always => true,
        Only::IfAbsent => generation.is_none(),
        Only::IfThere => generation.is_some(),
        Only::IfGeneration(wanted) => generation == Some(wanted),
    };
    (!holds).then_some(Told::Refused(generation))
}
