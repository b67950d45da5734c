//! KVM or software emulation: which of them QEMU can use on this host.

use crate::{command, kernel};
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// QEMU needs less to set up a processor under KVM, or to fail at it.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Hardware,
    Emulation,
}

impl Accelerator {
    /// Emulated, a fifth level of page tables, string moves octet by octet and protections that are
    /// switched at every copy cost time at every turn and show nothing that a scenario asks for.
    pub(crate) fn processor(self) -> &'static str {
        match self {
            Self::Hardware => "max",
            Self::Emulation => "max,la57=off,erms=off,fsrm=off,smap=off,smep=off,pku=off,umip=off",
        }
    }

    /// An emulated kernel does not trust the processor's time stamps and reads an emulated timer
    /// instead, which takes 5 microseconds every time.
    pub(crate) fn clock(self) -> &'static str {
        match self {
            Self::Hardware => "",
            Self::Emulation => " tsc=reliable clocksource=tsc",
        }
    }
}

/// Names the kernel of a host on which KVM failed.
fn failure_mark() -> Result<PathBuf> {
    Ok(kernel::cache_directory()?.join("no-kvm"))
}

/// What to boot with. KVM counts when QEMU can set up a processor with it: on some hosts the device
/// is there and QEMU aborts.
pub(crate) fn usable() -> Result<Accelerator> {
    // What failed on another kernel of the host, or on another host that shares this home, may work
    // here.
    let failed = fs::read_to_string(failure_mark()?).is_ok_and(|seen| seen == host_release());
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if !device || failed {
        return Ok(Accelerator::Emulation);
    }
    if qemu_starts_with_kvm().unwrap_or(false) {
        return Ok(Accelerator::Hardware);
    }
    println!("xtask: /dev/kvm is there, but QEMU cannot start a processor with it");
    remember_that_kvm_fails()?;
    Ok(Accelerator::Emulation)
}

/// Starts a stopped machine with the lab's processor and quits.
fn qemu_starts_with_kvm() -> Result<bool> {
    let child = Command::new("qemu-system-x86_64")
        .args(["-accel", "kvm", "-machine", "q35", "-cpu", Accelerator::Hardware.processor()])
        .args(["-m", "64", "-nodefaults", "-display", "none", "-S", "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut machine = Machine(child);
    machine.0.stdin.take().context("no standard input")?.write_all(b"quit\n")?;
    let started = Instant::now();
    while started.elapsed() < PROBE {
        if let Some(status) = machine.0.try_wait()? {
            return Ok(status.success());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

pub(crate) fn remember_that_kvm_fails() -> Result<()> {
    let mark = failure_mark()?;
    println!("xtask: software emulation from now on (delete {} to try KVM again)", mark.display());
    fs::write(mark, host_release())?;
    Ok(())
}

fn host_release() -> String {
    command::output("uname", &["-nrv"]).unwrap_or_default()
}

/// Ends the machine when the host gives up on it.
pub(crate) struct Machine(pub Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
