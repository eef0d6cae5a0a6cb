//! Access decided by Cedar policies, in place of the rules that larder stores: a place is an entity below the place that
//! it lies in, so that a policy about a directory is one about all that is below it.
//!
//! Run it with `cargo run -p larder-example-cedar`. It is not built with the rest: Cedar is large.

use std::collections::HashSet;
use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{
    Authorizer as Engine, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, Request,
};
use larder::{AccessDecision, AccessRequest, Authorizer, Options};

const POLICIES: &str = r#"
    @id("own drawer")
    permit(principal, action, resource in Place::"users/ana") when { principal == User::"ana" };

    @id("cooks read the menus")
    permit(principal in Group::"cooks", action in [Action::"read", Action::"list"], resource in Place::"menus");

    @id("nobody touches the safe")
    forbid(principal, action, resource in Place::"users/ana/safe");
"#;

/// Asks Cedar. Everything that it needs is in memory: a decision does no input or output.
struct Cedar {
    policies: PolicySet,
    engine: Engine,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

fn entity(kind: &str, id: &str) -> Fallible<EntityUid> {
    Ok(EntityUid::from_type_name_and_id(EntityTypeName::from_str(kind)?, EntityId::new(id)))
}

impl Cedar {
    fn new(policies: &str) -> Fallible<Self> {
        Ok(Self { policies: PolicySet::from_str(policies)?, engine: Engine::new() })
    }

    fn ask(&self, request: &AccessRequest<'_>) -> Fallible<AccessDecision> {
        let user = entity("User", request.principal.name())?;
        let groups = request
            .principal
            .groups()
            .map(|group| entity("Group", group))
            .collect::<Fallible<HashSet<_>>>()?;
        let mut entities = vec![Entity::new_no_attrs(user.clone(), groups)];
        // The place, the one that it lies in, and so on up to the root.
        let mut place = request.place;
        loop {
            let parent =
                place.rsplit_once('/').map(|(parent, _)| parent).or((!place.is_empty()).then_some(""));
            let parents = parent.map(|parent| entity("Place", parent)).transpose()?;
            entities.push(Entity::new_no_attrs(entity("Place", place)?, parents.into_iter().collect()));
            match parent {
                Some(parent) => place = parent,
                None => break,
            }
        }
        let action = entity("Action", &request.right.to_string())?;
        let asked = Request::new(user, action, entity("Place", request.place)?, Context::empty(), None)?;
        let answer =
            self.engine.is_authorized(&asked, &self.policies, &Entities::from_entities(entities, None)?);
        let names: Vec<&str> = answer
            .diagnostics()
            .reason()
            .filter_map(|policy| self.policies.annotation(policy, "id"))
            .collect();
        let by = if names.is_empty() { "no policy permits it".to_owned() } else { names.join(", ") };
        // A policy that fails is skipped by Cedar. It might have been one that forbids.
        let is_sound = answer.diagnostics().errors().next().is_none();
        Ok(AccessDecision { allowed: is_sound && answer.decision() == Decision::Allow, by })
    }
}

impl Authorizer for Cedar {
    fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision {
        // What cannot be asked is not allowed.
        self.ask(request).unwrap_or_else(|error| AccessDecision { allowed: false, by: error.to_string() })
    }
}

fn main() -> Fallible<()> {
    let larder = Options::new().authorizer(Arc::new(Cedar::new(POLICIES)?)).open_in_memory()?;
    let ana = larder.session("ana")?;
    ana.put("users/ana/notes/friday.txt", "too much salt")?;
    larder.root()?.put("menus/friday.txt", "leek soup")?; // no rule applies to the holder of the file

    let cook = larder.session("bob")?.in_groups(["cooks"])?;
    println!("the cook reads {:?}", cook.get("menus/friday.txt")?.bytes()?);
    for refused in [
        cook.put("menus/friday.txt", "salt").map(drop),
        cook.put("users/ana/notes/friday.txt", "x").map(drop),
        ana.put("users/ana/safe/key.txt", "x").map(drop),
    ] {
        println!("{}", refused.expect_err("a refusal"));
    }
    for (_, entry) in larder.root()?.audit(0, 10)? {
        println!("audit: {} may not {} {} (by {})", entry.principal, entry.right, entry.place, entry.by);
    }
    larder.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s0_7_policies_decide_and_are_named() {
        let larder =
            Options::new().authorizer(Arc::new(Cedar::new(POLICIES).unwrap())).open_in_memory().unwrap();
        let ana = larder.session("ana").unwrap();
        let bob = larder.session("bob").unwrap();
        ana.put("users/ana/a", "x").unwrap();
        assert!(ana.get("users/ana/a").is_ok() && bob.get("users/ana/a").is_err());
        let refused = ana.put("users/ana/safe/a", "x").unwrap_err();
        assert!(refused.to_string().contains("nobody touches the safe"), "{refused}");
        let refused = bob.put("elsewhere", "x").unwrap_err();
        assert!(refused.to_string().contains("no policy permits it"), "{refused}");
        let cook = bob.in_groups(["cooks"]).unwrap();
        larder.root().unwrap().put("menus/a", "x").unwrap();
        assert_eq!(cook.list("menus").unwrap().len(), 1);
        assert!(cook.delete("menus/a").is_err());
    }
}
