//! Lines on their way out. Who has one never waits for who reads it: a thread writes what is queued, and what finds no room is counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Lines that are kept while nobody reads.
const LINES_MAX: usize = 4096;

/// Where lines go, one after another. Clones have one queue; its thread ends with the last of them.
#[derive(Clone)]
pub(super) struct Lines(Arc<Owned>);

/// What the clones share, and the thread does not.
struct Owned(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<String>,
    /// Since the last time that it was told.
    lost: u64,
    is_writing: bool,
    is_over: bool,
}

impl State {
    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.lost == 0 && !self.is_writing
    }
}

impl Lines {
    /// Starts the thread that writes to `out`, each line with one write. Where lines are missing it writes what `lost` makes of their
    /// number.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(super) fn to(
        mut out: Box<dyn Write + Send>,
        lost: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let theirs = Arc::clone(&queue);
        let write = move || {
            while let Some(next) = theirs.next() {
                let line = match next {
                    Next::Line(line) => line,
                    Next::Lost(count) => lost(count),
                };
                // Nobody may be listening any more.
                out.write_all(line.as_bytes()).ok();
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(Self(Arc::new(Owned(queue))))
    }

    /// Queues a line. If there is no room it is lost, and so are those after it until all that is queued is written.
    pub(super) fn push(&self, line: String) {
        let mut state = self.queue().lock();
        if state.lost > 0 || state.waiting.len() >= LINES_MAX {
            state.lost = state.lost.saturating_add(1);
        } else {
            state.waiting.push_back(line);
        }
        self.queue().changed.notify_all();
    }

    /// Waits until all is written, as long as `limit`.
    pub(super) fn wait_until_written(&self, limit: Duration) {
        let queue = self.queue();
        let waited = queue.changed.wait_timeout_while(queue.lock(), limit, |state| !state.is_done());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn queue(&self) -> &Queue {
        &self.0.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

/// What is to be written.
enum Next {
    Line(String),
    Lost(u64),
}

impl Queue {
    /// Waits for what is to be written next; `None` at the end. What came before it is written.
    fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        let waits = |state: &mut State| state.is_done() && !state.is_over;
        let mut state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.pop_front().map(Next::Line).or_else(|| {
            let lost = std::mem::take(&mut state.lost);
            (lost > 0).then_some(Next::Lost(lost))
        });
        state.is_writing = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use pretty_assertions::assert_eq;

    use super::*;

    /// Longer than any test may take.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    /// Lines to a pipe, and its other end.
    fn piped() -> (Lines, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        (Lines::to(Box::new(writer), |count| format!("lost {count}\n")).unwrap(), reader)
    }

    #[test]
    fn lines_are_never_waited_for_and_what_is_missing_is_told_where_it_is_missing() {
        let (lines, mut reader) = piped();
        // More than a pipe takes (64 KiB), and the queue.
        let line = |number: usize| format!("{number:>99}\n");
        let all = LINES_MAX + 5000;
        (0..all).for_each(|number| lines.push(line(number)));
        lines.wait_until_written(Duration::ZERO);
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        lines.wait_until_written(FOR_EVER);
        lines.push("after\n".to_owned());
        drop(lines);
        let text = reading.join().unwrap();
        let read: Vec<_> = text.lines().collect();
        let kept = read.iter().take_while(|line| !line.starts_with("lost")).count();
        assert!((LINES_MAX..all).contains(&kept), "{kept}");
        assert_eq!(
            read[..kept].iter().map(|line| line.trim().parse().unwrap()).collect::<Vec<usize>>(),
            (0..kept).collect::<Vec<_>>()
        );
        assert_eq!(read[kept..], [&format!("lost {}", all - kept), "after"]);
    }

    #[test]
    fn what_is_queued_is_written_after_the_last_clone_is_gone() {
        let (lines, mut reader) = piped();
        lines.clone().push("one\n".to_owned());
        lines.push("two\n".to_owned());
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }
}
