//! Judges that nobody here wrote: tshark decodes what we emit, scapy decodes it
//! too and emits what we parse.
//!
//! Both come with Debian; `scripts/setup` installs them. A test that needs one
//! fails without it rather than pass in silence.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use serde_json::Value;

/// A capture file that is removed when dropped.
pub struct Capture(PathBuf);

impl Capture {
    /// Writes the frames, a millisecond apart, to a new file named after `name`.
    pub fn write(name: &str, frames: &[Vec<u8>]) -> Self {
        let path =
            std::env::temp_dir().join(format!("homeport-{name}-{}.pcap", std::process::id()));
        let file = std::fs::File::create(&path).expect("a capture file in the temporary folder");
        let mut writer =
            PcapWriter::with_header(file, PcapHeader::default()).expect("a capture header");
        for (index, frame) in (0u32..).zip(frames) {
            let time =
                Duration::from_millis(1_800_000_000_000) + Duration::from_millis(u64::from(index));
            let len = u32::try_from(frame.len()).expect("a frame that fits");
            writer
                .write_packet(&PcapPacket::new(time, len, frame))
                .expect("a frame in the capture");
        }
        Capture(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What tshark makes of each frame: the layers, with repeated fields as
    /// arrays.
    pub fn tshark(&self) -> Vec<Value> {
        let output = Command::new("tshark")
            .args(["-n", "-T", "json", "--no-duplicate-keys", "-r"])
            .arg(&self.0)
            .output()
            .expect("tshark runs (scripts/setup installs it)");
        assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        let frames: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON from tshark");
        frames.into_iter().map(|frame| frame["_source"]["layers"].clone()).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Every value of the field `name` anywhere under `value`, in order, as text.
pub fn fields(value: &Value, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, name, &mut found);
    found
}

fn collect(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::String(text) if key == name => found.push(text.clone()),
                    Value::Array(items) if key == name => {
                        found.extend(items.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => collect(inner, name, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        _ => {}
    }
}

/// Runs a Python program with scapy's Mobile IP layers imported; `input` is its
/// standard input. Returns what it prints.
pub fn scapy(program: &str, input: &str) -> String {
    let prelude = "import sys, json, logging\nlogging.disable(logging.CRITICAL)\n\
                   from scapy.layers.inet import IP, UDP, ICMP\nfrom scapy.layers.mobileip import *\n";
    let mut child = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(format!("{prelude}{program}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs (scripts/setup installs it and scapy)");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("scapy reads");
    let output = child.wait_with_output().expect("scapy ends");
    assert!(output.status.success(), "scapy: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text from scapy")
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits; colons between them are passed over.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).expect("a hexadecimal digit"))
        .collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte")).collect()
}
