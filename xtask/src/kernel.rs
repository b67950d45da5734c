//! Debian's own kernel for the throw-away machine: downloaded as a package, unpacked and never
//! installed.

use crate::{command, packages};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules the machine needs before it has a root file system.
const EARLY_MODULES: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// The kernels that Debian 12 ships.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Series {
    /// The one that Debian 12 was released with.
    #[default]
    #[value(name = "6.1")]
    Released,
    /// The later one of its updates, with tables that belong to a process for good (`persist`).
    #[value(name = "6.12")]
    Later,
}

impl Series {
    /// The package that depends on the newest kernel of this series.
    fn meta_package(self) -> &'static str {
        match self {
            Self::Released => "linux-image-amd64",
            Self::Later => "linux-image-6.12-amd64",
        }
    }

    /// How the names of its packages begin.
    fn prefix(self) -> &'static str {
        match self {
            Self::Released => "linux-image-6.1.",
            Self::Later => "linux-image-6.12.",
        }
    }
}

/// An unpacked kernel with its initial RAM disk.
pub(crate) struct Kernel {
    /// Debian's package name, for the narrative.
    pub package: String,
    pub image: PathBuf,
    /// The initial RAM disk.
    pub initial_disk: PathBuf,
    /// The directory that holds `lib/modules`.
    pub tree: PathBuf,
}

/// The cached kernel, fetched first when it is missing.
///
/// # Errors
/// When the archive cannot be reached or a tool fails.
pub(crate) fn fetch(series: Series) -> Result<Kernel> {
    let architecture = command::output("dpkg", &["--print-architecture"])?;
    if architecture.trim() != "amd64" {
        bail!(
            "the lab's machine knows amd64 only; on {} use a kernel with ESP and nf_tables",
            architecture.trim()
        );
    }
    let cache = cache_directory()?;
    // A kernel that is here already serves: the lab must also run without a network.
    let package = match cached(&cache, series)? {
        Some(package) => package,
        None => newest_package(series)?,
    };
    let directory = cache.join(&package);
    let tree = directory.join("tree");
    if !directory.join("complete").exists() {
        println!("xtask: fetching {package} (about 100 MB, once)");
        unpack(&package, &directory, &tree)?;
        fs::write(directory.join("complete"), "")?;
    }
    let release = only_entry(&tree.join("lib/modules"))?;
    let initial_disk = directory.join("initial.cpio");
    write_initial_disk(&tree, &release, &initial_disk)?;
    let image = tree.join("boot").join(format!("vmlinuz-{release}"));
    Ok(Kernel { package, image, initial_disk, tree })
}

/// Where unpacked kernels and what was learnt about this host are kept.
///
/// # Errors
/// When the directory cannot be made.
pub(crate) fn cache_directory() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => command::target_directory()?,
    };
    let directory = base.join("gdoi-lab");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

fn cached(cache: &Path, series: Series) -> Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(series.prefix()) && entry.path().join("complete").exists() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.pop())
}

/// The meta package names the newest kernel; its `-unsigned` twin can be unpacked without
/// installing anything.
fn newest_package(series: Series) -> Result<String> {
    packages::fill_lists()?;
    let depends = command::output("apt-cache", &["depends", series.meta_package()])?;
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(series.prefix()))
        .map(|name| format!("{}-unsigned", name.trim_end_matches("-unsigned")))
        .with_context(|| {
            let wanted = series.meta_package();
            format!("the package lists know no {wanted}; run as root: apt-get update")
        })
}

fn unpack(package: &str, directory: &Path, tree: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(tree)?;
    let download = || {
        Command::new("apt-get")
            .args(["download", "--quiet", package])
            .current_dir(directory)
            .output()
    };
    if !download()?.status.success() && command::is_root() {
        command::run(Command::new("apt-get").args(["update", "--quiet"]))?;
    }
    let archive = match package_file(directory)? {
        Some(archive) => archive,
        None => {
            let second = download()?;
            package_file(directory)?.with_context(|| {
                format!(
                    "apt-get download {package}: {}",
                    String::from_utf8_lossy(&second.stderr).trim()
                )
            })?
        }
    };
    command::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(tree))?;
    fs::remove_file(archive)?;
    let release = only_entry(&tree.join("lib/modules"))?;
    command::run(Command::new(program("depmod")?).arg("-b").arg(tree).arg(release))
}

fn package_file(directory: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn only_entry(directory: &Path) -> Result<String> {
    let mut entries = fs::read_dir(directory)
        .with_context(|| format!("the kernel package has no {}", directory.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", directory.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

fn program(name: &str) -> Result<PathBuf> {
    packages::find(name).with_context(|| format!("{name} is not installed"))
}

/// A RAM disk of busybox, the early modules and our `init`.
fn write_initial_disk(tree: &Path, release: &str, file: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in ["bin", "proc", "sys", "dev", "newroot", "modules"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", &fs::read(program("busybox")?)?, 0o755);
    let mut order = String::new();
    for path in module_files(tree, release)? {
        let (name, octets) = module(&path)?;
        archive.file(&format!("modules/{name}"), &octets, 0o644);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes(), 0o644);
    let init = command::workspace().join("integration/machine/init");
    archive.file(
        "init",
        &fs::read(&init).with_context(|| format!("cannot read {}", init.display()))?,
        0o755,
    );
    fs::write(file, archive.finish())?;
    Ok(())
}

fn module_files(tree: &Path, release: &str) -> Result<Vec<PathBuf>> {
    let modprobe = program("modprobe")?.to_string_lossy().into_owned();
    let tree = tree.to_string_lossy();
    let mut files: Vec<PathBuf> = Vec::new();
    for name in EARLY_MODULES {
        let plan =
            command::output(&modprobe, &["-d", &tree, "-S", release, "--show-depends", name])?;
        for line in plan.lines() {
            // "insmod FILE" or "builtin NAME"
            if let Some(path) = line.strip_prefix("insmod ") {
                let path = PathBuf::from(path.trim());
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
    }
    Ok(files)
}

/// A module's file name and octets; newer Debian kernels compress them.
fn module(path: &Path) -> Result<(String, Vec<u8>)> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(plain) = name.strip_suffix(".xz") {
        let output = Command::new("xz")
            .arg("-dc")
            .arg(path)
            .output()
            .context("xz is not installed (xz-utils)")?;
        return Ok((plain.to_owned(), output.stdout));
    }
    Ok((name, fs::read(path)?))
}

/// The kernel's own archive format, "newc"
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    octets: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, content: &[u8], mode: u32) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.octets.extend_from_slice(b"070701");
        for field in fields {
            self.octets.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.octets.extend_from_slice(name.as_bytes());
        self.octets.push(0);
        self.pad();
        self.octets.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_entries_are_aligned_and_counted() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/a", b"abcde", 0o755);
        let octets = archive.finish();
        assert_eq!(octets.len() % 4, 0);
        assert_eq!(octets[..6], *b"070701");
        // mode of the first entry, then its name
        assert_eq!(octets[14..22], *b"000041ed");
        assert_eq!(octets[110..114], *b"bin\0");
        let text = String::from_utf8_lossy(&octets);
        assert!(text.contains("abcde"));
        assert!(text.contains("TRAILER!!!"));
    }
}
