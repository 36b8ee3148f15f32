//! What changes from one config to the next, key by key, and what of it can be
//! put into force while packets flow.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Config;

/// When a change comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// At once, without losing a packet or a binding.
    Live,
    /// When the daemon starts again.
    Restart,
}

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Where: `home_agent[ha].max_lifetime`. Sections in a list are named by what
    /// they are known by.
    pub path: String,
    /// What it was; `null`: it was not there. A key's change shows as the text
    /// `(hidden)` on both sides.
    pub old: Value,
    /// What it is; `null`: it is gone.
    pub new: Value,
    /// When it comes into force.
    pub effect: Effect,
}

/// All that differs between two configs, ordered by path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigDiff {
    /// The keys that differ.
    pub changes: Vec<Change>,
}

impl ConfigDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes that need a restart.
    pub fn needing_restart(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.effect == Effect::Restart)
    }
}

/// What changes from `old` to `new`.
pub fn diff(old: &Config, new: &Config) -> ConfigDiff {
    let (before, after) = (leaves(old), leaves(new));
    let mut changes = Vec::new();
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            changes.push(Change {
                path: path.clone(),
                old: old.cloned().unwrap_or_default(),
                new: new.cloned().unwrap_or_default(),
                effect: effect(path),
            });
        }
    }
    for (path, key) in &new.keys {
        if old.keys.get(path).is_some_and(|before| before != key) {
            changes.push(Change {
                path: format!("{path}.key"),
                old: HIDDEN.into(),
                new: HIDDEN.into(),
                effect: Effect::Live,
            });
        }
    }
    // Of a million nodes, how many changed.
    let has_file = |config: &Config, name: &str| {
        let mut sections = config.file.home_agent.iter();
        sections.any(|section| section.name.0 == *name && section.subscribers.is_some())
    };
    for agent in &new.home_agents {
        if !has_file(old, &agent.name) && !has_file(new, &agent.name) {
            continue;
        }
        let mut before = old.home_agents.iter();
        let Some(before) = before.find(|before| before.name == agent.name) else { continue };
        let (new, old) = (&agent.config.security, &before.config.security);
        let (added, removed, changed) = new.mobile_node_changes(old);
        if added + removed + changed > 0 {
            let (was, is) = (old.mobile_node_count(), new.mobile_node_count());
            changes.push(Change {
                path: format!("home_agent[{}].nodes", agent.name),
                old: format!("{was} associations").into(),
                new: format!(
                    "{is} associations: {added} added, {removed} removed, {changed} changed"
                )
                .into(),
                effect: Effect::Live,
            });
        }
    }
    // Ports and NAPTs are numbered by their place in the file, and tables and state
    // go by the number.
    for (section, mut before, mut after) in
        [("port", port_names(old), port_names(new)), ("napt", napt_names(old), napt_names(new))]
    {
        if before != after {
            let (old, new) = (Value::from(before.clone()), Value::from(after.clone()));
            before.sort();
            after.sort();
            if before == after {
                changes.push(Change { path: section.into(), old, new, effect: Effect::Restart });
            }
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    ConfigDiff { changes }
}

fn port_names(config: &Config) -> Vec<String> {
    config.ports.iter().map(|port| port.name.clone()).collect()
}

fn napt_names(config: &Config) -> Vec<String> {
    config.napts.iter().map(|napt| napt.name.clone()).collect()
}

const HIDDEN: &str = "(hidden)";

fn effect(path: &str) -> Effect {
    let section = path.split(['.', '[']).next().unwrap_or(path);
    match section {
        // Sockets, logs, rings, buffers and devices are made once, at the start.
        "daemon" | "dataplane" | "port" | "napt" => Effect::Restart,
        _ => Effect::Live,
    }
}

/// Every key of a config by its path, defaults included.
fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    flatten(String::new(), &config.to_json(), &mut leaves);
    leaves
}

fn flatten(path: String, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                flatten(format!("{path}{dot}{key}"), value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                flatten(format!("{path}[{}]", identity(item)), item, leaves);
            }
        }
        leaf => {
            leaves.insert(path, leaf.clone());
        }
    }
}

/// What a section in a list is known by.
fn identity(section: &Value) -> String {
    let text = |key: &str| match section.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(spi) = text("spi") {
        let peer = ["nai", "mobile_node", "foreign_agent", "home_agent"].into_iter().find_map(text);
        return format!("{} {spi}", peer.unwrap_or_default());
    }
    ["name", "destination", "prefix", "home_address", "port"]
        .into_iter()
        .find_map(text)
        .unwrap_or_default()
}
