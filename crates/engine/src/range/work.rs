//! Counts the steps of searches and merges, for tests that assert how they grow. Nothing in other builds.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// So many entries were read or written.
#[inline(always)]
pub(crate) fn note(_steps: usize) {
    #[cfg(test)]
    STEPS.with(|steps| steps.set(steps.get() + _steps as u64));
}

/// The steps of this thread during a call.
#[cfg(test)]
pub(crate) fn during<R>(call: impl FnOnce() -> R) -> (u64, R) {
    let before = STEPS.with(std::cell::Cell::get);
    let result = call();
    (STEPS.with(std::cell::Cell::get) - before, result)
}
