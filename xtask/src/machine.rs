//! Where the lab runs: in network namespaces of this host when we are root and its kernel has ESP
//! and nf_tables; otherwise in a throw-away virtual machine that boots Debian's kernel with this
//! host's file system as its read-only root.

use crate::accelerator::{self, Accelerator, Machine};
use crate::kernel::{self, Kernel, Series};
use crate::{command, packages};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The binaries a lab needs from the target directory.
pub(crate) const BINARIES: &[&str] = &["lab", "gdoi-agent", "crash-agent", "gcks", "gdoictl"];

/// A kernel under hardware virtualisation prints its first line within this time, or never will.
const FIRST_LINE: Duration = Duration::from_secs(20);

/// What to run and how long it may take.
pub(crate) struct Job {
    /// Arguments of the `lab` binary.
    pub arguments: Vec<String>,
    /// Directory of the binaries.
    pub binaries: PathBuf,
    /// The lab's own binary, where it is not among them.
    pub lab: Option<PathBuf>,
    /// Leave everything running, with a shell.
    pub keep: bool,
    /// The machine is ended after this time.
    pub timeout: Duration,
    /// How many minutes the job takes in an emulated machine on two cores, where that was measured.
    pub minutes: Option<&'static str>,
    /// Boot the machine even when this host's kernel would do.
    pub force_machine: bool,
    /// The kernel that a machine boots.
    pub kernel: Series,
    /// What stands in the place of this host's file system and of the lab.
    pub system: Option<System>,
}

/// A system with a service manager of its own, in which a script runs.
pub(crate) struct System {
    /// Its file system, which is not changed.
    pub root: PathBuf,
    /// The script: it says `LAB-GUEST-READY RELEASE` first, and leaves its status in `status`.
    pub script: PathBuf,
    /// What it finds beside itself.
    pub files: Vec<PathBuf>,
}

/// Runs the job in the right place; true when the lab ended with status 0.
///
/// # Errors
/// When the place cannot be prepared or the lab left no status.
pub(crate) fn play(job: &Job) -> Result<bool> {
    packages::ensure(&[packages::LAB])?;
    let root = command::is_root();
    let native = root && host_kernel_serves();
    if native && !job.force_machine {
        println!(
            "xtask: this kernel has ESP and nf_tables: the lab runs in network namespaces of this host{}",
            job.takes(false)
        );
        let directory = share(job)?;
        let status = Command::new(directory.join("bin/lab"))
            .args(&job.arguments)
            .current_dir(&directory)
            .status()?;
        return Ok(status.success());
    }
    println!(
        "xtask: {}: the lab runs in a virtual machine",
        match (root, native) {
            (false, _) => "only root can make network namespaces",
            (true, false) => "this kernel lacks ESP or nf_tables",
            (true, true) => "a machine is asked for",
        }
    );
    packages::ensure(&[packages::MACHINE])?;
    let kernel = kernel::fetch(job.kernel)?;
    let directory = share(job)?;
    let hardware = accelerator::usable()?;
    if job.keep {
        return interactive(job, &kernel, &directory, hardware);
    }
    if hardware == Accelerator::Hardware {
        match boot(job, &kernel, &directory, hardware)? {
            Ended::Status(ok) => return Ok(ok),
            Ended::Silent => {
                println!("xtask: the kernel does not start under KVM");
                accelerator::remember_that_kvm_fails()?;
            }
        }
    }
    match boot(job, &kernel, &directory, Accelerator::Emulation)? {
        Ended::Status(ok) => Ok(ok),
        Ended::Silent => bail!("the machine never started"),
    }
}

impl Job {
    /// How long the job takes, as the end of a sentence.
    fn takes(&self, emulated: bool) -> String {
        match self.minutes {
            Some(minutes) if emulated => format!("; it takes {minutes} minutes on two cores"),
            Some(minutes) => format!("; it takes less than the {minutes} minutes of an emulation"),
            None => String::new(),
        }
    }
}

/// Adds an XFRM state and a netdev table in a namespace of its own: modules may load on demand, so
/// nothing less tells whether this kernel has them.
fn host_kernel_serves() -> bool {
    let name = format!("gdoi-probe-{}", std::process::id());
    if command::output("ip", &["netns", "add", &name]).is_err() {
        return false;
    }
    let key = "0x000102030405060708090a0b0c0d0e0f";
    let state = [
        "-n",
        &name,
        "xfrm",
        "state",
        "add",
        "src",
        "192.0.2.1",
        "dst",
        "192.0.2.2",
        "proto",
        "esp",
        "spi",
        "0x100",
    ];
    let algorithms =
        ["mode", "tunnel", "enc", "cbc(aes)", key, "auth-trunc", "hmac(sha256)", key, "128"];
    let esp = command::output("ip", &[&state[..], &algorithms[..]].concat()).is_ok();
    let tables =
        command::output("ip", &["netns", "exec", &name, "nft", "add", "table", "netdev", "probe"])
            .is_ok();
    let _ = command::output("ip", &["netns", "del", &name]);
    esp && tables
}

/// The directory shared with the machine: binaries, arguments, results.
fn share(job: &Job) -> Result<PathBuf> {
    let directory =
        command::target_directory()?.join("lab").join(format!("run-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    if let Some(System { script, files, .. }) = &job.system {
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("unit"), UNIT)?;
        for file in files.iter().chain([script]) {
            let name = file.file_name().context("a file without a name")?;
            fs::copy(file, directory.join(name))
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
        fs::rename(
            directory.join(script.file_name().unwrap_or_default()),
            directory.join("guest"),
        )?;
        return Ok(directory);
    }
    fs::create_dir_all(directory.join("bin"))?;
    for name in BINARIES {
        let source = match &job.lab {
            Some(lab) if *name == "lab" => lab.clone(),
            _ => job.binaries.join(name),
        };
        let target = directory.join("bin").join(name);
        // Debug information would be read over and over through the machine's slow file system.
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(&target)
            .arg(&source)
            .stderr(Stdio::null())
            .status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(&source, &target)
                .with_context(|| format!("{} is not built", source.display()))?;
        }
    }
    fs::copy(command::workspace().join("integration/machine/guest"), directory.join("guest"))?;
    fs::write(directory.join("arguments"), job.arguments.join("\n") + "\n")?;
    if job.keep {
        fs::write(directory.join("keep"), "")?;
    }
    Ok(directory)
}

/// The job as a unit of a [`System`], on the console.
const UNIT: &str = "[Unit]\nAfter=basic.target\n\n[Service]\nType=oneshot\nExecStart=/bin/bash \
    /mnt/lab/guest\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n\
    TimeoutStartSec=infinity\n";

enum Ended {
    Status(bool),
    /// The kernel printed nothing: virtualisation is there but does not work.
    Silent,
}

fn qemu(job: &Job, kernel: &Kernel, directory: &Path, accelerator: Accelerator) -> Command {
    let share = |path: &Path, tag: &str, more: &str| {
        format!("local,path={},mount_tag={tag},security_model=none{more}", path.display())
    };
    let root = job.system.as_ref().map_or(Path::new("/"), |system| &system.root);
    let mut command = Command::new("qemu-system-x86_64");
    match accelerator {
        Accelerator::Hardware => command.args(["-accel", "kvm"]),
        Accelerator::Emulation => command.args(["-accel", "tcg,thread=multi"]),
    };
    command
        .args([
            "-machine",
            "q35",
            "-cpu",
            accelerator.processor(),
            "-smp",
            "2",
            "-m",
            "4096",
            "-nic",
            "none",
        ])
        .args(["-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&kernel.initial_disk)
        .args([
            "-append",
            &format!("console=ttyS0 panic=-1 quiet mitigations=off{}", accelerator.clock()),
        ])
        .args(["-virtfs", &share(root, "root", ",readonly=on,multidevs=remap")])
        .args(["-virtfs", &share(directory, "lab", "")])
        .args(["-virtfs", &share(&kernel.tree, "kernel", ",readonly=on")]);
    command
}

/// Boots, passes the guest's narrative through and returns the status that it left on the share.
fn boot(job: &Job, kernel: &Kernel, directory: &Path, accelerator: Accelerator) -> Result<Ended> {
    println!(
        "xtask: booting {} under QEMU with {}{}",
        kernel.package,
        match accelerator {
            Accelerator::Hardware => "KVM",
            Accelerator::Emulation => "software emulation",
        },
        job.takes(accelerator == Accelerator::Emulation)
    );
    let messages = directory.join("qemu.log");
    let started = Instant::now();
    let child = qemu(job, kernel, directory, accelerator)
        .args(["-serial", "stdio", "-monitor", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&messages)?)
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut machine = Machine(child);
    let output = machine.0.stdout.take().context("no standard output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    let (mut printed, mut ready, mut done) = (false, false, false);
    loop {
        let limit =
            if printed || accelerator == Accelerator::Emulation { job.timeout } else { FIRST_LINE };
        let left = limit.saturating_sub(started.elapsed());
        match receiver.recv_timeout(left) {
            Ok(line) => {
                printed |= line.contains("LAB-KERNEL-UP");
                if let Some((_, release)) = line.split_once("LAB-GUEST-READY ") {
                    ready = true;
                    println!(
                        "xtask: machine is up after {:.0} s: Linux {release}",
                        started.elapsed().as_secs_f32()
                    );
                } else if line.contains("LAB-GUEST-DONE") {
                    // While the machine powers off, its shell loses the file system under it.
                    done = true;
                } else if ready && !done && !is_kernel_message(&line) {
                    println!("{line}");
                } else if line.contains("LAB-MACHINE:") {
                    eprintln!("{line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if !printed && accelerator == Accelerator::Hardware => {
                return Ok(Ended::Silent);
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("the machine did not end within {} s", job.timeout.as_secs())
            }
        }
    }
    machine.0.wait()?;
    if !ready && accelerator == Accelerator::Hardware {
        return Ok(Ended::Silent);
    }
    status(directory).with_context(|| {
        format!("QEMU's messages: {}", fs::read_to_string(&messages).unwrap_or_default().trim())
    })
}

/// The console is the terminal; the status still counts.
fn interactive(
    job: &Job,
    kernel: &Kernel,
    directory: &Path,
    accelerator: Accelerator,
) -> Result<bool> {
    println!("xtask: booting {} under QEMU with this terminal as its console", kernel.package);
    println!("xtask: leave the machine with 'exit'; end it at once with Ctrl-A X");
    command::run(qemu(job, kernel, directory, accelerator).args(["-serial", "mon:stdio"]))?;
    match status(directory)? {
        Ended::Status(ok) => Ok(ok),
        Ended::Silent => bail!("the machine never started"),
    }
}

fn status(directory: &Path) -> Result<Ended> {
    let status = fs::read_to_string(directory.join("status"))
        .context("the machine ended before the lab did (it left no status)")?;
    Ok(Ended::Status(status.trim() == "0"))
}

/// `[   12.345678] ...`: the kernel's own lines are not part of the narrative.
fn is_kernel_message(line: &str) -> bool {
    line.strip_prefix('[').is_some_and(|rest| {
        let time = rest.trim_start();
        time.starts_with(|first: char| first.is_ascii_digit())
            && time.split(']').next().is_some_and(is_seconds)
    })
}

fn is_seconds(text: &str) -> bool {
    text.contains('.')
        && text.chars().all(|character| character.is_ascii_digit() || character == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_messages_are_no_part_of_the_narrative() {
        assert!(is_kernel_message("[    3.560563] R13: 0000"));
        assert!(is_kernel_message("[12345.678901] nf_tables: x"));
        assert!(!is_kernel_message("[ok] 12 a statement"));
        assert!(!is_kernel_message("  12 ok  a statement [3.5]"));
    }
}
