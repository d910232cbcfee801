//! Bugs planted on purpose, so that tests can show that they would find them: one form for every crate that has some.

/// Makes a crate's enumeration of bugs and the switch for them. Only with the crate's feature `planted-bugs` (and in
/// its own tests), which nothing but tests enables, can a bug be switched on; without it every check is `false`
/// at compile time. The switch belongs to the thread: a stepped world has one.
#[macro_export]
macro_rules! planted_bugs {
    ($($(#[$doc:meta])+ $bug:ident,)+) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[$doc])+ $bug,)+
        }

        #[cfg(any(test, feature = "planted-bugs"))]
        std::thread_local! {
            static BUG: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
        }

        /// Switches a bug on, or all off, for what this thread drives.
        #[cfg(any(test, feature = "planted-bugs"))]
        pub fn set(bug: Option<Bug>) {
            BUG.set(bug);
        }

        #[cfg(any(test, feature = "planted-bugs"))]
        pub(crate) fn is_set(bug: Bug) -> bool {
            BUG.get() == Some(bug)
        }

        #[cfg(not(any(test, feature = "planted-bugs")))]
        pub(crate) const fn is_set(_: Bug) -> bool {
            false
        }
    };
}
