//! Open registry numbers: a number with names for the values we know, and room for every other one.

/// Declares newtypes over an unsigned number with named constants.
///
/// `Debug` and `Display` show the name where there is one and the number otherwise. Whether a value
/// is acceptable is decided where it is used, not where it is read, so that unknown values survive
/// a round trip.
#[macro_export]
macro_rules! open_number {
    ($(#[$meta:meta])* $name:ident($number:ty) { $($(#[$doc:meta])* $constant:ident = $value:expr;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);

        #[allow(missing_docs, reason = "registry names explain themselves")]
        impl $name {
            $($(#[$doc])* pub const $constant: Self = Self($value);)*
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$constant => f.write_str(stringify!($constant)),)*
                    Self(other) => write!(f, concat!(stringify!($name), "({})"), other),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(self, f)
            }
        }

        impl From<$name> for $number {
            fn from(number: $name) -> Self {
                number.0
            }
        }
    };
}
