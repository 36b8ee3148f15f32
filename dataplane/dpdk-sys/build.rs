//! Compiles the shim over libdpdk and binds it. Needs libdpdk-dev, libclang-dev,
//! pkg-config and gcc.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The libraries whose functions the shim calls. Drivers are loaded by EAL.
const LIBRARIES: [&str; 6] =
    ["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_bus_vdev", "rte_ring"];

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-changed=src/shim.h");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    let cflags = pkg_config(&["--cflags"])?;
    for directory in pkg_config(&["--libs-only-L"])? {
        if let Some(path) = directory.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={path}");
        }
    }

    let mut compiler = cc::Build::new();
    compiler.file("src/shim.c").opt_level(2).warnings(true);
    // DPDK's own headers are not clean under these.
    compiler.flag_if_supported("-Wno-unused-parameter");
    for flag in &cflags {
        compiler.flag(flag);
    }
    compiler.try_compile("homeport_dpdk_shim").context("the shim does not compile")?;
    // Behind the shim, which needs them.
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }

    let bindings = bindgen::Builder::default()
        .header("src/shim.h")
        .clang_args(&cflags)
        .allowlist_function("hp_.*")
        .allowlist_type("hp_.*")
        .allowlist_type("rte_mbuf")
        .allowlist_var("HP_.*")
        .opaque_type("rte_mempool")
        .opaque_type("rte_mbuf_ext_shared_info")
        .opaque_type("rte_mbuf_sched")
        .use_core()
        .generate_comments(false)
        .generate()
        .context("libdpdk's headers cannot be bound")?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("bindings.rs");
    bindings.write_to_file(&out).with_context(|| format!("cannot write {}", out.display()))
}

/// What pkg-config says of libdpdk, flag by flag.
fn pkg_config(arguments: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("pkg-config").args(arguments).arg("libdpdk").output().context(
        "cannot run pkg-config: install the packages pkg-config and libdpdk-dev, \
         or build with --no-default-features",
    )?;
    ensure!(
        output.status.success(),
        "pkg-config knows no libdpdk: install the package libdpdk-dev, \
         or build with --no-default-features\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
}
