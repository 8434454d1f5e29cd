//! The lives of the store: how they end, what that leaves of its files, and how the next one begins.

use std::path::PathBuf;
use std::time::Duration;

use counterfoil::actors::Ledger;
use rusqlite::Connection;

use super::ops::{MIRROR, Op, SNAPSHOTS, derived, remove};
use super::world::{DEADLINE, Trouble, World};

/// How a life of the store ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    /// The process ends after so many operations of the disk; what it wrote is still there.
    Killed(u64),
    /// So does the machine: what is not durable is there, or not, or in part.
    Cut(u64),
    /// An operation of the disk fails, and the process ends a while later.
    Failed(u64),
}

impl World {
    /// Ends the life of the store, and begins another.
    pub(super) async fn reopen(&mut self) {
        let operations = [30, 300][self.chance.random.below(2) as usize];
        let operations = self.chance.random.below(operations);
        let end = match self.chance.random.below(6) {
            0 | 1 => End::Closed,
            2 | 3 => End::Killed(operations),
            4 => End::Cut(operations),
            _ => End::Failed(operations),
        };
        self.say(format!("the store ends: {end:?}"));
        if self.chance.random.chance(2) {
            self.locks = [None, None];
        }
        let mut ops = if self.chance.random.chance(3) { Vec::new() } else { self.burst() };
        let from = self.positions();
        let closes = matches!(end, End::Closed);
        let trouble = Trouble { power: !closes, closing: closes, ..self.trouble(&ops) };
        match end {
            End::Closed if ops.is_empty() => {}
            End::Closed => ops.push((self.chance.yields(), Op::CloseLedger)),
            End::Killed(power) | End::Cut(power) => self.disk.faults(|faults| faults.power = Some(power)),
            End::Failed(after) => self.disk.faults(|faults| faults.fail = Some((after, std::io::ErrorKind::Other))),
        }
        let done = self.do_all(ops).await;
        let image = if closes { None } else { self.crash_image() };
        if !closes {
            self.disk.faults(|faults| faults.power = Some(0));
        }
        self.close().await;
        match end {
            End::Closed => {}
            End::Killed(_) | End::Failed(_) => self.disk.kill(),
            End::Cut(_) => self.disk.cut(),
        }
        self.count(match end {
            End::Closed => "stores closed and opened",
            End::Killed(_) => "processes killed",
            End::Cut(_) => "power cuts",
            End::Failed(_) => "operations of the disk failed",
        });
        self.spoil(image);
        self.open().await;
        self.read_lines(true);
        self.judge(done, &from, trouble);
    }

    /// Derived files as a process leaves them that ends now.
    fn crash_image(&mut self) -> Option<Vec<(PathBuf, Vec<u8>)>> {
        if !self.chance.random.chance(2) {
            return None;
        }
        let mut held = Vec::new();
        for (which, names) in [MIRROR, SNAPSHOTS].iter().enumerate() {
            if self.locks[which].is_none() && self.dir.join(names[0]).exists() {
                // Nothing is written, and no WAL is begun anew, while it is copied.
                let connection = Connection::open(self.dir.join(names[0])).ok()?;
                connection.busy_timeout(Duration::from_millis(20)).ok()?;
                connection.execute_batch("BEGIN IMMEDIATE").ok()?;
                held.push(connection);
            }
        }
        Some(derived(&self.dir))
    }

    /// What a crash, or somebody, makes of the derived files while the store is closed.
    fn spoil(&mut self, image: Option<Vec<(PathBuf, Vec<u8>)>>) {
        if let Some(image) = image {
            self.put_back(image);
            self.count("derived files as a crash leaves them");
        }
        match self.chance.random.below(12) {
            0 => {
                remove(&self.dir, &MIRROR);
                self.count("mirrors removed while closed");
            }
            1 => {
                remove(&self.dir, &SNAPSHOTS);
                self.count("snapshots removed while closed");
            }
            2 => {
                remove(&self.dir, &MIRROR);
                remove(&self.dir, &SNAPSHOTS);
                self.count("all that is derived removed");
            }
            3 => {
                remove(&self.dir, &SNAPSHOTS);
                std::fs::write(self.dir.join(SNAPSHOTS[0]), "no database, but long enough to be looked at as one").unwrap();
                self.count("snapshots spoilt");
            }
            4 if !self.images.is_empty() => {
                let at = self.chance.random.below(self.images.len() as u64);
                let image = self.images[at as usize].clone();
                self.put_back(image);
                self.count("derived files put back as they once were");
            }
            _ => self.images.push(derived(&self.dir)),
        }
    }

    fn put_back(&mut self, image: Vec<(PathBuf, Vec<u8>)>) {
        self.locks = [None, None];
        remove(&self.dir, &MIRROR);
        remove(&self.dir, &SNAPSHOTS);
        for (path, bytes) in image {
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(super) async fn close(&mut self) {
        let (bank, ledger) = (self.bank.take().unwrap(), self.ledger.take().unwrap());
        // In either order.
        let first = self.chance.random.chance(2);
        let (mut bank, mut ledger) = (Some(bank), Some(ledger));
        for is_bank in [first, !first] {
            let closing = async {
                if is_bank {
                    bank.take().unwrap().close().await;
                } else {
                    drop(ledger.take().unwrap().close().await);
                }
            };
            let closed = tokio::time::timeout(DEADLINE, closing).await;
            closed.unwrap_or_else(|_| panic!("closing hangs: of the registry {is_bank}, which comes first {first}"));
        }
    }

    pub(super) async fn open(&mut self) {
        let ledger = tokio::time::timeout(DEADLINE, Ledger::open_with(&self.dir, self.options.clone())).await.expect("opening hangs");
        self.ledger = Some(ledger.unwrap_or_else(|error| panic!("{error}")));
        (self.mirror_is_behind, self.mirror_is_removed) = (true, false);
        self.open_bank().await;
    }
}
