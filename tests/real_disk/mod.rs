//! Real file systems for tests: an image on a loop device, mounted in a temporary directory, its power to be cut.
//! Root only.
#![allow(dead_code)] // each test uses some of it

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use counterfoil::actors::{Durability, Ledger};
use counterfoil::{AppendError, Draft, Expect, Receipt};

/// A kind of file system: how it is made, and how it is mounted.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub mkfs: &'static [&'static str],
    pub options: &'static str,
    pub bytes: u64,
}

pub const EXT4: Kind = Kind { mkfs: &["mkfs.ext4", "-q", "-F"], options: "data=ordered", bytes: 256 << 20 };

fn run(args: &[&str]) -> Result<String, String> {
    let (program, args) = args.split_first().unwrap();
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(format!("{program} {args:?}: {text}")) }
}

/// Whether a program can be started.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Why file systems can't be made and mounted here, if so.
pub fn missing() -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(1, |meta| meta.uid()) != 0 {
        return Some("only root can mount a file system".to_owned());
    }
    let absent: Vec<_> = ["mkfs.ext4", "mount", "umount", "python3"].into_iter().filter(|program| !has(program)).collect();
    if !absent.is_empty() {
        return Some(format!("{} not found", absent.join(", ")));
    }
    let temp = tempfile::tempdir().unwrap();
    let mounted = Disk::make(temp.path(), &EXT4).and_then(|mut disk| disk.try_mount());
    mounted.err().map(|error| format!("nothing can be mounted on a loop device: {error}"))
}

/// An image in a directory, and the place beside it where it is mounted.
pub struct Disk {
    image: PathBuf,
    pub mount: PathBuf,
    options: &'static str,
    mounted: bool,
}

impl Disk {
    /// Makes a sparse image with an empty file system in it.
    pub fn make(dir: &Path, kind: &Kind) -> Result<Disk, String> {
        let (image, mount) = (dir.join("image"), dir.join("mount"));
        std::fs::File::create(&image).and_then(|file| file.set_len(kind.bytes)).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        run(&[kind.mkfs, &[image.to_str().unwrap()]].concat())?;
        Ok(Disk { image, mount, options: kind.options, mounted: false })
    }

    fn try_mount(&mut self) -> Result<(), String> {
        let options = format!("loop,{}", self.options);
        run(&["mount", "-o", &options, self.image.to_str().unwrap(), self.mount.to_str().unwrap()])?;
        self.mounted = true;
        Ok(())
    }

    /// Mounts it; after a cut this replays the journal.
    pub fn mount(&mut self) {
        self.try_mount().unwrap();
    }

    pub fn unmount(&mut self) {
        run(&["umount", self.mount.to_str().unwrap()]).unwrap();
        self.mounted = false;
    }
}

impl Drop for Disk {
    /// Also where a test fails; whatever still holds a file of it open, the mount is gone with it.
    fn drop(&mut self) {
        if self.mounted {
            let _ = run(&["umount", "-l", self.mount.to_str().unwrap()]);
        }
    }
}

/// Memory that is mounted as a file system of so many bytes.
pub struct Memory(pub PathBuf);

impl Memory {
    pub fn mount(at: &Path, bytes: u64) -> Memory {
        std::fs::create_dir_all(at).unwrap();
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={bytes}"), "counterfoil-test", at.to_str().unwrap()]).unwrap();
        Memory(at.to_owned())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = run(&["umount", "-l", self.0.to_str().unwrap()]);
    }
}

/// The process that cuts the power: `tests/tools/cut_power.py`, since an ioctl from here would need unsafe code.
pub struct Cutter {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Cutter {
    pub fn start() -> Cutter {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/cut_power.py");
        let mut child = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Cutter { child, to, from }
    }

    /// When this returns, nothing more reaches the device. Answers when the cut began, in nanoseconds since 1970.
    pub fn cut(&mut self, flag: u64, mount: &Path) -> u128 {
        writeln!(self.to, "{flag} {}", mount.display()).unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        let began = answer.trim_end().strip_prefix("cut ").and_then(|began| began.parse().ok());
        let probe = std::fs::write(mount.join("written after the cut"), "x");
        assert!(probe.is_err(), "the power is off, and a file could be made");
        began.unwrap_or_else(|| panic!("FS_IOC_SHUTDOWN: {answer}"))
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes to a file until the disk is full, then gives this many bytes back.
pub fn fill(ballast: &Path, left: u64) {
    let mut file = std::fs::File::create(ballast).unwrap();
    for step in [1 << 20, 64 << 10, 4096, 1024] {
        while file.write_all(&vec![b'b'; step]).is_ok() {}
    }
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(left)).unwrap();
}

/// Where zram devices are made and removed.
const ZRAM: &str = "/sys/class/zram-control";

/// Why no disk can be made to fail here, if so.
pub fn missing_failing() -> Option<String> {
    let zram = Path::new(ZRAM).join("hot_add").exists();
    missing().or_else(|| (!zram).then(|| format!("no zram in this kernel ({ZRAM})")))
}

/// A disk whose device fails when it is told to: compressed memory (zram), which says EIO to each write once it has used
/// the memory that it may, and keeps what it had. (A loop device on a full file system is no such disk: where only a part
/// of a write finds room, it says that all is well.)
pub struct Failing {
    pub mount: PathBuf,
    zram: String,
    journal: Option<String>,
    _memory: Memory,
}

impl Failing {
    /// Mounted. Where its journal is on another device, only the data of files fail, and the page cache goes on to show
    /// them; else the first failure makes the file system read-only.
    pub fn new(dir: &Path, journal_elsewhere: bool) -> Failing {
        let memory = Memory::mount(&dir.join("memory"), 32 << 20);
        let zram = std::fs::read_to_string(Path::new(ZRAM).join("hot_add")).unwrap().trim().to_owned();
        let mut failing = Failing { mount: dir.join("mount"), zram, journal: None, _memory: memory };
        failing.set("disksize", "64M");
        let device = failing.device();
        if journal_elsewhere {
            let image = failing._memory.0.join("journal");
            std::fs::File::create(&image).and_then(|file| file.set_len(8 << 20)).unwrap();
            let journal = run(&["losetup", "-f", "--show", image.to_str().unwrap()]).unwrap().trim().to_owned();
            failing.journal = Some(journal.clone());
            run(&["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "journal_dev", &journal]).unwrap();
            run(&["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", &format!("device={journal}"), &device]).unwrap();
        } else {
            run(&["mkfs.ext4", "-q", "-F", "-b", "4096", &device]).unwrap();
        }
        std::fs::create_dir_all(&failing.mount).unwrap();
        failing.remount();
        failing
    }

    fn device(&self) -> String {
        format!("/dev/zram{}", self.zram)
    }

    fn set(&self, what: &str, to: &str) {
        std::fs::write(format!("/sys/block/zram{}/{what}", self.zram), to).unwrap();
    }

    /// From now on writes fail.
    pub fn fail(&self) {
        self.set("mem_limit", "4096");
    }

    /// From now on they don't. A file system that has become read-only stays so until it is mounted again.
    pub fn heal(&self) {
        self.set("mem_limit", "0");
    }

    /// Mounts it again.
    pub fn remount(&self) {
        let mount = self.mount.to_str().unwrap();
        let _ = run(&["umount", mount]); // at first it is not mounted
        run(&["mount", &self.device(), mount]).unwrap();
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = run(&["umount", self.mount.to_str().unwrap()]).or_else(|_| run(&["umount", "-l", self.mount.to_str().unwrap()]));
        if let Some(journal) = &self.journal {
            let _ = run(&["losetup", "-d", journal]);
        }
        let _ = std::fs::write(Path::new(ZRAM).join("hot_remove"), &self.zram);
    }
}

/// Far more appends than the disks of these tests have room for.
pub const APPENDS_MAX: u64 = 10_000;
/// What takes longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// One task appends until the first error; answers the receipts, and it.
pub async fn append_until_error(ledger: Ledger, draft: fn(u64, u64) -> Draft, task: u64) -> (Vec<Receipt>, AppendError) {
    let mut receipts = Vec::new();
    for n in 0..APPENDS_MAX {
        let durability = if (task + n).is_multiple_of(2) { Durability::Mirrored } else { Durability::Ledger };
        match ledger.append_with(draft(task, n), Expect::Any, durability).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => return (receipts, error),
        }
    }
    panic!("the disk has room for all of it");
}

pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}
