//! States that rows are in: a number in the row, a name for people.

/// Defines states, numbered from 0 in their order, each with its name.
macro_rules! states {
    ($(#[$meta:meta])* $name:ident { $( $(#[$doc:meta])* $state:ident => $text:literal, )+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$doc])* $state, )+
        }

        impl $name {
            /// All of them, in their order.
            pub const ALL: [Self; [$( stringify!($state) ),+].len()] = [$( Self::$state, )+];

            /// Gives the name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $( Self::$state => $text, )+
                }
            }

            /// Gives the number that stands for it in a row.
            pub(crate) fn number(self) -> u32 {
                self as u32
            }

            /// Gives the state that a number stands for.
            pub(crate) fn of_number(number: Option<i64>) -> Option<Self> {
                Self::ALL.into_iter().find(|state| Some(i64::from(state.number())) == number)
            }
        }
    };
}

pub(crate) use states;
