//! LedgerActor's groups: when the open one is written, on which thread, and who is told once it is durable.
//!
//! Called by the actor alone. What a group is made of is staged before; how long to wait for more, `gather` decides.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{LedgerMsg, LedgerState, Me};
use crate::actors::flusher::Flusher;
use crate::actors::gather::{self, Verdict};
use crate::actors::message::Durability;
use crate::actors::supervisor::Exit;
use crate::actors::waiting::{self, Waiting};
use crate::canary::{self, Canary};
use crate::{AppendError, Flight, Group, LedgerError, failpoint};

impl LedgerState {
    /// Casts the flush behind what is in the mailbox, or writes at once where the group is large enough. While a group is in
    /// flight its landing sees to the next.
    pub(super) fn see_to_flush(&mut self, me: &Me) -> Result<(), Exit> {
        if self.writer.open_group().1 == 0 || self.writer.in_flight().is_some() {
            return Ok(());
        }
        if self.is_full() {
            return self.hand_over(me);
        }
        if !self.flush_cast {
            let linger = self.context.shared.options.linger;
            self.flush_cast = true;
            if !linger.is_zero() {
                me.send_after(linger, || LedgerMsg::Flush);
            } else if me.cast(LedgerMsg::Flush).is_err() {
                // A stopping actor refuses its own messages.
                self.flush_cast = false;
                return self.flush();
            }
        }
        Ok(())
    }

    /// Whether the open group is to be written though more could join.
    fn is_full(&self) -> bool {
        let ((bytes, events), options) = (self.writer.open_group(), &self.context.shared.options);
        bytes >= options.group_bytes_target || events >= options.store.group_events_max
    }

    /// Writes the open group, here or by the flusher; or looks again behind what comes meanwhile.
    pub(super) fn flush_when_due(&mut self, me: &Me) -> Result<(), Exit> {
        if self.writer.in_flight().is_some() || self.writer.open_group().1 == 0 {
            return self.stage_deferred(me);
        }
        match self.gathered(me)? {
            // What was gathered has been written, or is on its way.
            None => return self.stage_deferred(me),
            Some(Verdict::Wait(pause)) => {
                self.flush_cast = true;
                me.send_after(pause, || LedgerMsg::Flush);
                return Ok(());
            }
            Some(Verdict::Write) => self.flush()?,
            Some(Verdict::HandOver) => self.hand_over(me)?,
            Some(Verdict::Look) => {}
        }
        // A group that was dropped leaves room, and no word of the mirror's will come for it.
        self.stage_deferred(me)?;
        self.await_callers(me)
    }

    /// Gathers appends for the open group, for as long as that is short; answers what to do with it then.
    fn gathered(&mut self, me: &Me) -> Result<Option<Verdict>, Exit> {
        let shared = self.context.shared.clone();
        let mut watch = None;
        loop {
            let verdict = self.gather.verdict(self.waiting.len(), self.on_their_way(), Instant::now());
            if verdict != Verdict::Look {
                return Ok(Some(verdict));
            }
            let watch = watch.get_or_insert_with(|| shared.inbox.watch());
            // The callers that are waited for may need this very core.
            std::thread::yield_now();
            if watch.posted() {
                self.take_posted(me)?;
                if self.writer.in_flight().is_some() || self.writer.open_group().1 == 0 {
                    return Ok(None);
                }
                if self.is_full() {
                    self.gather.written(self.waiting.len());
                    return Ok(Some(Verdict::HandOver));
                }
            }
        }
    }

    /// Callers that were answered are likely to come back at once: looks out for them a moment, before this thread sleeps,
    /// since to wake it takes longer. Only while they do come back.
    fn await_callers(&mut self, me: &Me) -> Result<(), Exit> {
        if self.writer.in_flight().is_some() || self.writer.open_group().1 > 0 || !self.deferred.is_empty() {
            return Ok(());
        }
        let Some(until) = self.gather.look_out_until(Instant::now()) else { return Ok(()) };
        let shared = self.context.shared.clone();
        let watch = shared.inbox.watch();
        while !watch.posted() {
            if Instant::now() >= until {
                self.gather.came_back(false);
                return Ok(());
            }
            std::thread::yield_now();
        }
        self.gather.came_back(true);
        self.take_posted(me)?;
        self.see_to_group(me)
    }

    /// Appends that have a permit, but for those that wait for the mirror.
    pub(super) fn on_their_way(&self) -> usize {
        self.context.shared.permits.appends().saturating_sub(self.deferred.len())
    }

    /// Writes all that is staged, on this thread, and waits for what is in flight.
    pub(super) fn flush(&mut self) -> Result<(), Exit> {
        self.wait_for_flight()?;
        match self.depart()? {
            Some(flight) => self.fly_here(flight),
            None => Ok(()),
        }
    }

    /// Lets the flusher write the open group.
    fn hand_over(&mut self, me: &Me) -> Result<(), Exit> {
        let Some(flight) = self.depart()? else { return Ok(()) };
        if self.flusher.is_none() {
            match Flusher::start(me.clone()) {
                Ok(flusher) => self.flusher = Some(flusher),
                Err(error) => tracing::warn!(actor = "ledger", %error, "no thread to write on; writing on the actor's own"),
            }
        }
        let back = match &self.flusher {
            Some(flusher) => flusher.fly(flight).err(),
            None => Some(flight),
        };
        match back {
            None => Ok(()),
            Some(flight) => self.fly_here(flight),
        }
    }

    fn fly_here(&mut self, mut flight: Flight) -> Result<(), Exit> {
        flight.fly();
        self.land(flight)
    }

    /// Closes the open group, and with it the list of those who wait for it.
    fn depart(&mut self) -> Result<Option<Flight>, Exit> {
        self.sign()?;
        if canary::on(Canary::AcknowledgeFirst) {
            let waiting = std::mem::take(&mut self.waiting);
            self.answer(waiting);
        }
        match self.writer.depart() {
            Ok(None) => Ok(None),
            Ok(Some(flight)) => {
                self.flying.append(&mut self.waiting);
                Ok(Some(flight))
            }
            Err(LedgerError::Poisoned { cause }) => Err(self.poisoned(cause)),
            Err(error) => {
                tracing::warn!(actor = "ledger", %error, "the group was not written");
                for waiting in std::mem::take(&mut self.waiting) {
                    waiting.reply.send(Err(AppendError::Ledger(waiting::again(&error))));
                }
                Ok(None)
            }
        }
    }

    /// Takes what the flusher has written, and sees to the next group.
    pub(super) fn landed(&mut self, me: &Me) -> Result<(), Exit> {
        self.take_landed(me)?;
        // As after a flush; this sees to the next group too.
        self.stage_deferred(me)
    }

    pub(super) fn take_landed(&mut self, me: &Me) -> Result<(), Exit> {
        // Where someone has waited for it, it is not there any more.
        let landed = self.flusher.as_mut().filter(|_| self.writer.in_flight().is_some()).and_then(Flusher::landed);
        if let Some(flight) = landed {
            // Those who are about to be answered count: they come back.
            let known = self.on_their_way();
            let overlaps = gather::overlaps(known) && self.waiting.len() >= gather::half(known);
            let (group, waiting) = self.settle(flight)?;
            // The disk first; it would be idle while everyone is told.
            // But not where what is to be signed may take a while, or be cut, and another group be written first.
            let is_ready = overlaps && !self.writer.is_signing();
            let departed = if is_ready { self.hand_over(me) } else { Ok(()) };
            self.tell(group, waiting)?;
            departed?;
            if overlaps && !is_ready {
                self.hand_over(me)?;
            }
        }
        Ok(())
    }

    fn wait_for_flight(&mut self) -> Result<(), Exit> {
        if self.writer.in_flight().is_none() {
            return Ok(());
        }
        match self.flusher.as_mut().and_then(Flusher::wait) {
            Some(flight) => self.land(flight),
            None => Err(self.poisoned("the thread that writes has ended".to_owned())),
        }
    }

    fn land(&mut self, flight: Flight) -> Result<(), Exit> {
        let (group, waiting) = self.settle(flight)?;
        self.tell(group, waiting)
    }

    /// Takes it that a group is durable; answers who waits for it.
    fn settle(&mut self, flight: Flight) -> Result<(Group, Vec<Waiting>), Exit> {
        self.gather.took(flight.took());
        match self.writer.land(flight) {
            Ok(group) => Ok((group, std::mem::take(&mut self.flying))),
            Err(LedgerError::Poisoned { cause }) => Err(self.poisoned(cause)),
            Err(error) => Err(self.poisoned(error.to_string())),
        }
    }

    /// Tells everyone of a group that is durable.
    fn tell(&mut self, group: Group, waiting: Vec<Waiting>) -> Result<(), Exit> {
        self.fail(failpoint::ACTOR_LEDGER_SYNCED)?;
        self.context.shared.groups.fetch_add(1, Ordering::Relaxed);
        self.context.shared.events.fetch_add(group.last.seq.get() + 1 - group.first.get(), Ordering::Relaxed);
        self.context.shared.durable.send_replace(group.last);
        let awaited = waiting.iter().any(|waiting| waiting.durability == Durability::Mirrored) || !self.deferred.is_empty();
        self.answer(waiting);
        self.fail(failpoint::ACTOR_LEDGER_SEND)?;
        self.to_mirror.push(group, awaited);
        Ok(())
    }

    pub(super) fn poisoned(&mut self, cause: String) -> Exit {
        // Dropping the waiting tells each that its outcome is unknown.
        self.flying.clear();
        self.waiting.clear();
        self.deferred.drain(..).for_each(|append| {
            append.reply.send(Err(AppendError::Ledger(LedgerError::Poisoned { cause: cause.clone() })));
        });
        Exit::Poisoned { cause }
    }

    pub(super) fn answer(&self, waiting: Vec<Waiting>) {
        waiting::answer(&self.context.shared, &self.context.supervisor, waiting);
    }
}
