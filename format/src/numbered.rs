//! Enums whose values have a number on disk and a name for people: said once, in one table.

/// Declares such an enum, with `number`, `from_number`, `name`, `from_name` and `Display`. 0 is never a number of one.
macro_rules! numbered {
    (
        $(#[$about:meta])*
        pub enum $type:ident { $( $(#[$doc:meta])* $number:literal $variant:ident $name:literal ),* $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $type { $( $(#[$doc])* $variant ),* }

        impl $type {
            /// Gives the number that stands for it on disk.
            #[must_use]
            pub fn number(self) -> u8 {
                match self { $( Self::$variant => $number ),* }
            }

            /// Gives what this number stands for.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $( $number => Some(Self::$variant), )* _ => None }
            }

            /// Gives its name, in lower case.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $name ),* }
            }

            /// Gives what has this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $( $name => Some(Self::$variant), )* _ => None }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use numbered;
