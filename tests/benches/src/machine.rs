//! What the numbers were measured on, and getting it ready.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The machine, the disk, the versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub processor: String,
    pub processors: usize,
    pub memory_gib: f64,
    pub kernel: String,
    pub file_system: String,
    pub versions: Vec<String>,
    pub command: String,
}

/// File systems in memory: what is measured there says nothing of a disk.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

impl Machine {
    /// This machine, with the disk that holds a directory.
    pub fn of(dir: &Path) -> Machine {
        let cpuinfo = read("/proc/cpuinfo");
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
        Machine {
            date: counterfoil::Timestamp::from_micros(micros).to_string().chars().take(16).collect::<String>().replace('T', " ") + " UTC",
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            processors: std::thread::available_parallelism().map_or(1, Into::into),
            memory_gib: meminfo_kib("MemTotal:") as f64 / 1_048_576.0,
            kernel: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            file_system: file_system(dir).unwrap_or_else(|| "unknown".to_owned()),
            versions: versions(),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }

    /// Whether the directory is in memory.
    pub fn is_in_memory(&self) -> bool {
        self.file_system.split(' ').next().is_some_and(|name| IN_MEMORY.contains(&name))
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn meminfo_kib(key: &str) -> u64 {
    let meminfo = read("/proc/meminfo");
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Kind, device and options of the file system that holds a directory: that of the longest mount point above it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = read("/proc/self/mounts");
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = mounts.filter(|mount| mount.len() > 3 && dir.starts_with(mount[1]));
    // Of several on one mount point the last one counts.
    let mount = holding.max_by_key(|mount| mount[1].len())?;
    Some(format!("{} on {} ({})", mount[2], mount[0], mount[3]))
}

/// Versions of the library, the compiler, and what it is measured beside.
fn versions() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = said("git", &["describe", "--always", "--dirty"]).unwrap_or_else(|| "unknown".to_owned());
    let mut versions = vec![format!("counterfoil {commit}")];
    versions.extend(said("rustc", &["--version"]));
    versions.push(format!("SQLite {}", counterfoil::rusqlite::version()));
    let lock = std::fs::read_to_string(root.join("peers/Cargo.lock")).unwrap_or_default();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("name = \"").and_then(|name| name.strip_suffix('"'));
        let Some(name @ ("crtx-store" | "batpak" | "logdb" | "okaywal" | "fjall" | "redb" | "libsqlite3-sys")) = name else { continue };
        let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
        versions.push(format!("{name} {}", version.unwrap_or("?")));
    }
    versions
}

/// Touches memory before it is measured with: pages of a virtual machine that its host has not backed yet make growing
/// files two or three times slower the first time. Taken and given back here, they are there when the page cache
/// wants them. At most half of what is free.
pub fn touch_memory(gib: f64) {
    let wanted = (gib * 1_048_576.0) as u64;
    let kib = wanted.min(meminfo_kib("MemFree:") / 2);
    let mut pages = vec![0_u8; kib as usize * 1024];
    for page in pages.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&pages);
}
