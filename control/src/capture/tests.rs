//! Row B-08: captures are read as they were written, and what is wrong with them is
//! said.

use std::sync::atomic::{AtomicU32, Ordering};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use proptest::prelude::*;

use super::*;

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

/// All frames with their times, and how it ended.
fn read_all(reader: &mut CaptureReader) -> (Vec<(Duration, Vec<u8>)>, Option<String>) {
    let mut frames = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(time)) => frames.push((time, reader.frame().to_vec())),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
}

#[test]
fn what_is_written_is_read_back_with_its_times() {
    let file = Scratch::new(&[]);
    let mut writer = CaptureWriter::create(&file.0).unwrap();
    let frames: Vec<_> = (0..70u64)
        .map(|number| {
            let time = Duration::new(1_700_000_000 + number, 123_456_789);
            (time, vec![number as u8; 60 + number as usize])
        })
        .collect();
    frames.iter().for_each(|(time, frame)| writer.write(*time, frame).unwrap());
    writer.finish().unwrap();
    let mut reader = CaptureReader::open(&file.0).unwrap();
    assert_eq!(read_all(&mut reader), (frames, None));
    assert_eq!(reader.position(), file.0.metadata().unwrap().len());
}

#[test]
fn frames_that_the_capture_cut_and_ones_beyond_the_buffer_are_counted() {
    let mut bytes = header();
    record(&mut bytes, 1, 0, 1500, &[1; 100]);
    record(&mut bytes, 2, 0, 3000, &[2; 3000]);
    record(&mut bytes, 3, 0, 60, &[3; 60]);
    let file = Scratch::new(&bytes);
    let mut reader = CaptureReader::open(&file.0).unwrap();
    assert_eq!(read_all(&mut reader), (vec![(Duration::from_secs(3), vec![3; 60])], None));
    let left_out = LeftOut { cut: 1, oversize: 1, not_ethernet: 0 };
    assert_eq!((reader.left_out(), reader.number()), (left_out, 4));
}

#[test]
fn errors_name_the_file_and_the_packet() {
    let open = |bytes: &[u8]| {
        let file = Scratch::new(bytes);
        let error = CaptureReader::open(&file.0).err().unwrap().to_string();
        error.strip_prefix(&format!("{}: ", file.0.display())).unwrap().to_owned()
    };
    let expected = "; a pcap or pcapng file is expected, as tcpdump and Wireshark write them";
    assert_eq!(open(b""), format!("the file ends inside it{expected}"));
    let magic = "Invalid field value: PcapHeader: wrong magic number";
    assert_eq!(open(&[0x11; 40]), format!("{magic}{expected}"));
    let mut raw_ip = header();
    raw_ip[20] = 101;
    assert!(open(&raw_ip).starts_with("its frames are RAW, not Ethernet; capture on"));
    let missing = CaptureReader::open(Path::new("/no/such/file")).err().unwrap().to_string();
    assert!(missing.starts_with("/no/such/file: No such file"), "{missing}");

    let mut good = header();
    record(&mut good, 1, 0, 60, &[1; 60]);
    for (broken, cause) in [
        ((1u32, 0u32, 10u32), "the file ends inside it"),
        ((1, 1_000_000, 0), "Invalid field value: the fraction of its time is a second or more"),
    ] {
        let mut bytes = good.clone();
        let (seconds, micros, len) = broken;
        let words = [seconds, micros, len, len];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(std::iter::repeat_n(0, len.saturating_sub(1) as usize));
        let file = Scratch::new(&bytes);
        let (frames, error) = read_all(&mut CaptureReader::open(&file.0).unwrap());
        assert_eq!(frames.len(), 1);
        assert_eq!(error, Some(format!("{}: packet 2: {cause}", file.0.display())));
    }
}

/// A pcapng file of these interfaces, and of packets: interface, ticks, data.
fn pcapng(interfaces: &[(DataLink, Option<u8>)], packets: &[(u32, u64, &'static [u8])]) -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    for (link, resolution) in interfaces {
        let mut interface = InterfaceDescriptionBlock::new(*link, 0);
        interface.options.extend(resolution.map(InterfaceDescriptionOption::IfTsResol));
        writer.write_pcapng_block(interface).unwrap();
    }
    for (interface_id, ticks, data) in packets {
        let packet = EnhancedPacketBlock {
            interface_id: *interface_id,
            timestamp: Duration::from_nanos(*ticks),
            original_len: data.len() as u32,
            data: (*data).into(),
            options: Vec::new(),
        };
        writer.write_pcapng_block(packet).unwrap();
    }
    writer.into_inner()
}

#[test]
fn pcapng_is_read_with_the_times_of_each_interface() {
    const FRAME: &[u8] = &[7; 60];
    let interfaces = [
        (DataLink::ETHERNET, None),
        (DataLink::ETHERNET, Some(9)),
        (DataLink::RAW, None),
        (DataLink::ETHERNET, Some(0x80 | 10)),
    ];
    let packets =
        [(0, 5_000_001, FRAME), (1, 6_000_000_001, FRAME), (2, 0, FRAME), (3, 1_536, FRAME)];
    let file = Scratch::new(&pcapng(&interfaces, &packets));
    let mut reader = CaptureReader::open(&file.0).unwrap();
    let (frames, error) = read_all(&mut reader);
    let times: Vec<Duration> = frames.iter().map(|(time, _)| *time).collect();
    let expected = [Duration::new(5, 1_000), Duration::new(6, 1), Duration::from_millis(1_500)];
    assert_eq!((&times[..], error), (&expected[..], None));
    assert_eq!(reader.left_out().not_ethernet, 1);
}

#[test]
fn a_pcapng_file_that_breaks_says_where() {
    let ethernet = [(DataLink::ETHERNET, None)];
    let good = pcapng(&ethernet, &[(0, 1, &[1; 60]), (0, 2, &[2; 60])]);
    let file = Scratch::new(&good[..good.len() - 20]);
    let (frames, error) = read_all(&mut CaptureReader::open(&file.0).unwrap());
    let expected = format!("{}: packet 2: the file ends inside it", file.0.display());
    assert_eq!((frames.len(), error), (1, Some(expected)));
    let file =
        Scratch::new(&pcapng(&[(DataLink::ETHERNET, Some(0x80 | 127))], &[(0, 1, &[1; 60])]));
    let (frames, error) = read_all(&mut CaptureReader::open(&file.0).unwrap());
    // 2^-127 s is no time that anybody means, but it can be told.
    assert_eq!((frames.len(), error), (1, None));
    let file = Scratch::new(&pcapng(&[(DataLink::ETHERNET, Some(100))], &[(0, 1, &[1; 60])]));
    let error = read_all(&mut CaptureReader::open(&file.0).unwrap()).1.unwrap();
    assert!(error.contains("packet 1: Invalid field value: its time is beyond"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_broken_file_never_panics(
        ng in any::<bool>(),
        cut in 0usize..400,
        flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..6),
    ) {
        let mut bytes = if ng {
            let ethernet = [(DataLink::ETHERNET, Some(6))];
            pcapng(&ethernet, &[(0, 1, &[1; 60]), (0, 2, &[2; 60])])
        } else {
            let mut bytes = header();
            for number in 0..3 {
                record(&mut bytes, number, 0, 60, &[number as u8; 60]);
            }
            bytes
        };
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
        }
        bytes.truncate(cut);
        let file = Scratch::new(&bytes);
        if let Ok(mut reader) = CaptureReader::open(&file.0) {
            prop_assert!(read_all(&mut reader).0.len() <= 3 * 76);
        }
    }
}
