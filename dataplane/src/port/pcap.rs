//! A port that reads its frames from a pcap file, writes them to one, or both.
//!
//! Time is the caller's: a frame that is sent bears the time that was set last,
//! and a frame of the file is received once its time has come. So a replay runs
//! on a virtual clock, and twice to the same bytes.
//!
//! **Not done:** pcapng.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeport_wire::MacAddress;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, PcapError, TsResolution};

use super::Port;
use crate::packet::{Burst, DATA_ROOM, PacketPool};

/// What is wrong with a pcap file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {place}{cause}", path.display())]
pub struct PcapFileError {
    path: PathBuf,
    /// "packet 7: ", or nothing for the file as a whole.
    place: String,
    cause: String,
}

impl PcapFileError {
    fn file(path: &Path, cause: impl ToString) -> Self {
        PcapFileError { path: path.to_owned(), place: String::new(), cause: cause.to_string() }
    }

    fn packet(path: &Path, number: u64, cause: &PcapError) -> Self {
        let place = format!("packet {number}: ");
        PcapFileError { path: path.to_owned(), place, cause: text(cause) }
    }
}

/// A port whose link is a file.
pub struct PcapPort {
    name: String,
    mac: MacAddress,
    mtu: u16,
    input: Option<Input>,
    output: Option<Output>,
    /// The time that was set.
    now: Option<Duration>,
    /// The time of the frame that was received last.
    last: Duration,
    error: Option<PcapFileError>,
    rx_cut: u64,
    rx_oversize: u64,
    tx_refused: u64,
}

struct Input {
    path: PathBuf,
    reader: PcapReader<File>,
    resolution: TsResolution,
    /// How many packets were read.
    number: u64,
    /// A frame that was read and not yet received: its time, and its bytes, none
    /// when it cannot be received.
    next: Option<Duration>,
    bytes: Vec<u8>,
}

struct Output {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
    number: u64,
}

impl PcapPort {
    /// A port that receives nothing and whose sent frames are gone.
    pub fn new(name: impl Into<String>, mac: MacAddress, mtu: u16) -> PcapPort {
        PcapPort {
            name: name.into(),
            mac,
            mtu,
            input: None,
            output: None,
            now: None,
            last: Duration::ZERO,
            error: None,
            rx_cut: 0,
            rx_oversize: 0,
            tx_refused: 0,
        }
    }

    /// The same port, receiving the frames of this file.
    ///
    /// # Errors
    /// It cannot be opened, or is no pcap file of Ethernet frames.
    pub fn reading(mut self, path: impl AsRef<Path>) -> Result<PcapPort, PcapFileError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| PcapFileError::file(path, e))?;
        let reader = PcapReader::new(file).map_err(|e| PcapFileError::file(path, text(&e)))?;
        let header = reader.header();
        if header.datalink != DataLink::ETHERNET {
            let cause = format!("its frames are {:?}, not Ethernet", header.datalink);
            return Err(PcapFileError::file(path, cause));
        }
        self.input = Some(Input {
            path: path.to_owned(),
            reader,
            resolution: header.ts_resolution,
            number: 0,
            next: None,
            bytes: Vec::with_capacity(DATA_ROOM),
        });
        Ok(self)
    }

    /// The same port, writing what it sends to this file, with nanoseconds.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn writing(mut self, path: impl AsRef<Path>) -> Result<PcapPort, PcapFileError> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|e| PcapFileError::file(path, e))?;
        let header = PcapHeader { ts_resolution: TsResolution::NanoSecond, ..Default::default() };
        let writer = PcapWriter::with_header(BufWriter::new(file), header)
            .map_err(|e| PcapFileError::file(path, text(&e)))?;
        self.output = Some(Output { path: path.to_owned(), writer, number: 0 });
        Ok(self)
    }

    /// Sets the time, since the epoch. Until it is first set, frames are received
    /// as fast as they are asked for, and what is sent bears the time of the frame
    /// that was received last.
    pub fn set_time(&mut self, now: Duration) {
        self.now = Some(now);
    }

    /// The time of the next frame of the file, since the epoch; `None` at its end,
    /// or where it is broken.
    pub fn next_time(&mut self) -> Option<Duration> {
        let input = self.input.as_mut()?;
        if input.next.is_none() {
            match input.read(&mut self.rx_cut, &mut self.rx_oversize) {
                Ok(next) => input.next = next,
                Err(error) => {
                    self.input = None;
                    self.error.get_or_insert(error);
                    return None;
                }
            }
        }
        input.next
    }

    /// Writes out what is buffered, and says what went wrong with either file.
    ///
    /// # Errors
    /// The first error of reading or writing; the frames before it are good.
    pub fn finish(mut self) -> Result<(), PcapFileError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match self.output.take() {
            Some(output) => output
                .writer
                .into_writer()
                .flush()
                .map_err(|e| PcapFileError::file(&output.path, e)),
            None => Ok(()),
        }
    }
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn rx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) {
        while !burst.is_full()
            && let Some(time) = self.next_time()
            && self.now.is_none_or(|now| time <= now)
        {
            // Without a buffer the frame waits.
            let (Some(input), Some(mut packet)) = (self.input.as_mut(), pool.take()) else {
                return;
            };
            input.next = None;
            self.last = time;
            if !packet.set_bytes(&input.bytes) {
                pool.give(packet);
            } else if let Err(packet) = burst.push(packet) {
                pool.give(packet);
            }
        }
    }

    fn tx_burst(&mut self, pool: &mut PacketPool, burst: &mut Burst) -> usize {
        let time = self.now.unwrap_or(self.last);
        let mut sent = 0;
        for packet in burst.drain() {
            let written =
                self.output.as_mut().map_or(Ok(()), |out| out.write(time, packet.bytes()));
            match written {
                Ok(()) => sent += 1,
                Err(error) => {
                    self.tx_refused += 1;
                    self.error.get_or_insert(error);
                }
            }
            pool.give(packet);
        }
        sent
    }

    fn counters(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("rx-cut", self.rx_cut);
        tell("rx-oversize", self.rx_oversize);
        tell("tx-refused", self.tx_refused);
    }
}

impl Input {
    /// Reads the next frame that can be received, and returns its time. Frames
    /// that the capture cut short, and ones beyond a packet buffer, are left out
    /// and counted.
    fn read(
        &mut self,
        cut: &mut u64,
        oversize: &mut u64,
    ) -> Result<Option<Duration>, PcapFileError> {
        // Not `next_packet`: it refuses a capture whose frames were cut to the
        // snap length, which is a good file.
        while let Some(raw) = self.reader.next_raw_packet() {
            self.number += 1;
            let fail = |e| PcapFileError::packet(&self.path, self.number, &e);
            let raw = raw.map_err(fail)?;
            let time = time(&raw, self.resolution).map_err(fail)?;
            if raw.incl_len < raw.orig_len {
                *cut += 1;
            } else if raw.data.len() > DATA_ROOM {
                *oversize += 1;
            } else if !raw.data.is_empty() {
                self.bytes.clear();
                self.bytes.extend_from_slice(&raw.data);
                return Ok(Some(time));
            }
        }
        Ok(None)
    }
}

impl Output {
    fn write(&mut self, time: Duration, bytes: &[u8]) -> Result<(), PcapFileError> {
        self.number += 1;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match self.writer.write_packet(&PcapPacket::new(time, len, bytes)) {
            Ok(_) => Ok(()),
            Err(error) => Err(PcapFileError::packet(&self.path, self.number, &error)),
        }
    }
}

fn time(raw: &RawPcapPacket<'_>, resolution: TsResolution) -> Result<Duration, PcapError> {
    let fraction = u64::from(raw.ts_frac);
    let nanos = match resolution {
        TsResolution::MicroSecond => fraction * 1000,
        TsResolution::NanoSecond => fraction,
    };
    if nanos >= 1_000_000_000 {
        return Err(PcapError::InvalidField("the fraction of its time is a second or more"));
    }
    Ok(Duration::from_secs(raw.ts_sec.into()) + Duration::from_nanos(nanos))
}

/// The error with its cause.
fn text(error: &PcapError) -> String {
    match error {
        PcapError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the file ends inside it".to_owned()
        }
        PcapError::IoError(e) => e.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::BURST;
    use crate::port::counters_of;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    /// A file of the test's own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(bytes: &[u8]) -> Scratch {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("homeport-{}-{number}.pcap", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, bytes).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn port() -> PcapPort {
        PcapPort::new("pcap0", MAC, 1500)
    }

    /// Little-endian, microseconds, snap length 100, Ethernet.
    fn header() -> Vec<u8> {
        let words = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 100, 1u32];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn record(file: &mut Vec<u8>, seconds: u32, micros: u32, on_wire: u32, data: &[u8]) {
        let words = [seconds, micros, data.len() as u32, on_wire];
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        file.extend_from_slice(data);
    }

    fn receive_all(port: &mut PcapPort) -> Vec<Vec<u8>> {
        let mut pool = PacketPool::new(BURST);
        let mut frames = Vec::new();
        loop {
            let mut burst = Burst::new();
            port.rx_burst(&mut pool, &mut burst);
            if burst.is_empty() {
                return frames;
            }
            frames.extend(burst.iter().map(|packet| packet.bytes().to_vec()));
            burst.drain().for_each(|packet| pool.give(packet));
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_its_times() {
        let file = Scratch::new(&[]);
        let mut pool = PacketPool::new(BURST);
        let mut writer = port().writing(&file.0).unwrap();
        for number in 0..70u64 {
            writer.set_time(Duration::new(1_700_000_000 + number, 123_456_789));
            let mut burst = Burst::new();
            let mut packet = pool.take().unwrap();
            assert!(packet.set_bytes(&vec![number as u8; 60 + number as usize]));
            burst.push(packet).unwrap();
            assert_eq!(writer.tx_burst(&mut pool, &mut burst), 1);
        }
        writer.finish().unwrap();
        let mut reader = port().reading(&file.0).unwrap();
        assert_eq!(reader.next_time(), Some(Duration::new(1_700_000_000, 123_456_789)));
        // Nothing before its time.
        reader.set_time(Duration::new(1_700_000_001, 123_456_788));
        assert_eq!(receive_all(&mut reader), [vec![0; 60]]);
        reader.set_time(Duration::new(1_700_000_001, 123_456_789));
        assert_eq!(receive_all(&mut reader), [vec![1; 61]]);
        reader.set_time(Duration::from_secs(1_800_000_000));
        let rest = receive_all(&mut reader);
        assert_eq!((rest.len(), rest[67].len()), (68, 129));
        assert_eq!((reader.next_time(), reader.finish().is_ok()), (None, true));
    }

    #[test]
    fn a_replay_without_a_clock_stamps_what_it_sends_with_the_time_of_what_it_received() {
        let mut bytes = header();
        record(&mut bytes, 7, 250_000, 60, &[1; 60]);
        let (input, output) = (Scratch::new(&bytes), Scratch::new(&[]));
        let mut both = port().reading(&input.0).unwrap().writing(&output.0).unwrap();
        let mut pool = PacketPool::new(1);
        let mut burst = Burst::new();
        both.rx_burst(&mut pool, &mut burst);
        both.tx_burst(&mut pool, &mut burst);
        both.finish().unwrap();
        let mut again = port().reading(&output.0).unwrap();
        assert_eq!(again.next_time(), Some(Duration::from_millis(7250)));
        assert_eq!(receive_all(&mut again), [vec![1; 60]]);
    }

    #[test]
    fn frames_that_the_capture_cut_and_ones_beyond_the_buffer_are_counted() {
        let mut bytes = header();
        record(&mut bytes, 1, 0, 1500, &[1; 100]);
        record(&mut bytes, 2, 0, 3000, &[2; 3000]);
        record(&mut bytes, 3, 0, 60, &[3; 60]);
        let file = Scratch::new(&bytes);
        let mut port = port().reading(&file.0).unwrap();
        assert_eq!(receive_all(&mut port), [vec![3; 60]]);
        assert_eq!(counters_of(&port)[..2], [("rx-cut", 1), ("rx-oversize", 1)]);
        port.finish().unwrap();
    }

    #[test]
    fn errors_name_the_file_and_the_packet() {
        let open = |bytes: &[u8]| {
            let file = Scratch::new(bytes);
            let error = port().reading(&file.0).err().unwrap().to_string();
            error.strip_prefix(&format!("{}: ", file.0.display())).unwrap().to_owned()
        };
        assert_eq!(open(b""), "the file ends inside it");
        assert_eq!(open(&[0x11; 40]), "Invalid field value: PcapHeader: wrong magic number");
        let mut raw_ip = header();
        raw_ip[20] = 101;
        assert_eq!(open(&raw_ip), "its frames are RAW, not Ethernet");
        let missing = port().reading("/no/such/file").err().unwrap().to_string();
        assert!(missing.starts_with("/no/such/file: No such file"), "{missing}");

        let mut good = header();
        record(&mut good, 1, 0, 60, &[1; 60]);
        for (broken, cause) in [
            ((1u32, 0u32, 10u32), "the file ends inside it"),
            (
                (1, 1_000_000, 0),
                "Invalid field value: the fraction of its time is a second or more",
            ),
        ] {
            let mut bytes = good.clone();
            let (seconds, micros, len) = broken;
            let words = [seconds, micros, len, len];
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(std::iter::repeat_n(0, len.saturating_sub(1) as usize));
            let file = Scratch::new(&bytes);
            let mut port = port().reading(&file.0).unwrap();
            assert_eq!(receive_all(&mut port), [vec![1; 60]]);
            let error = port.finish().unwrap_err().to_string();
            assert_eq!(error, format!("{}: packet 2: {cause}", file.0.display()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_broken_file_never_panics(
            cut in 0usize..300,
            flips in proptest::collection::vec((0usize..300, any::<u8>()), 0..6),
        ) {
            let mut bytes = header();
            for number in 0..3 {
                record(&mut bytes, number, 0, 60, &[number as u8; 60]);
            }
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            }
            bytes.truncate(cut);
            let file = Scratch::new(&bytes);
            if let Ok(mut port) = port().reading(&file.0) {
                prop_assert!(receive_all(&mut port).len() <= 3 * 76);
                let _ = port.finish();
            }
        }
    }
}
