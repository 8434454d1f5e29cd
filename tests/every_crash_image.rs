//! Goal: of short histories no crash is left to chance: the power, or the process alone, goes at each operation of the ledger
//! in turn, and the disk comes back in each state that it may come back in; all of them recover, and what was acknowledged
//! is there.
//!
//! Method: the simulated disk, with a script that goes through all choices (each name: old or new; each length; each sector:
//! each version that was written). After each image, one more append is acknowledged, and the power goes again, and all
//! that is not durable is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod common;

use std::path::Path;

use common::history::{DIR, History, Process};
use common::simulated::{Choices, SimDisk};
use counterfoil::*;

/// A step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A group of one event with so much text.
    One(usize),
    /// A group of an event and a batch of two.
    Group,
    /// The mirror commits all that is durable.
    Mirror,
    /// The store is closed, or its process killed, and opened again.
    Close,
    Kill,
    /// The store is closed, its sealed segments compressed or made plain again, and it is opened.
    Compress,
    Decompress,
}

fn write(history: &mut History, process: &mut Process, numbers: &[&[usize]]) -> bool {
    let mut staged = Vec::new();
    for numbers in numbers {
        if numbers.len() > 1 {
            history.batch(numbers);
        }
        match history.stage(process, numbers).unwrap() {
            Stage::Staged(Staged { receipts, .. }) => staged.push((*numbers, receipts)),
            Stage::GroupFull => panic!("a group is full"),
        }
    }
    let is_written = process.writer.flush().is_ok();
    if is_written {
        for (numbers, receipts) in staged {
            history.acknowledge(numbers, &receipts);
        }
    }
    is_written
}

/// Runs the steps until they end or the power does.
fn play(history: &mut History, steps: &[Step]) {
    let Ok(mut process) = history.open() else { return };
    for step in steps {
        let goes_on = match step {
            Step::One(bytes) => {
                let number = history.draft(true, Some(1), *bytes);
                write(history, &mut process, &[&[number]])
            }
            Step::Group => {
                let numbers = [history.draft(true, None, 10), history.draft(true, Some(1), 20), history.draft(true, Some(2), 300)];
                write(history, &mut process, &[&numbers[..1], &numbers[1..]])
            }
            Step::Mirror => {
                history.replay(&mut process, usize::MAX);
                true
            }
            Step::Close | Step::Kill => {
                let closed = matches!(step, Step::Kill) || process.writer.trim().is_ok();
                drop(process);
                match history.open() {
                    Ok(next) => process = next,
                    Err(_) => return,
                }
                closed
            }
            Step::Compress | Step::Decompress => {
                drop(process);
                let form = if matches!(step, Step::Compress) { compress } else { decompress };
                let done = form(Path::new(DIR), &history.options, &Sealed::AllBut(0), &mut |_| ());
                match history.open() {
                    Ok(next) => process = next,
                    Err(_) => return,
                }
                !done.unwrap().is_empty()
            }
        };
        if !goes_on {
            return;
        }
    }
}

/// Looks at one image: it opens, an append is taken, and both survive the loss of all that is not durable.
fn survives(mut history: History) {
    for _ in 0..2 {
        let mut process = history.open().unwrap_or_else(|error| panic!("{error}"));
        let number = history.draft(true, Some(1), 5);
        assert!(write(&mut history, &mut process, &[&[number]]));
        drop(process);
        // A script of its own picks the first of all choices: nothing that is not durable is kept.
        history = history.on(history.disk.fork(Choices::every()));
        history.disk.cut();
    }
    history.open().unwrap_or_else(|error| panic!("{error}"));
}

/// Goes through all images of all cuts of a history; answers how many cuts and images there were, and how many were torn.
fn every_image(steps: &[Step], segment_bytes_max: u64, preallocate: bool) -> (u64, u64, u64) {
    let (mut cuts, mut images, mut torn) = (0, 0, 0);
    for power in 0.. {
        let disk = SimDisk::new(Path::new("/simulated"), Choices::every());
        disk.faults(|faults| faults.power = Some(power));
        let mut history = History::new(disk, segment_bytes_max);
        history.options.preallocate = preallocate;
        play(&mut history, steps);
        if !history.disk.is_off() {
            return (cuts, images, torn);
        }
        cuts += 1;
        // The process alone may go as well: the next one goes on with names and bytes that nobody has made durable.
        let killed = history.on(history.disk.fork(Choices::every()));
        killed.disk.kill();
        survives(killed);
        let mut choices = Choices::every();
        loop {
            let image = history.on(history.disk.fork(choices));
            image.disk.cut();
            choices = image.disk.choices();
            images += 1;
            let again = image.on(image.disk.fork(Choices::every()));
            let mut probe = again.on(again.disk.fork(Choices::every()));
            torn += u64::from(probe.open().is_ok() && probe.counts.torn > again.counts.torn);
            survives(again);
            if !choices.advance() {
                break;
            }
        }
    }
    (cuts, images, torn)
}

/// Whether a segment is there in both forms.
fn has_both_forms(disk: &SimDisk) -> bool {
    let names = disk.list(&Path::new(DIR).join("segments")).unwrap_or_default();
    names.iter().any(|name| names.contains(&format!("{name}.zst")))
}

/// A kill, and then the power goes at each operation of the next open; answers how many images there were.
fn every_cut_of_the_open_after(killed: &History) -> u64 {
    let mut images = 0;
    for power in 0.. {
        let mut opening = killed.on(killed.disk.fork(Choices::every()));
        opening.disk.faults(|faults| faults.power = Some(power));
        // A read that the power fails is no ground for a verdict.
        let opened = opening.open().map(drop);
        if !opening.disk.is_off() {
            opened.unwrap_or_else(|error| panic!("{error}"));
            return images;
        }
        let mut choices = Choices::every();
        loop {
            // What that open has presented was acknowledged before, or is not known to anybody.
            let image = killed.on(opening.disk.fork(choices));
            image.disk.cut();
            choices = image.disk.choices();
            images += 1;
            survives(image.on(image.disk.fork(Choices::every())));
            if !choices.advance() {
                break;
            }
        }
    }
    images
}

#[test]
fn the_power_goes_while_an_open_settles_what_a_kill_has_left() {
    use Step::{Compress, Decompress, Mirror, One};
    let (mut kills, mut images) = (0, 0);
    for power in 0.. {
        let disk = SimDisk::new(Path::new("/simulated"), Choices::every());
        disk.faults(|faults| faults.power = Some(power));
        let mut history = History::new(disk, 800);
        play(&mut history, &[One(300), One(300), Mirror, Compress, Decompress]);
        if !history.disk.is_off() {
            break;
        }
        let killed = history.on(history.disk.fork(Choices::every()));
        killed.disk.kill();
        if has_both_forms(&killed.disk) {
            kills += 1;
            images += every_cut_of_the_open_after(&killed);
        }
    }
    eprintln!("{kills} kills between the two names of a segment, {images} images of the opens after them; all recovered");
    assert!(kills > 2 && images > kills, "there and back");
}

#[test]
fn every_image_of_every_cut_of_short_histories_recovers() {
    use Step::{Close, Compress, Decompress, Group, Kill, Mirror, One};
    let histories: [(&str, &[Step], u64); 10] = [
        ("one event", &[One(10)], 64 << 20),
        ("a group with a batch", &[Group, Mirror], 64 << 20),
        ("a line over three sectors", &[One(10), Mirror, One(1000)], 64 << 20),
        ("rotation", &[One(300), One(300), One(300)], 800),
        ("close and open", &[One(10), Mirror, Close, One(10)], 64 << 20),
        ("compress", &[One(300), One(300), Mirror, Compress, One(300)], 800),
        ("compress and undo", &[One(300), One(300), Mirror, Compress, Decompress], 800),
        ("kill and open", &[Group, Kill, One(10), Kill], 64 << 20),
        ("blank lines ahead", &[One(10), One(10)], 1500),
        ("blank lines ahead, killed, rotated", &[One(10), Kill, One(400)], 900),
    ];
    for (name, steps, segment_bytes_max) in histories {
        let (cuts, images, torn) = every_image(steps, segment_bytes_max, name.starts_with("blank"));
        eprintln!("{name}: {cuts} cuts, {images} images, {torn} with a torn tail; all recovered");
        assert!(images > cuts, "{name}: the cuts leave nothing open");
    }
}
