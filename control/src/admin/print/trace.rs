//! Walks of packets, for people.

use std::fmt::Write;

use super::clean;
use crate::admin::trace::WalkView;

/// A walk: a line for the packet, one for each step, and the verdict.
pub fn walk(walk: &WalkView) -> String {
    let WalkView { port, tenant, worker, packet, .. } = walk;
    let mut out = clean(&format!("{port}: {packet}"));
    if *tenant != 0 {
        let _ = write!(out, ", tenant {tenant}");
    }
    if *worker != 0 {
        let _ = write!(out, ", worker {worker}");
    }
    out.push('\n');
    for step in &walk.steps {
        out.push_str(&clean(&format!("  {}: {}", step.table, step.text)));
        out.push('\n');
    }
    if walk.steps_omitted > 0 {
        let _ = writeln!(out, "  and {} more steps", walk.steps_omitted);
    }
    out.push_str(&clean(&format!("  verdict: {}", walk.text)));
    out.push('\n');
    out
}

/// What `explain --packet` says: walk by walk.
pub fn explained(walks: &[WalkView]) -> String {
    let blocks: Vec<String> = walks.iter().map(walk).collect();
    blocks.join("\n")
}

/// What is said at the end of a trace when walks were lost.
pub fn lost(count: u64) -> String {
    let walks = if count == 1 { "walk was" } else { "walks were" };
    format!("{count} {walks} lost: more packets matched than could be told. Narrow the filter.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::trace::StepView;

    #[test]
    fn what_is_on_the_wire_or_in_a_name_does_not_speak_to_the_terminal() {
        let text = walk(&WalkView {
            time_nanoseconds: 0,
            worker: 2,
            port: "co\u{1b}[2Jre".into(),
            tenant: 7,
            packet: "192.0.2.7 -> 10.1.0.10\u{7}".into(),
            frame: String::new(),
            frame_bytes: 0,
            link_header: true,
            made_here: false,
            steps: vec![StepView { table: "route".into(), text: "via \u{1b}x".into() }],
            steps_omitted: 3,
            verdict: "drop".into(),
            reason: Some("no-route".into()),
            text: "dropped (no-route): No route to the destination.".into(),
            sent: None,
            sent_bytes: 0,
        });
        assert_eq!(
            text,
            "co\\u{1b}[2Jre: 192.0.2.7 -> 10.1.0.10\\u{7}, tenant 7, worker 2\n  \
             route: via \\u{1b}x\n  and 3 more steps\n  \
             verdict: dropped (no-route): No route to the destination.\n"
        );
        assert!(lost(1).starts_with("1 walk was lost"));
    }
}
