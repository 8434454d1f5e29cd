//! When a group is written: at once, by this thread or by the flusher, or a moment later, since more appends are coming.
//!
//! Appends that come one by one from a few callers would settle at half of them a group: those of one half wait for the
//! fsync of the other. A wait of a fraction of an fsync lets all of them join one. It is bounded, and off for a lone caller.
//! With many callers sealing takes longer than the fsync, and the two overlap instead: then half of them make a group.
//!
//! And how long callers that were just answered are looked out for before the thread sleeps: it costs a core for as long,
//! and spares them the time that it takes to wake it, a fifth of an fsync on a fast disk.

use std::time::{Duration, Instant};

/// Of more callers than this half are waited for. 64: to seal that many takes about as long as an fsync.
const WAITED_FOR_MAX: usize = 64;

/// A wait lasts at most this part of a recent fsync: less than what the callers that are waited for would lose.
const WAIT_PART: f64 = 0.4;

/// What to do with the open group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Look again at once, when other threads have come by: a timer would be longer than the whole wait.
    Look,
    /// Look again after so long, on a disk so slow that a timer will do.
    Wait(Duration),
    /// Write it here: all who could join have joined, or there is a lone caller, who would only pay for the hop.
    Write,
    /// Let the flusher write it: others come meanwhile.
    HandOver,
}

/// To look out takes a core; to be woken costs 50 µs at most.
const LOOK_OUT_MAX: Duration = Duration::from_micros(50);

/// Of so many groups one is looked out for, at least: callers may have become quicker.
const VAIN_MAX: u32 = 31;

/// A timer's resolution is a millisecond.
const TIMER: Duration = Duration::from_millis(1);

/// What is known of the callers.
#[derive(Debug)]
pub(crate) struct Gather {
    /// Appends that the last group had: their callers are likely to come back.
    crowd: usize,
    /// Appends on their way that did not come in time when they were waited for: permits that someone keeps.
    absent: usize,
    waiting_since: Option<Instant>,
    /// So many groups' callers are not to be looked out for, since others did not come back.
    to_skip: u32,
    skipped: u32,
    /// How long an fsync takes, of late.
    fsync: Duration,
}

/// Whether so many appends are on their way that to seal them takes longer than the fsync, so that the two should overlap.
pub(crate) fn overlaps(known: usize) -> bool {
    known > WAITED_FOR_MAX
}

/// Where groups overlap, each has half of the appends: one half is in flight while the other is sealed.
pub(crate) fn half(known: usize) -> usize {
    known.div_ceil(2)
}

impl Gather {
    pub(crate) fn new() -> Gather {
        Gather { crowd: 0, absent: 0, waiting_since: None, to_skip: 0, skipped: 0, fsync: Duration::ZERO }
    }

    /// Takes note of how long a group's write and fsync took.
    pub(crate) fn took(&mut self, took: Duration) {
        // One that is far off, as when a disk stalls, must not make for long waits.
        let took = if self.fsync.is_zero() { took } else { took.min(self.fsync * 2) };
        self.fsync = (self.fsync * 7 + took) / 8;
    }

    /// Until when to look out for callers that have just been answered; not at all, for some groups, where they did not come.
    pub(crate) fn look_out_until(&mut self, now: Instant) -> Option<Instant> {
        if self.skipped < self.to_skip {
            self.skipped += 1;
            return None;
        }
        self.skipped = 0;
        Some(now + self.fsync.mul_f64(WAIT_PART).min(LOOK_OUT_MAX))
    }

    /// Whether one came while they were looked out for.
    pub(crate) fn came_back(&mut self, came: bool) {
        self.to_skip = if came { 0 } else { (self.to_skip * 2 + 1).min(VAIN_MAX) };
    }

    /// A group of so many appends is written.
    pub(crate) fn written(&mut self, joined: usize) {
        (self.crowd, self.waiting_since) = (joined, None);
    }

    /// What to do with a group of `joined` appends, where `known` are on their way to the ledger, those counted.
    pub(crate) fn verdict(&mut self, joined: usize, known: usize, now: Instant) -> Verdict {
        let coming = known.saturating_sub(joined);
        self.absent = self.absent.min(coming);
        let expected = self.crowd.max(joined + coming - self.absent);
        let (overlaps, others_come) = (overlaps(expected), coming > self.absent);
        if joined < if overlaps { half(expected) } else { expected } {
            let since = *self.waiting_since.get_or_insert(now);
            let left = self.fsync.mul_f64(WAIT_PART).saturating_sub(now.saturating_duration_since(since));
            if !left.is_zero() {
                return if left < TIMER { Verdict::Look } else { Verdict::Wait(TIMER) };
            }
            self.absent = coming;
        }
        self.written(joined);
        if overlaps && others_come { Verdict::HandOver } else { Verdict::Write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSYNC: Duration = Duration::from_micros(100);

    fn gather() -> (Gather, Instant) {
        let mut gather = Gather::new();
        (0..64).for_each(|_| gather.took(FSYNC));
        (gather, Instant::now())
    }

    #[test]
    fn a_lone_caller_never_waits() {
        let (mut gather, now) = gather();
        for _ in 0..3 {
            assert_eq!(gather.verdict(1, 1, now), Verdict::Write);
        }
    }

    #[test]
    fn callers_on_their_way_are_waited_for_and_expected_back() {
        let (mut gather, now) = gather();
        assert_eq!(gather.verdict(3, 16, now), Verdict::Look);
        assert_eq!(gather.verdict(16, 16, now), Verdict::Write);
        // Answered, and not back yet.
        assert_eq!(gather.verdict(1, 1, now), Verdict::Look);
        assert_eq!(gather.verdict(16, 16, now), Verdict::Write);
    }

    #[test]
    fn the_wait_is_bounded_and_a_crowd_that_has_gone_is_forgotten() {
        let (mut gather, now) = gather();
        assert_eq!(gather.verdict(16, 16, now), Verdict::Write);
        assert_eq!(gather.verdict(1, 1, now), Verdict::Look);
        assert_eq!(gather.verdict(1, 1, now + FSYNC.mul_f64(0.39)), Verdict::Look);
        assert_eq!(gather.verdict(1, 1, now + FSYNC.mul_f64(0.41)), Verdict::Write);
        assert_eq!(gather.verdict(1, 1, now + FSYNC), Verdict::Write);
    }

    #[test]
    fn a_permit_that_someone_keeps_is_waited_for_once() {
        let (mut gather, now) = gather();
        assert_eq!(gather.verdict(1, 2, now), Verdict::Look);
        assert_eq!(gather.verdict(1, 2, now + FSYNC), Verdict::Write);
        assert_eq!(gather.verdict(1, 2, now + FSYNC), Verdict::Write);
        // Another one is on its way besides.
        assert_eq!(gather.verdict(1, 3, now + FSYNC), Verdict::Look);
    }

    #[test]
    fn many_overlap_and_only_half_of_them_are_waited_for() {
        let (mut gather, now) = gather();
        assert_eq!(gather.verdict(40, 256, now), Verdict::Look);
        assert_eq!(gather.verdict(128, 256, now), Verdict::HandOver);
        assert_eq!(gather.verdict(40, 256, now), Verdict::Look);
        assert_eq!(gather.verdict(50, 256, now + FSYNC), Verdict::HandOver);
        assert_eq!(gather.verdict(256, 256, now), Verdict::Write);
        // The others do not come back; that is waited for once.
        assert_eq!(gather.verdict(100, 100, now), Verdict::Look);
        assert_eq!(gather.verdict(100, 100, now + FSYNC), Verdict::Write);
        assert_eq!(gather.verdict(60, 60, now + FSYNC), Verdict::Write);
    }

    #[test]
    fn callers_are_looked_out_for_while_they_come_back() {
        let (mut gather, now) = gather();
        let until = gather.look_out_until(now);
        assert!(until > Some(now) && until <= Some(now + FSYNC.mul_f64(WAIT_PART)));
        gather.came_back(true);
        assert!(gather.look_out_until(now).is_some());
        // One look in vain, then three, seven, and so on: so many groups are not looked out for.
        for skipped in [1, 3, 7, 15, 31, 31] {
            gather.came_back(false);
            for _ in 0..skipped {
                assert_eq!(gather.look_out_until(now), None);
            }
            assert!(gather.look_out_until(now).is_some());
        }
        gather.came_back(true);
        assert!(gather.look_out_until(now).is_some());
    }

    #[test]
    fn on_a_slow_disk_nobody_is_looked_out_for_longer_than_a_wake_up_takes() {
        let mut gather = Gather::new();
        (0..64).for_each(|_| gather.took(Duration::from_millis(20)));
        let now = Instant::now();
        assert_eq!(gather.look_out_until(now), Some(now + LOOK_OUT_MAX));
    }

    #[test]
    fn on_a_slow_disk_a_timer_waits() {
        let mut gather = Gather::new();
        (0..64).for_each(|_| gather.took(Duration::from_millis(20)));
        assert_eq!(gather.verdict(1, 2, Instant::now()), Verdict::Wait(TIMER));
    }

    #[test]
    fn a_disk_that_stalls_once_makes_for_no_long_wait() {
        let (mut gather, now) = gather();
        gather.took(Duration::from_secs(10));
        assert_eq!(gather.verdict(1, 2, now), Verdict::Look);
        assert_eq!(gather.verdict(1, 2, now + FSYNC), Verdict::Write);
    }
}
