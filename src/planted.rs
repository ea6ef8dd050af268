//! Bugs that tests plant, to see that the simulation of the worker finds them (`worker::simulation::planted`).
//!
//! A line with [`planted`] says what would be wrong there. Outside of the library's own tests it is a constant `false`,
//! and nothing of it is left in the code.

macro_rules! bugs {
    ($($(#[$what:meta])* $bug:ident,)*) => {
        /// A bug, by what goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[$what])* $bug,)*
        }

        impl Bug {
            #[cfg(all(test, feature = "centrifugo"))]
            pub(crate) const ALL: &[Self] = &[$(Self::$bug),*];
        }
    };
}

bugs! {
    // What the kernel says.
    /// One read is taken to be enough, though the event told of the peer's end.
    StopBeforeEagain,
    /// An event's token is taken to be that of whoever has the slot now.
    SerialIgnored,
    /// That there are no descriptors is taken for an empty queue.
    EmfileIgnored,
    /// That a client gave up in the queue is taken for an empty queue.
    AbortIgnored,
    /// A receive that a signal interrupted is taken for a dead socket.
    EintrIsDead,
    /// A full socket is taken to have sent everything.
    EagainIsSent,
    /// A reset is taken for a socket without data.
    ResetUnseen,
    /// What came with the peer's end is not read.
    ReadClosedLoses,
    /// Cursors do not go on when the socket takes more.
    WritableIgnored,

    // What is sent.
    /// The rest of what the socket took a part of is sent from the start.
    PartialRepeated,
    /// The rest of what the socket took a part of is not sent.
    PartialDropped,
    /// A subscriber is taken to have seen all when its socket is full.
    CursorAhead,
    /// Output of a connection that is gone is left for the next.
    OutputLeft,
    /// What was put aside is sent behind what came later.
    CorkedLate,
    /// What was joined for one cursor is sent to another.
    JoinedForOther,
    /// A gap is not said.
    GapUnsaid,
    /// A ping is not answered while output waits, nor after.
    PongDropped,
    /// The peer's answer to a Close is answered with another.
    CloseTwice,
    /// Topics' messages go on behind a Close.
    SentBehindClose,
    /// Who did not agree on compression is sent compressed messages.
    CompressedToAll,

    // What is read.
    /// Behind the first frame of a read, frames are dropped while output waits.
    SecondFrameDropped,
    /// Requests that came while another waited for its answer are not taken up.
    EarlyForgotten,
    /// Whoever was not read while it waited is not read when it is answered.
    UnreadForgotten,
    /// How much a message inflates to is looked at when it has been inflated.
    InflatedFirst,

    // What crosses threads.
    /// A mailbox does not ring again after it was emptied.
    RingingStays,
    /// Who has handed out all that it took from the mailbox does not look whether it rang meanwhile.
    RungForgotten,
    /// What is posted wakes nobody.
    WakeDropped,
    /// The permit to sweep is kept when there is nothing left to sweep.
    PermitKept,
    /// A topic's home is not told that nobody listens any more.
    DetachForgotten,
    /// A topic's home does not note who listens.
    AttachForgotten,
    /// A topic's home is not told that a subscriber has gone.
    MemberKept,

    // What is kept of connections and topics.
    /// A connection's timer outlives it.
    TimerStays,
    /// A connection's place is not given back.
    PlaceKept,
    /// A connection's place is given back twice.
    PlaceGivenTwice,
    /// Who is moved to another's place among the subscribers is not told.
    MovedNotTold,
    /// The sweep does not go round again for who was moved to where it has been.
    JumpedOver,
    /// The answer to one subscription is taken for that to another.
    TicketIgnored,
    /// A position is looked for in whichever epoch there is.
    EpochIgnored,
    /// A key does not keep a publication from being made again.
    KeyForgotten,
    /// One message less is kept than was promised.
    KeptTooFew,

    // Deadlines.
    /// What a client sends puts off the deadline of its head.
    HeadPutOff,
    /// What a client sends puts off the deadline of its Close.
    ClosePutOff,
    /// What is added to what waits for the socket puts off the deadline for that.
    StallPutOff,
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) use tests::planted;

#[cfg(test)]
pub(crate) mod tests {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this thread's code has this bug.
    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Runs `act` with a bug, or with none.
    pub(crate) fn with<T>(bug: Option<Bug>, act: impl FnOnce() -> T) -> T {
        /// Takes it out whatever happens.
        struct Planted(Option<Bug>);

        impl Drop for Planted {
            fn drop(&mut self) {
                PLANTED.set(self.0);
            }
        }

        let _planted = Planted(PLANTED.replace(bug));
        act()
    }

    #[test]
    fn a_bug_is_there_for_as_long_as_it_was_asked_for_and_on_this_thread_alone() {
        assert!(!planted(Bug::KeptTooFew));
        with(Some(Bug::KeptTooFew), || {
            assert!(planted(Bug::KeptTooFew) && !planted(Bug::GapUnsaid));
            std::thread::scope(|scope| _ = scope.spawn(|| assert!(!planted(Bug::KeptTooFew))));
            let thrown =
                std::panic::catch_unwind(|| with(Some(Bug::GapUnsaid), || std::panic::resume_unwind(Box::new(()))));
            assert!(thrown.is_err() && planted(Bug::KeptTooFew));
        });
        assert!(!planted(Bug::KeptTooFew));
    }
}
