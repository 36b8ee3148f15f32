//! One program for all targets: HOMEPORT_FUZZ_TARGET names the one that it runs.
//!
//! Tracing is on, into nowhere: what is formatted for people is looked at too.
#![no_main]

use std::sync::OnceLock;

use homeport_tests::fuzz::{Target, find};
use libfuzzer_sys::fuzz_target;

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(std::io::sink)
            .init();
        let name = std::env::var("HOMEPORT_FUZZ_TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|| panic!("HOMEPORT_FUZZ_TARGET names no target: `{name}`"))
    })
}

fuzz_target!(|data: &[u8]| (target().run)(data));
