//! Captures: frames with their times in a pcap or pcapng file, read and written as a
//! stream, whatever their length.
//!
//! **Not done:** writing pcapng; link types other than Ethernet.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use homeport_dataplane::packet::DATA_ROOM;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
#[error("{}: {place}{cause}", path.display())]
pub struct CaptureError {
    path: PathBuf,
    /// "packet 7: ", or nothing for the file as a whole.
    place: String,
    cause: String,
}

impl CaptureError {
    fn file(path: &Path, cause: impl ToString) -> Self {
        CaptureError { path: path.to_owned(), place: String::new(), cause: cause.to_string() }
    }

    fn packet(path: &Path, number: u64, cause: &PcapError) -> Self {
        let place = format!("packet {number}: ");
        CaptureError { path: path.to_owned(), place, cause: text(cause) }
    }
}

/// Frames of a capture that cannot be received, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The capture has only their beginning.
    pub cut: u64,
    /// Longer than a packet buffer.
    pub oversize: u64,
    /// Of an interface that is not Ethernet, in a pcapng file with several.
    pub not_ethernet: u64,
}

/// Reads a capture, frame by frame.
pub struct CaptureReader {
    path: PathBuf,
    format: Format,
    /// The same open file: its position is the reader's.
    position: File,
    frame: Vec<u8>,
    number: u64,
    left_out: LeftOut,
}

enum Format {
    Pcap(Box<PcapReader<File>>),
    PcapNg(Box<PcapNgReader<File>>),
}

/// What a record of a capture is.
enum Record {
    Frame(Duration),
    LeftOut,
    End,
}

/// The magic number that pcapng begins with, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

impl CaptureReader {
    /// Opens a capture.
    ///
    /// # Errors
    /// It cannot be opened, or is no capture of Ethernet frames.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |cause: &dyn ToString| CaptureError::file(path, cause.to_string());
        let mut file = File::open(path).map_err(|e| failed(&e))?;
        let position = file.try_clone().map_err(|e| failed(&e))?;
        let mut magic = Vec::new();
        Read::take(&mut file, 4).read_to_end(&mut magic).map_err(|e| failed(&e))?;
        file.rewind().map_err(|e| failed(&e))?;
        let parsed = |e: PcapError| {
            let hint = "; a pcap or pcapng file is expected, as tcpdump and Wireshark write them";
            failed(&(text(&e) + hint))
        };
        let format = if magic == PCAPNG {
            Format::PcapNg(Box::new(PcapNgReader::new(file).map_err(parsed)?))
        } else {
            let reader = PcapReader::new(file).map_err(parsed)?;
            let link = reader.header().datalink;
            if link != DataLink::ETHERNET {
                return Err(CaptureError::file(path, not_ethernet(link)));
            }
            Format::Pcap(Box::new(reader))
        };
        Ok(CaptureReader {
            path: path.to_owned(),
            format,
            position,
            frame: Vec::with_capacity(DATA_ROOM),
            number: 0,
            left_out: LeftOut::default(),
        })
    }

    /// Goes to the next frame that can be received, and gives its time since the
    /// epoch; `None` at the end. Frames that the capture cut short, and ones beyond a
    /// packet buffer, are left out and counted.
    ///
    /// # Errors
    /// The file is broken there: the frames before are good.
    pub fn next_frame(&mut self) -> Result<Option<Duration>, CaptureError> {
        loop {
            let read = match &mut self.format {
                Format::Pcap(reader) => next_of_pcap(reader, &mut self.frame, &mut self.left_out),
                Format::PcapNg(reader) => {
                    next_of_pcapng(reader, &mut self.frame, &mut self.left_out)
                }
            };
            self.number += 1;
            match read.map_err(|e| CaptureError::packet(&self.path, self.number, &e))? {
                Record::Frame(time) => return Ok(Some(time)),
                Record::LeftOut => {}
                Record::End => return Ok(None),
            }
        }
    }

    /// The frame that was gone to, Ethernet header first.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The number of the frame in the file, from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The frames that were left out so far.
    pub const fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// How many bytes of the file were read.
    pub fn position(&self) -> u64 {
        (&self.position).stream_position().unwrap_or_default()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn next_of_pcap(
    reader: &mut PcapReader<File>,
    frame: &mut Vec<u8>,
    left_out: &mut LeftOut,
) -> Result<Record, PcapError> {
    let resolution = reader.header().ts_resolution;
    // Not `next_packet`: it refuses a capture whose frames were cut to the snap
    // length, which is a good file.
    let Some(raw) = reader.next_raw_packet() else { return Ok(Record::End) };
    let raw = raw?;
    let fraction = u64::from(raw.ts_frac);
    let nanos = match resolution {
        TsResolution::MicroSecond => fraction * 1000,
        TsResolution::NanoSecond => fraction,
    };
    if nanos >= 1_000_000_000 {
        return Err(PcapError::InvalidField("the fraction of its time is a second or more"));
    }
    let time = Duration::from_secs(raw.ts_sec.into()) + Duration::from_nanos(nanos);
    Ok(keep(frame, &raw.data, raw.orig_len, time, left_out))
}

fn next_of_pcapng(
    reader: &mut PcapNgReader<File>,
    frame: &mut Vec<u8>,
    left_out: &mut LeftOut,
) -> Result<Record, PcapError> {
    loop {
        let interfaces = reader.interfaces().len();
        let Some(block) = reader.next_block() else { return Ok(Record::End) };
        let (interface, ticks, len, data) = match block? {
            Block::EnhancedPacket(packet) => {
                // The reader takes ticks of any length for nanoseconds.
                let ticks = packet.timestamp.as_nanos() as u64;
                (packet.interface_id, ticks, packet.original_len, packet.data.into_owned())
            }
            Block::SimplePacket(_) => {
                return Err(PcapError::InvalidField(
                    "a simple packet block has no time; write the capture anew with editcap",
                ));
            }
            _ => continue,
        };
        let described = usize::try_from(interface).ok().filter(|index| *index < interfaces);
        let interface = described.and_then(|index| reader.interfaces().get(index));
        let interface = interface
            .ok_or(PcapError::InvalidField("it names an interface that is not described"))?;
        if interface.linktype != DataLink::ETHERNET {
            left_out.not_ethernet += 1;
            return Ok(Record::LeftOut);
        }
        let time = time_of(interface, ticks)
            .ok_or(PcapError::InvalidField("its time is beyond what can be told"))?;
        return Ok(keep(frame, &data, len, time, left_out));
    }
}

fn keep(
    frame: &mut Vec<u8>,
    data: &[u8],
    original_len: u32,
    time: Duration,
    left_out: &mut LeftOut,
) -> Record {
    if (data.len() as u64) < u64::from(original_len) {
        left_out.cut += 1;
        Record::LeftOut
    } else if data.len() > DATA_ROOM {
        left_out.oversize += 1;
        Record::LeftOut
    } else if data.is_empty() {
        Record::LeftOut
    } else {
        frame.clear();
        frame.extend_from_slice(data);
        Record::Frame(time)
    }
}

/// The time of so many ticks: microseconds, unless the interface says otherwise
/// (if_tsresol: a power of ten, or with the highest bit a power of two).
fn time_of(interface: &InterfaceDescriptionBlock<'_>, ticks: u64) -> Option<Duration> {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let resolution = resolution.unwrap_or(6);
    let exponent = u32::from(resolution & 0x7f);
    let per_second = match resolution & 0x80 {
        0 => 10u128.checked_pow(exponent)?,
        _ => 1u128.checked_shl(exponent).filter(|ticks| *ticks > 0)?,
    };
    let nanos = u128::from(ticks).checked_mul(1_000_000_000)? / per_second;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    // Less than a second.
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

fn not_ethernet(link: DataLink) -> String {
    format!(
        "its frames are {link:?}, not Ethernet; capture on the Ethernet interface itself, not on \
         `any` or a tunnel"
    )
}

/// Writes a capture.
pub struct CaptureWriter {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
    number: u64,
}

impl CaptureWriter {
    /// Creates a pcap file with times in nanoseconds, or empties one that is there.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = File::create(path).map_err(|e| CaptureError::file(path, e))?;
        let header = PcapHeader { ts_resolution: TsResolution::NanoSecond, ..Default::default() };
        let writer = PcapWriter::with_header(BufWriter::with_capacity(1 << 18, file), header)
            .map_err(|e| CaptureError::file(path, text(&e)))?;
        Ok(CaptureWriter { path: path.to_owned(), writer, number: 0 })
    }

    /// Writes a frame with its time since the epoch.
    ///
    /// # Errors
    /// The file takes no more.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> Result<(), CaptureError> {
        self.number += 1;
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        match self.writer.write_packet(&PcapPacket::new(time, len, frame)) {
            Ok(_) => Ok(()),
            Err(error) => Err(CaptureError::packet(&self.path, self.number, &error)),
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The file takes no more.
    pub fn finish(self) -> Result<(), CaptureError> {
        let CaptureWriter { path, writer, .. } = self;
        writer.into_writer().flush().map_err(|e| CaptureError::file(&path, e))
    }
}

/// The error with its cause.
fn text(error: &PcapError) -> String {
    match error {
        PcapError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the file ends inside it".to_owned()
        }
        PcapError::IncompleteBuffer => "the file ends inside it".to_owned(),
        PcapError::IoError(e) => e.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
