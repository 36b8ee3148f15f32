//! What was counted: by the dataplane, by the control core and by the agents.

use homeport_dataplane::verdict::{DropReason, PuntReason};

use super::super::EventLoop;
use super::super::agent_counters::agent_counters;
use crate::admin::api::{CounterView, DropView, Plane};
use crate::punted::BadPunt;

impl EventLoop {
    pub(super) fn drop_views(&self) -> Vec<DropView> {
        let packets = self.core.ports.iter().flat_map(|port| {
            DropReason::ALL.iter().map(|reason| DropView {
                plane: Plane::Dataplane,
                port: Some(port.name.clone()),
                tenant: None,
                reason: reason.counter().into(),
                text: reason.text().into(),
                count: port.sum(|stats| stats.dropped(*reason).get()),
            })
        });
        let punts = BadPunt::ALL.iter().map(|reason| DropView {
            plane: Plane::Control,
            port: None,
            tenant: None,
            reason: reason.counter().into(),
            text: reason.text().into(),
            count: self.core.counts.bad_punts.get(reason).copied().unwrap_or(0),
        });
        let messages = self.core.agent.counters().flat_map(|(tenant, counters)| {
            counters.discarded().map(move |(reason, count)| DropView {
                plane: Plane::Control,
                port: None,
                tenant: Some(tenant.0),
                reason: reason.counter().into(),
                text: reason.text().into(),
                count,
            })
        });
        packets.chain(punts).chain(messages).collect()
    }

    pub(super) fn counter_views(&self) -> Vec<CounterView> {
        let mut counters = self.core.events.counters();
        let mut add = |name: &str, value: u64, text: &str| {
            let (name, text) = (name.into(), text.into());
            counters.push(CounterView { name, value, text, ..CounterView::default() });
        };
        let (counts, core) = (&self.counts, &self.core.counts);
        add("kernel_resyncs", self.mirror.resyncs(), "Full dumps of the kernel's routes.");
        add("kernel_errors", counts.kernel_errors, "Requests that the kernel refused.");
        add(
            "resolve_suppressed",
            self.resolver.suppressed(),
            "Next hops not asked for, because too many are.",
        );
        add(
            "resolve_without_twin",
            counts.no_twin,
            "Next hops not asked for, because their port has no kernel twin.",
        );
        add(
            "injects_refused",
            core.injects_refused,
            "Agents' packets lost because the dataplane was behind.",
        );
        add("inject_errors", core.inject_errors, "Agents' packets that could not be made.");
        if let Some(recorder) = &self.core.recorder {
            let journal = recorder.counts();
            add("journal_written", journal.written(), "Inputs that were written to the journal.");
            let lost = "Inputs that the journal lost because the disk was too slow or too full.";
            add("journal_lost", journal.lost(), lost);
        }
        if let Some(store) = &self.core.sessions {
            let lost = "Addresses of sessions that could not be written down: after a restart they may be another's.";
            add("sessions_not_stored", store.lost(), lost);
            let unsynced = "Times that addresses of sessions could not be brought to the disk: after a power failure they may be another's.";
            add("sessions_not_synced", store.unsynced(), unsynced);
        }
        for (table, value) in self.core.installer.full_counts() {
            counters.push(CounterView {
                name: "table_full".into(),
                reason: Some(table.replace(' ', "-")),
                value,
                text: "Entries that found no room in a table at once.".into(),
                ..CounterView::default()
            });
        }
        for (reason, value) in &core.not_served {
            counters.push(CounterView {
                name: "punts_not_served".into(),
                reason: Some(reason.counter().into()),
                value: *value,
                text: "Punted packets that no agent here is interested in.".into(),
                ..CounterView::default()
            });
        }
        for (reason, value) in &core.too_old {
            counters.push(CounterView {
                name: "punts_too_old".into(),
                reason: Some(reason.counter().into()),
                value: *value,
                text: "Punted packets shed because they had waited longer than a second.".into(),
                ..CounterView::default()
            });
        }
        for port in self.core.ports.iter() {
            counters.extend(PuntReason::ALL.iter().map(|reason| CounterView {
                name: "punted".into(),
                port: Some(port.name.clone()),
                reason: Some(reason.counter().into()),
                value: port.sum(|stats| stats.punted(*reason).get()),
                text: reason.text().into(),
                ..CounterView::default()
            }));
        }
        counters
            .extend(self.core.agent.counters().flat_map(|(tenant, of)| agent_counters(tenant, of)));
        counters.extend(self.core.history.counters());
        counters
    }
}
