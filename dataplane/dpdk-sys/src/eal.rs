//! Starting DPDK.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use crate::{DpdkError, ffi};

/// Proof that DPDK runs in this process.
#[derive(Clone, Copy, Debug)]
pub struct Eal(());

/// How DPDK is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalOptions {
    /// Memory for all pools, in MiB.
    pub memory: u32,
    /// PCI addresses of the devices that may be taken; the bus is left alone when
    /// there are none.
    pub pci_devices: Vec<String>,
}

static STARTED: OnceLock<Result<(), DpdkError>> = OnceLock::new();

impl Eal {
    /// Starts DPDK. It starts once in a process: later calls give the first
    /// call's result, whatever their options.
    ///
    /// The calling thread becomes DPDK's main thread and keeps the CPUs that it
    /// may run on. Huge pages are used when enough of them are free, else
    /// ordinary memory. Nothing is shared with other processes.
    ///
    /// # Errors
    /// DPDK's own: memory, permissions.
    pub fn init(options: &EalOptions) -> Result<Eal, DpdkError> {
        STARTED.get_or_init(|| start(options)).clone().map(|()| Eal(()))
    }

    /// Gives the calling thread a number and with it a cache of each pool, until
    /// it ends; to be called by each thread that receives or sends. More calls
    /// do nothing. Without it all works, only slower.
    pub fn register_thread(self) {
        thread_local!(static REGISTERED: Registration = Registration::new());
        REGISTERED.with(|_| ());
    }
}

struct Registration {
    ours: bool,
}

impl Registration {
    fn new() -> Self {
        // SAFETY: a `Eal` was there to call this, so DPDK runs. It fails when 128
        // threads are registered.
        Registration { ours: unsafe { ffi::hp_thread_register() } == 0 }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: this thread registered itself.
            unsafe { ffi::hp_thread_unregister() }
        }
    }
}

fn start(options: &EalOptions) -> Result<(), DpdkError> {
    let failed = |cause: String| DpdkError::new("start", cause);
    let before = rustix::thread::sched_getaffinity(None).map_err(|e| failed(e.to_string()))?;
    let cpus: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|n| before.is_set(*n)).collect();
    let arguments = arguments(options, &cpus, has_huge_pages(options.memory), std::process::id());
    let arguments: Vec<CString> = arguments
        .into_iter()
        .map(|argument| CString::new(argument).map_err(|e| failed(e.to_string())))
        .collect::<Result<_, _>>()?;
    // DPDK keeps pointers to its arguments, may reorder them and writes to the
    // array: they are given away, once in a process.
    let mut pointers: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let count = i32::try_from(pointers.len()).map_err(|e| failed(e.to_string()))?;
    pointers.push(std::ptr::null_mut());
    let pointers = pointers.leak();
    // SAFETY: `count` strings and a null behind them, none of which is ever freed.
    let result = unsafe { ffi::hp_eal_init(count, pointers.as_mut_ptr()) };
    DpdkError::check(result, || "start".into())?;
    // SAFETY: DPDK runs; the string is static.
    let directory = unsafe { CStr::from_ptr(ffi::hp_runtime_dir()) };
    // Nothing is put there by a process that shares nothing. It would stay.
    let _ = fs::remove_dir(OsStr::from_bytes(directory.to_bytes()));
    rustix::thread::sched_setaffinity(None, &before).map_err(|e| failed(e.to_string()))?;
    Ok(())
}

/// The command line for EAL.
fn arguments(options: &EalOptions, cpus: &[usize], huge: bool, process: u32) -> Vec<String> {
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let mut arguments = vec![
        "homeport".to_owned(),
        // One lcore, and that on every CPU that we may use: no threads are made
        // and the caller is not pinned.
        "--lcores".to_owned(),
        format!("0@({})", cpus.join(",")),
        "-m".to_owned(),
        options.memory.to_string(),
        "--no-telemetry".to_owned(),
        "--log-level=lib.*:warning".to_owned(),
        "--file-prefix".to_owned(),
        format!("homeport-{process}"),
    ];
    // 22.11 refuses --in-memory together with --no-huge.
    let memory: &[&str] = if huge { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    arguments.extend(memory.iter().map(|flag| (*flag).to_owned()));
    if options.pci_devices.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    for device in &options.pci_devices {
        arguments.extend(["-a".to_owned(), device.clone()]);
    }
    arguments
}

/// Whether at least `mib` MiB of huge pages are free.
fn has_huge_pages(mib: u32) -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let free = field("HugePages_Free:") * field("Hugepagesize:") / 1024;
    free > 0 && free >= u64::from(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_dpdk_leaves_no_directory() {
        Eal::init(&EalOptions { memory: 128, pci_devices: Vec::new() }).unwrap();
        // SAFETY: DPDK runs; the string is static.
        let directory = unsafe { CStr::from_ptr(ffi::hp_runtime_dir()) }.to_str().unwrap();
        assert!(directory.ends_with(&format!("homeport-{}", std::process::id())), "{directory}");
        assert!(!fs::exists(directory).unwrap());
    }

    #[test]
    fn arguments_fit_the_machine() {
        let options = EalOptions { memory: 64, pci_devices: Vec::new() };
        let line = arguments(&options, &[0, 3], false, 7).join(" ");
        assert!(line.contains("--lcores 0@(0,3) -m 64 "), "{line}");
        assert!(
            line.ends_with("--file-prefix homeport-7 --no-huge --no-shconf --no-pci"),
            "{line}"
        );
        let options = EalOptions { memory: 64, pci_devices: vec!["0000:00:04.0".into()] };
        let line = arguments(&options, &[0], true, 7).join(" ");
        assert!(line.ends_with("--in-memory -a 0000:00:04.0"), "{line}");
    }
}
